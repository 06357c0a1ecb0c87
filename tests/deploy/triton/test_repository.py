"""Repositories with several models: one is added or replaced whole, and nothing else is touched."""

from __future__ import annotations

import errno
import json
import os
import py_compile
from collections.abc import Callable
from pathlib import Path

import pytest
from console import tree
from made_bundle import make_bundle
from triton_repository import deploy, read_config

from vivit_export.bundle import read_bundle
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.errors import OutputError


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A repository with ``m`` and the models in front of it, and with one of somebody else."""
    repository = tmp_path / "r"
    deploy_triton(make_bundle(tmp_path / "bundle"), repository, TritonOptions(name="m", ensemble=True))
    (repository / "theirs/1").mkdir(parents=True)
    (repository / "theirs/config.pbtxt").write_text('name: "theirs"')
    return repository


@pytest.mark.field_case("server 6989")
def test_a_model_is_added_beside_others(tmp_path: Path, shared: Path) -> None:
    before = tree(tmp_path)
    done = deploy_triton(read_bundle(tmp_path / "bundle"), shared, TritonOptions(name="n", ensemble=True))
    after = tree(tmp_path)
    assert {folder.name for folder in shared.iterdir()} == {
        f"{name}{end}" for name in ("m", "n") for end in ("", "-frames", "-video")
    } | {"theirs"}
    assert {name: after[name] for name in before} == before
    assert {f"r/{name}" for name in (*done.files, "n/deployment.json")} == {
        name for name in after.keys() - before.keys() if after[name] is not None
    }


def test_one_model_is_replaced_with_all_its_folders(tmp_path: Path, shared: Path) -> None:
    bundle = read_bundle(tmp_path / "bundle")
    deploy_triton(bundle, shared, TritonOptions(name="n"))
    before = tree(shared)
    with pytest.raises(OutputError, match="r/m exists; pass force to replace that deployment, or choose another"):
        deploy(bundle, shared, name="m")
    assert tree(shared) == before
    deploy_triton(bundle, shared, TritonOptions(name="m", delay_us=7), force=True)
    assert {folder.name for folder in shared.iterdir()} == {"m", "n", "theirs"}  # none in front of it this time
    assert read_config(shared / "m").dynamic_batching.max_queue_delay_microseconds == 7
    kept = {name: data for name, data in tree(shared).items() if not name.startswith("m")}
    assert kept == {name: data for name, data in before.items() if not name.startswith("m")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "r"]


def test_what_python_compiled_for_the_server_is_replaced_too(tmp_path: Path, shared: Path) -> None:
    for name in ("m-frames", "m-video"):
        for source in (shared / name / "1").glob("model.py"):
            py_compile.compile(str(source), doraise=True)
            py_compile.compile(str(source), doraise=True, optimize=2)
    (cache,) = shared.glob("m*/1/__pycache__")
    assert len(list(cache.iterdir())) == 2
    deploy_triton(tmp_path / "bundle", shared, TritonOptions(name="m", ensemble=True), force=True)
    assert not list(shared.rglob("__pycache__"))


@pytest.mark.parametrize("name", ["other.cpython-311.pyc", "model.cpython-311.pyc/x", "notes.txt", "model.py"])
def test_what_else_lies_beside_compiled_files_is_not_lost(tmp_path: Path, shared: Path, name: str) -> None:
    file = shared / "m-frames/1/__pycache__" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(OutputError, match=r"__pycache__/.* is not part of the deployment and would be lost"):
        deploy_triton(tmp_path / "bundle", shared, TritonOptions(name="m", ensemble=True), force=True)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (
            lambda r: None,
            "theirs",
            "theirs exists and is not a deployment of theirs, so it is left alone; choose another",
        ),
        (lambda r: (r / "n-video").mkdir(), "n", "n-video exists and is not a deployment of n, so it is left alone"),
        (lambda r: (r / "n").symlink_to("nowhere"), "n", "r/n exists and is not a deployment of n"),
        (lambda r: (r / "m/2").write_text("mine"), "m", "m/2 is not part of the deployment and would be lost; move it"),
        (lambda r: (r / "m-video/x").write_text("mine"), "m", "m-video/x is not part of the deployment"),
        (lambda r: (r / "m/deployment.json").write_text("{}"), "m", "r/m exists and is not a deployment of m"),
        (lambda r: (r / "bundle.json").write_text("{}"), "n", "has a bundle.json, so it is not a model repository"),
        (
            lambda r: (r / "deployment.json").write_text("{}"),
            "n",
            "has a deployment.json, so it is not a model repository",
        ),
    ],
)
def test_nothing_that_is_not_ours_is_replaced(
    tmp_path: Path, shared: Path, change: Callable[[Path], object], name: str, said: str
) -> None:
    change(shared)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=said):
        deploy_triton(tmp_path / "bundle", shared, TritonOptions(name=name, ensemble=True), force=True)
    assert tree(tmp_path) == before


def test_a_listing_does_not_reach_out_of_its_deployment(tmp_path: Path, shared: Path) -> None:
    listing = shared / "m/deployment.json"
    content = json.loads(listing.read_text())
    for name in ("../bundle/model.onnx", "/etc/hostname", "theirs/config.pbtxt"):
        content["files"][name] = {"sha256": "0" * 64, "size": 1}
    listing.write_text(json.dumps(content))
    deploy_triton(tmp_path / "bundle", shared, TritonOptions(name="m"), force=True)
    assert (shared / "theirs/config.pbtxt").is_file() and (tmp_path / "bundle/model.onnx").is_file()


@pytest.mark.parametrize("failing", range(1, 8))  # all of them aside, three folders that go, three that come
def test_a_move_that_fails_is_undone(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    before, rename, calls = tree(tmp_path), Path.rename, iter(range(1, 100))

    def limited(self: Path, target: Path) -> Path:
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", limited)
    with pytest.raises(OutputError, match="r was not written: the disk is full"):
        deploy_triton(tmp_path / "bundle", shared, TritonOptions(name="m", ensemble=True), force=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("target", ["loop", "loop/r", "/proc/r", "n" * 300])
def test_a_place_that_cannot_be_written(tmp_path: Path, target: str) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match=r"exists and is not a folder|cannot be written"):
        deploy(bundle, tmp_path / target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "loop"]


def test_a_mounted_volume_is_filled_without_leaving_its_disk(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose parent cannot be written; what would leave the disk is refused as the kernel does."""
    rename, access = Path.rename, os.access

    def on_one_disk(self: Path, target: Path) -> Path:
        assert shared in self.parents and shared in Path(target).parents
        return rename(self, target)

    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == shared)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    monkeypatch.setattr(Path, "rename", on_one_disk)
    bundle = read_bundle(tmp_path / "bundle")
    deploy(bundle, shared, name="n")
    deploy_triton(bundle, shared, TritonOptions(name="m"), force=True)
    with pytest.raises(OutputError, match="pass force"):
        deploy(bundle, shared, name="m")
    assert sorted(path.name for path in shared.iterdir()) == ["m", "n", "theirs"]


def test_a_file_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("mine")
    with pytest.raises(OutputError, match="r exists and is not a folder; choose another name"):
        deploy(make_bundle(tmp_path / "bundle"), tmp_path / "r")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("m/inner", "m/inner lies inside the model .*/r/m; choose a folder outside of it"),
        ("theirs/1/inner", "theirs/1/inner lies inside the model .*/r/theirs"),
        ("m", "m has a deployment.json, so it is not a model repository"),
        ("theirs", "theirs has a config.pbtxt, so it is not a model repository"),
    ],
)
def test_a_model_is_no_repository(tmp_path: Path, shared: Path, target: str, said: str) -> None:
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=said):
        deploy_triton(tmp_path / "bundle", shared / target, force=True)
    assert tree(tmp_path) == before


def test_an_empty_folder_and_a_link_to_a_repository_are_filled(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "link").symlink_to("r")
    bundle = make_bundle(tmp_path / "bundle")
    for name in ("one", "two"):
        deploy(bundle, tmp_path / "link", name=name)
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["one", "two"]
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(OutputError, match="lies inside the bundle"):
        deploy(bundle, bundle.path / "r")
