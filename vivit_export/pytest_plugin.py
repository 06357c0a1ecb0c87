"""A plugin of pytest: the fixture ``vivit_bundle``.

    def test_no_drift(vivit_bundle):
        ve.assert_no_drift(vivit_bundle)

``pytest --vivit-bundle PATH`` says which bundle, or ``vivit_bundle = PATH`` in pytest's ini file; its address on the
hub, ``hf://OWNER/NAME@REVISION``, is as good. pytest loads this module at every start, so it imports nothing but pytest
then.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vivit_export.bundle import Bundle

_OPTION, _INI = "--vivit-bundle", "vivit_bundle"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option and its key in the ini file."""
    group = parser.getgroup("vivit-export")
    group.addoption(_OPTION, metavar="PATH", help="bundle of vivit-export that the fixture vivit_bundle gives")
    parser.addini(_INI, f"the same as {_OPTION}; relative to the ini file")


@pytest.fixture(scope="session")
def vivit_bundle(pytestconfig: pytest.Config) -> Bundle:
    """The bundle that ``--vivit-bundle`` or the ini file names, read and verified once for all tests."""
    place = _place(pytestconfig)
    if place is None:
        pytest.fail(
            f"the fixture vivit_bundle needs a bundle: {_OPTION} PATH, or {_INI} in the ini file", pytrace=False
        )
    from vivit_export.bundle import read_bundle
    from vivit_export.errors import VivitExportError

    try:
        return read_bundle(place)
    except VivitExportError as e:
        pytest.fail(f"the bundle of {_OPTION} cannot be used: {e}", pytrace=False)


def _place(config: pytest.Config) -> Path | str | None:
    given, written = config.getoption(_OPTION), config.getini(_INI)
    from vivit_export.hub import is_hub_address

    named = given or written
    if is_hub_address(named):
        return str(named)
    if given:
        return Path(config.invocation_params.dir, given)
    if not written:
        return None
    return Path(config.inipath.parent if config.inipath else config.rootpath, written)
