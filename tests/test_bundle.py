"""The bundle on disk: what is written is complete or not there, what is read is what was written."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vivit_export import bundle
from vivit_export.bundle import check_target, read_bundle, write_json, write_manifest, writing
from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
from vivit_export.errors import BundleError, OutputError

CONTRACT = Contract(
    Clip(8, 64, 64, (2, 8, 8)),
    Preprocess(shortest_edge=64, crop_size=(64, 64)),
    IO("crops", (Tensor("frames", "uint8", ("batch", 8, 64, 64, 3)),), (Tensor("logits", "float32", ("batch", 2)),)),
    ("left", "right"),
)
CONTENT: dict[str, Any] = {
    "model": {"id": "demo", "config": {}, "parameters": 3},
    "contract": CONTRACT.to_json(),
    "precision": {"name": "fp16", "attention": "pattern", "opset": 20},
    "engines": {"rtx": {}},
    "checks": {},
}
FILES = {
    "model.onnx": b"graph",
    "golden.safetensors": b"clips",
    "engines/rtx.plan": b"\0\1\2",
    "engines/rtx.json": b"{}",
}

Tree = dict[str, tuple[int, bytes | None]]


def fill(folder: Path) -> None:
    """Make a folder a bundle."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder, CONTENT)


def tree(folder: Path) -> Tree:
    """Every file and folder below, hidden ones too, with its mode and bytes."""
    return {
        str(p.relative_to(folder)): (p.lstat().st_mode, p.read_bytes() if p.is_file() else None)
        for p in sorted(folder.rglob("*"))
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that holds a bundle ``old`` and a stranger's file."""
    (tmp_path / "notes.txt").write_text("mine")
    with writing(tmp_path / "old", force=False) as work:
        fill(work)
    return tmp_path


# --- reading -----------------------------------------------------------------------------------


def test_what_was_written_is_read_back(home: Path) -> None:
    found = read_bundle(home / "old")
    assert found.contract == CONTRACT
    assert found.precision == "fp16"
    assert found.model.read_bytes() == b"graph"
    assert found.golden is not None and found.golden.read_bytes() == b"clips"
    assert found.engine_plan(*found.engines).read_bytes() == b"\0\1\2"
    assert found.size_bytes == sum(map(len, FILES.values()))
    assert set(found.manifest["files"]) == set(FILES)
    assert found.manifest["format"] == "vivit-bundle/1"


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
def test_a_truncated_or_missing_file_is_found_even_without_hashing(home: Path, name: str, verify: bool) -> None:
    path = home / "old" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"{name} is not the file .* altered or cut short"):
        read_bundle(home / "old", verify=verify)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        read_bundle(home / "old", verify=verify)


def test_a_folder_in_the_place_of_a_file_is_refused(home: Path) -> None:
    (home / "old/model.onnx").unlink()
    (home / "old/model.onnx").mkdir()
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        read_bundle(home / "old")


@pytest.mark.parametrize("name", ["model.onnx", "engines/rtx.plan", "engines"])
def test_a_link_out_of_the_bundle_is_refused(home: Path, name: str) -> None:
    path = home / "old" / name
    elsewhere = home / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(BundleError, match="link out of the bundle"):
        read_bundle(home / "old")


