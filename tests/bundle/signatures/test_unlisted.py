"""Files that no manifest lists, and links that only lead to those that it does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from linked_bundles import LAYOUTS, link

from vivit_export.bundle import read_bundle
from vivit_export.bundle.signatures.unlisted import require_all_listed
from vivit_export.errors import BundleError


def test_a_bundle_with_what_it_lists_and_its_signature(home: Path) -> None:
    require_all_listed(read_bundle(home / "old"))
    (home / "old/model.sig").write_text("{}")
    (home / "old/.git").mkdir()
    (home / "old/.git/config").write_text("")
    (home / "old/.gitattributes").write_text("")
    (home / "old/empty").mkdir()
    require_all_listed(read_bundle(home / "old"))


def deep(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()


EXTRAS: dict[str, Callable[[Path], object]] = {
    "notes.txt": Path.touch,
    ".hidden": Path.touch,
    "engines/more.plan": Path.touch,
    "engines/model.sig": Path.touch,
    "deep/er/file": deep,
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "nothing": lambda path: path.symlink_to("nowhere"),
    "folder": lambda path: path.symlink_to("/etc"),
    "loop": lambda path: path.symlink_to("loop"),
    "engines/.git": Path.touch,
}


@pytest.mark.parametrize("name", EXTRAS)
def test_another_file_is_named(home: Path, name: str) -> None:
    EXTRAS[name](home / "old" / name)
    said = f"^{home}/old/{name} is not listed in bundle.json, so nothing vouches for it; remove it"
    with pytest.raises(BundleError, match=said):
        require_all_listed(read_bundle(home / "old"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_links_of_known_layouts_are_no_other_files(home: Path, tmp_path: Path, layout: str) -> None:
    folder = link(home / "old", tmp_path / "linked", layout)
    require_all_listed(read_bundle(folder))


def test_a_link_to_the_bundle_is_the_bundle(home: Path) -> None:
    shutil.move(home / "old", home / "real")
    (home / "old").symlink_to("real")
    require_all_listed(read_bundle(home / "old"))
    (home / "real/x").touch()
    with pytest.raises(BundleError, match=f"^{home}/old/x is not listed"):
        require_all_listed(read_bundle(home / "old"))
