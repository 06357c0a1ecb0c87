"""``deployment.json``: every file by its hash, a folder that is one or none, and copies that are verified."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from console import tree
from small_bundle import rewrite

from vivit_export.bundle import read_bundle, write_manifest
from vivit_export.bundle.manifest import FileRecord
from vivit_export.deploy.listing import copy_bundle, deploying, read_deployment, require_outside, write_listing
from vivit_export.errors import BundleError, OutputError


def test_every_file_is_listed_with_what_it_holds(home: Path) -> None:
    bundle = read_bundle(home / "old")
    with deploying("cpp", bundle, home / "app", force=False) as work:
        (work / "src").mkdir()
        (work / "src/main.cpp").write_bytes(b"int main() {}")
        (work / "README.md").write_bytes(b"")
    made = read_deployment(home / "app")
    assert (made.path, made.kind, made.model) == (home / "app", "cpp", "demo")
    assert made.readme == home / "app/README.md" and made.readme.is_file()
    contents = {"src/main.cpp": b"int main() {}", "README.md": b""}
    assert made.files == {
        name: FileRecord(hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()
    }
    assert made.size_bytes == 13


def test_the_listing_may_lie_in_a_folder_of_what_it_lists(home: Path) -> None:
    bundle = read_bundle(home / "old")
    (home / "repository/m").mkdir(parents=True)
    (home / "repository/m/config.pbtxt").write_bytes(b"x")
    write_listing(home / "repository", "m/deployment.json", "triton", bundle)
    made = read_deployment(home / "repository", "m/deployment.json")
    assert set(made.files) == {"m/config.pbtxt"}
    assert (made.path, made.readme) == (home / "repository", home / "repository/m/README.md")


def test_a_failure_leaves_nothing(home: Path) -> None:
    bundle, before = read_bundle(home / "old"), tree(home)

    def deploy_and_fail() -> None:
        with deploying("cpp", bundle, home / "a/app", force=False) as work:
            (work / "main.cpp").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy_and_fail()
    assert tree(home) == before


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (None, "m is not a deployment: it has no readable deployment.json"),
        ("{", "no readable"),
        ("[]", "no readable"),
        ('{"format": "vivit-deployment/1", "kind": "cpp"}', "no readable"),
        (
            '{"format": "vivit-deployment/2"}',
            "format 'vivit-deployment/2'; this version reads 'vivit-deployment/1'",
        ),
    ],
)
def test_what_is_no_deployment(tmp_path: Path, listing: str | None, said: str) -> None:
    (tmp_path / "m").mkdir()
    if listing is not None:
        (tmp_path / "m/deployment.json").write_text(listing)
    with pytest.raises(BundleError, match=said):
        read_deployment(tmp_path / "m")


@pytest.mark.parametrize("target", ["old/app", "old/engines/app", "link/app", "old/../old/app"])
def test_a_place_inside_the_bundle_is_refused(home: Path, target: str) -> None:
    (home / "link").symlink_to("old/engines")
    with pytest.raises(OutputError, match=r"lies inside the bundle .*old; choose a folder outside of it"):
        require_outside(read_bundle(home / "old"), home / target)


@pytest.mark.parametrize("target", ["app", "older/app", "old/../app", "loop/app"])
def test_a_place_beside_the_bundle_is_taken(home: Path, target: str) -> None:
    (home / "loop").symlink_to("loop")
    require_outside(read_bundle(home / "old"), home / target)


def test_a_bundle_is_copied_with_what_it_lists_and_nothing_else(home: Path) -> None:
    bundle = read_bundle(home / "old")
    (home / "old/notes.txt").write_text("mine")
    copy_bundle(bundle, home / "copy")
    assert read_bundle(home / "copy").manifest == bundle.manifest
    listed = {*json.loads((home / "old/bundle.json").read_text())["files"], "bundle.json"}
    assert {name for name, content in tree(home / "copy").items() if content is not None} == listed


def test_a_bundle_that_was_replaced_is_not_copied_for_the_one_that_was_judged(home: Path) -> None:
    """The other is whole, too: its manifest fits its files."""
    bundle = read_bundle(home / "old")
    (home / "old/model.onnx").write_bytes(b"grape")
    write_manifest(home / "old", bundle.manifest.content)
    with pytest.raises(BundleError, match="old changed while it was copied; run again on a bundle that nobody writes"):
        copy_bundle(bundle, home / "copy")


def test_a_bundle_that_was_altered_is_not_copied_as_if_it_were_whole(home: Path) -> None:
    bundle = read_bundle(home / "old")
    (home / "old/model.onnx").write_bytes(b"grape")
    with pytest.raises(BundleError, match=r"model\.onnx is not the file that bundle\.json describes"):
        copy_bundle(bundle, home / "copy")


def test_a_bundle_that_was_exchanged_is_not_copied(home: Path) -> None:
    bundle = read_bundle(home / "old")
    rewrite(home / "old", lambda manifest: manifest["contract"].update(labels=["a", "b"]))
    with pytest.raises(
        BundleError, match="old changed while it was copied; run again on a bundle that nobody writes to"
    ):
        copy_bundle(bundle, home / "copy")


def test_a_bundle_in_a_deployment_may_be_signed_there(home: Path) -> None:
    """``--force`` still replaces the whole."""
    bundle = read_bundle(home / "old")
    for force in (False, True):
        with deploying("cpp", bundle, home / "app", force=force) as work:
            copy_bundle(bundle, work / "bundle")
        (home / "app/bundle/model.sig").write_bytes(b"{}")
    (home / "app/model.sig").write_bytes(b"{}")
    with (
        pytest.raises(OutputError, match=r"app holds model\.sig, which is not part of the deployment"),
        deploying("cpp", bundle, home / "app", force=True),
    ):
        pytest.fail("not reached")