def test_a_bundle_behind_a_link_is_read(home: Path) -> None:
    (home / "current").symlink_to("old")
    assert read_bundle(home / "current").model.read_bytes() == b"graph"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "name", ["../notes.txt", "engines/../../notes.txt", "/etc/hostname", "..\\notes.txt", "x" * 5000, "a\0b", "."]
)
def test_a_listed_path_outside_the_bundle_is_refused(home: Path, name: str) -> None:
    entry = {"sha256": bundle.sha256_of(home / "notes.txt"), "size": 4}
    rewrite(home / "old", lambda m: m["files"].update({name: entry}))
    with pytest.raises(BundleError, match=r"outside the bundle|is missing|cannot be read"):
        read_bundle(home / "old")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.update(format="vivit-bundle/2"),
            "has format 'vivit-bundle/2'; this version reads 'vivit-bundle/1'",
        ),
        (lambda m: m.pop("format"), "has format None"),
        *((lambda m, s=s: m.pop(s), f"lacks '{s}'") for s in ("model", "contract", "precision", "engines", "checks")),
        (lambda m: m.pop("files"), "lacks 'files'"),
        (lambda m: m.update(engines=[]), "lacks 'engines'"),
        (lambda m: m["model"].pop("parameters"), "lacks 'model.parameters'"),
        (lambda m: m["precision"].pop("opset"), "lacks 'precision.opset'"),
        (lambda m: m["files"].pop("model.onnx"), r"does not list model\.onnx"),
        (lambda m: m["files"].pop("engines/rtx.plan"), r"does not list engines/rtx\.plan"),
        (lambda m: m["engines"].update({"../../x": {}}), r"does not list engines/\.\./\.\./x\.plan"),
        (lambda m: m["files"].update({"model.onnx": None}), r"no size and sha256 for model\.onnx"),
        (lambda m: m["files"]["model.onnx"].pop("sha256"), "no size and sha256"),
        (lambda m: m["files"]["model.onnx"].update(size="5"), "no size and sha256"),
        (lambda m: m["files"]["model.onnx"].update(size=-1), "altered or cut short"),
        (lambda m: m["contract"]["clip"].pop("width"), r"bundle\.json: contract\.clip lacks the field 'width'"),
        (lambda m: m["contract"]["clip"].update(width=63), "width=63 is not a positive multiple"),
    ],
)
def test_a_manifest_that_is_incomplete_is_refused(
    home: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(home / "old", change)
    with pytest.raises(BundleError, match=message):
        read_bundle(home / "old")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}'], ids=lambda c: str(c[:8])
)
def test_a_manifest_that_is_no_object_is_refused(home: Path, content: bytes) -> None:
    (home / "old/bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json (cannot be read as JSON|has format)"):
        read_bundle(home / "old")


def test_a_huge_manifest_is_not_loaded(home: Path) -> None:
    with (home / "old/bundle.json").open("ab") as f:
        f.truncate(65 << 20)
    with pytest.raises(BundleError, match="larger than 64 MiB"):
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


# --- writing -----------------------------------------------------------------------------------


def test_the_same_content_gives_the_same_bytes(home: Path) -> None:
    with writing(home / "again", force=False) as work:
        for name in reversed(FILES):
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).write_bytes(FILES[name])
        write_manifest(work, dict(reversed(CONTENT.items())))
    assert tree(home / "again") == tree(home / "old")


def test_json_is_sorted_readable_and_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": 1, "a": ["Δ", None]})
    assert (tmp_path / "x.json").read_bytes() == '{\n  "a": [\n    "Δ",\n    null\n  ],\n  "b": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert os.listdir(tmp_path) == ["x.json"]
    assert (tmp_path / "x.json").read_bytes().startswith(b"{")


