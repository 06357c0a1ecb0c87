"""Reading a bundle: what is read is what was written, and anything else is refused."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from linked_bundles import LAYOUTS, link
from small_bundle import CONTENT, CONTRACT, FILES, rewrite

from vivit_export.bundle import read_bundle
from vivit_export.bundle.reading import copy_files
from vivit_export.errors import BundleError
from vivit_export.files import sha256_of
from vivit_export.precision import Precision


def test_what_was_written_is_read_back(home: Path) -> None:
    found = read_bundle(home / "old")
    assert found.contract == CONTRACT
    assert found.precision is Precision.FP16
    assert found.model.read_bytes() == b"graph"
    assert found.golden is not None and found.golden.read_bytes() == b"clips"
    assert found.engine_path(*found.engines).read_bytes() == b"\0\1\2"
    assert found.size_bytes == sum(map(len, FILES.values()))
    assert set(found.manifest.files) == set(FILES)
    assert found.manifest.engines == CONTENT.engines
    assert json.loads((home / "old/bundle.json").read_text())["format"] == "vivit-bundle/2"


def test_a_bundle_says_in_a_line_what_it_is(home: Path) -> None:
    found = read_bundle(home / "old")
    names = ", ".join(found.engines)
    assert repr(found) == f"<Bundle {home / 'old'}: {found.manifest.model.id} in fp16, {names}>"


def test_a_bundle_may_be_moved(home: Path) -> None:
    (home / "old").rename(home / "new")
    assert read_bundle(str(home / "new")).path == home / "new"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0, -1])
def test_one_altered_byte_is_found(home: Path, name: str, position: int) -> None:
    path = home / "old" / name
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is not the file that bundle.json describes"):
        read_bundle(home / "old")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.field_case("mmdeploy 2315", "TensorRT 574")
def test_a_truncated_or_missing_file_is_found_even_without_hashing(home: Path, name: str, verify: bool) -> None:
    path = home / "old" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"{name} is not the file .* altered or cut short"):
        read_bundle(home / "old", verify=verify)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        read_bundle(home / "old", verify=verify)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bundle_whose_files_are_links_is_read_if_the_hashes_match(home: Path, layout: str) -> None:
    folder = link(home / "old", home, layout)
    bundle = read_bundle(folder)
    assert {name: bundle.read(name) for name in FILES} == FILES
    copy_files(bundle, home / "copy")
    assert not any(path.is_symlink() for path in (home / "copy").rglob("*"))
    path = (folder / "engines/rtx.plan").resolve()
    path.write_bytes(b"xyz")
    with pytest.raises(BundleError, match=r"rtx\.plan is not the file that bundle\.json describes"):
        read_bundle(folder)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # a name of at most 107 bytes


MAKERS: dict[str, Callable[[Path], object]] = {
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a socket": make_socket,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("what", MAKERS)
@pytest.mark.parametrize("name", ["model.onnx", "bundle.json"])
@pytest.mark.parametrize("verify", [True, False])
def test_what_is_no_file_is_refused_at_once(home: Path, what: str, name: str, verify: bool) -> None:
    (home / "old" / name).unlink()
    MAKERS[what](home / "old" / name)
    with pytest.raises(BundleError, match=r"model\.onnx is missing \(or not a file\)|has no bundle\.json"):
        read_bundle(home / "old", verify=verify)


@pytest.mark.parametrize("what", MAKERS)
def test_what_takes_the_place_of_a_file_later_is_not_read(home: Path, what: str) -> None:
    bundle = read_bundle(home / "old")
    bundle.model.unlink()
    MAKERS[what](bundle.model)
    with pytest.raises(BundleError, match=r"model\.onnx (cannot be read|is not the file that)"):
        bundle.read("model.onnx")


def test_only_what_was_verified_is_read(home: Path) -> None:
    bundle = read_bundle(home / "old")
    assert {name: bundle.read(name) for name in FILES} == FILES
    for content in (b"grapH", b"graphs", b"grap", b""):
        bundle.model.write_bytes(content)
        with pytest.raises(BundleError, match=r"model\.onnx is not the file that bundle\.json describes"):
            bundle.read("model.onnx")
    with pytest.raises(BundleError, match=r"bundle\.json does not list notes\.txt, so it is not used"):
        bundle.read("notes.txt")


def test_a_bundle_behind_a_link_is_read(home: Path) -> None:
    (home / "current").symlink_to("old")
    assert read_bundle(home / "current").model.read_bytes() == b"graph"


@pytest.mark.parametrize(
    "name", ["../notes.txt", "engines/../../notes.txt", "/etc/hostname", "..\\notes.txt", "x" * 5000, "a\0b", "."]
)
def test_a_listed_path_outside_the_bundle_is_refused(home: Path, name: str) -> None:
    entry = {"sha256": sha256_of(home / "notes.txt"), "size": 4}
    rewrite(home / "old", lambda m: m["files"].update({name: entry}))
    with pytest.raises(BundleError, match=r"outside the bundle|is missing|cannot be read"):
        read_bundle(home / "old")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "nothing is not a folder; make a bundle with: vivit-export MODEL -o"),
        ("notes.txt", r"notes\.txt is not a folder"),
        (".", r"has no bundle\.json"),
        ("n" * 300, "cannot be read: File name too long"),
    ],
)
def test_what_is_not_a_bundle_is_refused(home: Path, path: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_bundle(home / path)


@pytest.mark.parametrize("name", ["bundle.json", "model.sig"])
def test_what_describes_a_bundle_is_none_of_its_files(home: Path, name: str) -> None:
    (home / "old/model.sig").write_bytes(b"{}")
    entry = {"sha256": sha256_of(home / "old" / name), "size": (home / "old" / name).stat().st_size}
    rewrite(home / "old", lambda m: m["files"].update({name: entry}))
    with pytest.raises(
        BundleError, match=rf"bundle\.json lists {name}, which cannot describe itself; export the bundle"
    ):
        read_bundle(home / "old")


def test_the_hash_of_the_manifest_is_that_of_the_bytes_that_were_parsed(home: Path) -> None:
    bundle = read_bundle(home / "old")
    assert bundle.manifest_sha256 == sha256_of(home / "old/bundle.json")
    rewrite(home / "old", lambda m: m["contract"].update(labels=["a", "b"]))
    assert read_bundle(home / "old").manifest_sha256 != bundle.manifest_sha256
