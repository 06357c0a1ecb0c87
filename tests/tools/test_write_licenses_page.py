"""The page of licenses is what its script writes, and no license that we must know of has come unseen."""

from __future__ import annotations

import re

from write_licenses_page import EXTRAS, PAGE, page

from vivit_export.export.installed import installed_packages

# Of what serves or exports a model; a new one is looked at before it is added.
ACCEPTED = re.compile(
    r"(Apache|BSD|0BSD|MIT|ISC|PSF|MPL|CNRI|CC0|Zlib|BSL|ZPL|Unlicense|LLVM-exception|3-Clause BSD|Proprietary)"
)


def test_the_page_is_what_the_script_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tools/write_licenses_page.py"


def test_every_license_was_looked_at() -> None:
    for package in installed_packages(EXTRAS):
        assert package.license, f"{package.name} states no license"
        for part in re.split(r" AND | OR | WITH ", package.license):
            assert ACCEPTED.match(part), f"{package.name}: {part}"