def test_everybody_may_read_a_bundle_whatever_its_writers_did(tmp_path: Path) -> None:
    with writing(tmp_path / "out", force=False) as work:
        fill(work)
        (work / "engines/rtx.plan").chmod(0o600)
        (work / "engines").chmod(0o700)
    modes = {name: oct(mode & 0o777) for name, (mode, _) in tree(tmp_path).items()}
    assert modes.pop("out") == modes.pop("out/engines") == "0o755"
    assert set(modes.values()) == {"0o644"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with writing(tmp_path / "out", force=False) as work:
        fill(work)
    read_bundle(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_a_bundle_is_replaced_only_with_force(home: Path) -> None:
    before = tree(home)
    with (
        pytest.raises(OutputError, match="old exists; pass --force to replace that bundle"),
        writing(home / "old", force=False),
    ):
        pytest.fail("not reached")
    assert tree(home) == before
    with writing(home / "old", force=True) as work:
        (work / "model.onnx").write_bytes(b"new graph")
        write_manifest(work, {**CONTENT, "engines": {}})
    assert read_bundle(home / "old").model.read_bytes() == b"new graph"
    assert sorted(os.listdir(home)) == ["notes.txt", "old"]
    assert sorted(os.listdir(home / "old")) == ["bundle.json", "model.onnx"]


def test_behind_a_link_the_folder_it_leads_to_is_replaced(home: Path) -> None:
    (home / "current").symlink_to("old")
    with writing(home / "current", force=True) as work:
        (work / "model.onnx").write_bytes(b"new graph")
        write_manifest(work, {**CONTENT, "engines": {}})
    assert (home / "current").is_symlink()
    assert read_bundle(home / "old").model.read_bytes() == b"new graph"


def strangers(home: Path) -> dict[str, Path]:
    """What must survive --force."""
    made = {name: home / name for name in ("file", "work", "their.bundle", "damaged", "newer", "kept", "linked")}
    made["file"].write_text("mine")
    for name in ("work", "their.bundle"):
        made[name].mkdir()
        (made[name] / "thesis.txt").write_text("mine")
    (made["their.bundle"] / "bundle.json").write_text('{"modules": []}')  # of another tool
    for name in ("damaged", "newer", "kept", "linked"):
        shutil.copytree(home / "old", made[name])
    (made["damaged"] / "bundle.json").write_text("{")
    rewrite(made["newer"], lambda m: m.update(format="vivit-bundle/2"))
    (made["kept"] / "engines/notes.txt").write_text("mine")
    (made["linked"] / "videos").symlink_to(home)
    made["dangling"] = home / "dangling"
    made["dangling"].symlink_to("nowhere")
    made["loop"] = home / "loop"
    made["loop"].symlink_to("loop")
    return made


def test_what_is_not_wholly_a_bundle_is_never_deleted(home: Path) -> None:
    paths = strangers(home)
    before = tree(home)
    messages = {"kept": r"holds engines/notes\.txt, which is not part of the bundle", "linked": "holds videos, which"}
    for name, path in paths.items():
        message = messages.get(name, "is left alone|not a folder")
        with pytest.raises(OutputError, match=f"{path.name} .*({message})"), writing(path, force=True):
            pytest.fail("not reached")
    assert tree(home) == before


@pytest.mark.parametrize("force", [True, False])
def test_what_appears_during_the_work_is_not_deleted(home: Path, force: bool) -> None:
    target = home / "new"

    def work() -> None:
        with writing(target, force=force) as folder:
            fill(folder)
            target.mkdir()
            (target / "thesis.txt").write_text("mine")

    with pytest.raises(OutputError, match="new exists"):
        work()
    assert sorted(os.listdir(home)) == ["new", "notes.txt", "old"]
    assert (target / "thesis.txt").read_text() == "mine"


def test_parents_are_created(tmp_path: Path) -> None:
    with writing(tmp_path / "a/b/c", force=False) as work:
        fill(work)
    read_bundle(tmp_path / "a/b/c")


def test_the_current_folder_may_be_named_with_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with writing(Path("x/../../b"), force=False) as work:
        fill(work)
    read_bundle(tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


# --- failing -----------------------------------------------------------------------------------

FAILURES = [RuntimeError("x"), KeyboardInterrupt(), SystemExit(1), OSError(errno.ENOSPC, "full")]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
@pytest.mark.parametrize("target", ["old", "new", "deep/er/new"])
def test_an_exception_leaves_everything_as_it_was(home: Path, target: str, error: BaseException) -> None:
    before = tree(home)
    wanted = OutputError if isinstance(error, OSError) else type(error)

    def work_and_fail() -> None:
        with writing(home / target, force=True) as work:
            fill(work)
            raise error

    with pytest.raises(wanted):
        work_and_fail()
    assert tree(home) == before


def test_a_parent_that_somebody_else_began_to_use_stays(tmp_path: Path) -> None:
    def work_and_fail() -> None:
        with writing(tmp_path / "a/b/out", force=False):
            (tmp_path / "a/theirs").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_and_fail()
    assert tree(tmp_path).keys() == {"a", "a/theirs"}


@pytest.mark.parametrize("failing", ["place", "work"])
def test_a_failed_swap_restores_the_old_bundle(home: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    before = tree(home)
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        if (self.suffix == ".part") == (failing == "work") and "old" not in self.parts[-2]:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(OutputError, match="old cannot be written: Input/output error"),
        writing(home / "old", force=True) as work,
    ):
        fill(work)
    assert tree(home) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cannot_halve_the_swap_or_the_cleaning(
    home: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A second Ctrl-C while the first one is cleaned up, or one between the two renames."""

    def interrupting(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            signal.raise_signal(number)
            return function(*args, **kwargs)

        return run

    monkeypatch.setattr(shutil, "rmtree", interrupting(shutil.rmtree))
    monkeypatch.setattr(Path, "rename", interrupting(Path.rename))
    before = tree(home)
    handler = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(RuntimeError), writing(home / "old", force=True):
            raise RuntimeError
        assert tree(home) == before
        with writing(home / "old", force=True) as work:
            fill(work)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, handler)
    assert tree(home) == before


def test_a_thread_may_write_too(tmp_path: Path) -> None:
    def write() -> None:
        with writing(tmp_path / "out", force=False) as work:
            fill(work)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    read_bundle(tmp_path / "out")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("notes.txt/out", r"notes\.txt is not a folder you may write to"),
        ("notes.txt/a/b/out", r"notes\.txt is not a folder you may write to"),
        ("/proc/out", "/proc/out cannot be written: No such file or directory; choose another folder"),
        ("/proc/a/b/out", "/proc/a/b/out cannot be written"),
        ("n" * 300, "cannot be written: File name too long"),
        ("n" * 250, "cannot be written: File name too long"),  # long enough for its hidden sibling to be refused
        ("loop/out", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written(home: Path, target: str, message: str) -> None:
    (home / "loop").symlink_to("loop")
    before = tree(home)
    with pytest.raises(OutputError, match=message), writing(home / target, force=False):
        pytest.fail("not reached")
    assert tree(home) == before


def test_an_unwritable_parent_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no mode stops: the answer of the system is replaced."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=f"out cannot be written: {tmp_path} is not a folder you may write to"):
        check_target(tmp_path / "out", force=False)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "out was not written: the disk is full; free some space and run again"),
        (errno.EDQUOT, "out was not written: your disk quota is used up"),
        (errno.EFBIG, "out was not written: a file would exceed the size limit"),
        (errno.EACCES, "out cannot be written: Permission denied; choose another folder"),
        (errno.EROFS, "out cannot be written: Read-only file system"),
    ],
)
def test_what_the_file_system_says_is_one_sentence(tmp_path: Path, code: int, message: str) -> None:
    with pytest.raises(OutputError, match=message), writing(tmp_path / "out", force=False):
        raise OSError(code, os.strerror(code))
    assert not any(tmp_path.iterdir())


def test_a_fault_of_our_own_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing(tmp_path / "out", force=False) as work:
        (work / "never written").read_bytes()


def test_a_limit_on_file_sizes_is_told(home: Path) -> None:
    """A real refusal of the kernel in the middle of a write (RLIMIT_FSIZE), as a quota or a full disk gives."""
    before = tree(home)
    code = """
        import sys, pathlib
        from vivit_export.bundle import writing
        from vivit_export.errors import OutputError
        try:
            with writing(pathlib.Path(sys.argv[1]), force=True) as work:
                (work / "model.onnx").write_bytes(bytes(1 << 20))
        except OutputError as e:
            sys.exit(str(e))
    """
    limit = 64 << 10
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), home / "old"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.strip().endswith(
        "old was not written: a file would exceed the size limit (ulimit -f); raise it and run again"
    )
    assert tree(home) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_runs_full(small_disk: Path) -> None:
    with writing(small_disk / "old", force=False) as work:
        fill(work)
    before = tree(small_disk)

    def work() -> None:
        with writing(small_disk / "old", force=True) as folder:
            fill(folder)
            (folder / "golden.safetensors").write_bytes(bytes(1 << 20))

    with pytest.raises(OutputError, match="the disk is full"):
        work()
    assert tree(small_disk) == before
    read_bundle(small_disk / "old")
