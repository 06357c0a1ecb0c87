"""Values of a manifest changed to something hostile, with all hashes right: our error or a sound result, at once."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attacked import BYTES, SECONDS, edit, make, within_limits
from console import console, tree

from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.manifest import Manifest
from vivit_export.cli.show import show_text
from vivit_export.deploy.cpp.deploy import deploy_cpp
from vivit_export.deploy.triton.config import choose_engine, engine_config
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.deploy.triton.front_config import front_models
from vivit_export.deploy.triton.pbtxt import render
from vivit_export.errors import BundleError, VivitExportError
from vivit_export.files import json_text
from vivit_export.records import to_json
from vivit_export.report.html import render_html
from vivit_export.report.text import contents_text, drift_text, summary_json, summary_text
from vivit_export.runtime.drift.check import gate_of, golden_clips, tuned_batches
from vivit_export.runtime.select import open_session

Place = tuple[str | int, ...]
SECTIONS = ("producer", "model", "contract", "precision", "engines", "checks", "bench", "cpu_graph", "cuda_graph")


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


HOSTILE: dict[str, Any] = {
    "null": None,
    "true": True,
    "-1": -1,
    "0": 0,
    "3": 3,
    "2^31": 2**31,
    "2^62": 2**62,
    "10^400": 10**400,
    "1e308": 1e308,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "text": "x",
    "no text": "",
    "half a pair": "\ud800",
    "an escape": "\x1b[31m\n\x00",
    "long text": "x" * 100_000,
    "no list": [],
    "no object": {},
    "a list of a list": [[]],
    "an object": {"a": 1},
    "1,000 values": list(range(1000)),
    "200 levels": deep(200),
}


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    if at:
        yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in children:
        yield from places(inner, (*at, key))


def changed(manifest: dict[str, Any], at: Place, value: Any) -> dict[str, Any]:
    """A copy with one value replaced, or removed if it is an ellipsis."""
    made: Any = copy.deepcopy(manifest)
    place = made
    for key in at[:-1]:
        place = place[key]
    if value is ...:
        del place[at[-1]]
    else:
        place[at[-1]] = value
    assert isinstance(made, dict)
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("attacked") / "bundle")


def use(found: Bundle) -> None:
    """Do everything with a bundle that is done before the first clip, except to copy it."""
    show_text("\n".join([summary_text(found), *contents_text(found)]))
    if found.manifest.checks:
        show_text(drift_text(found.manifest.checks))
    render_html(found.manifest).encode("utf-8")
    json_text(summary_json(found, None)).encode("utf-8")
    json_text(to_json(found.manifest)).encode("utf-8")
    engine = choose_engine(found)
    render(engine_config("m", found, found.contract, engine, delay_us=1, instances=None)).encode("utf-8")
    for model in front_models("m", found, found.contract, engine):
        render(model.config).encode("utf-8")
    gate_of(found)
    tuned_batches(found)
    golden_clips(found)


@pytest.mark.parametrize("name", [*HOSTILE, "removed"])
def test_no_value_of_the_manifest_gives_a_traceback(
    bundle: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    value = ... if name == "removed" else HOSTILE[name]
    copied = bundle.parent / name.replace("/", "-")
    shutil.copytree(bundle, copied)
    before = {path: data for path, data in tree(copied).items() if path != "bundle.json"}
    count = 0
    chosen = list(places({section: manifest[section] for section in SECTIONS if section in manifest}))
    with within_limits(seconds=None):
        for at in chosen[[*HOSTILE, "removed"].index(name) % 4 :: 4]:
            (copied / "bundle.json").write_text(json.dumps(changed(manifest, at, value)), encoding="utf-8")
            count += 1
            try:
                use(read_bundle(copied, verify=False))
            except VivitExportError as e:
                assert e.exit_code in (2, 3), (at, e)  # noqa: PT017
    assert count > 60
    assert {path: data for path, data in tree(copied).items() if path != "bundle.json"} == before
    assert "\x1b" not in capsys.readouterr().out


WHOLE: dict[str, tuple[Place, Any]] = {
    "10^8 frames": (("contract", "clip", "num_frames"), 10**8),
    "a crop of 32768": (("contract", "preprocess", "crop_size"), [32768, 32768]),
    "a resize to 10^6": (("contract", "preprocess", "shortest_edge"), 10**6),
    "10^6 views": (("contract", "clip", "views"), [10**6, 3]),
    "10^6 labels": (("contract", "labels"), ["x"] * 10**6),
    "300,000 outputs": (
        ("contract", "io", "outputs"),
        [{"name": str(i), "dtype": "float32", "shape": ["b", 1]} for i in range(100_000)],
    ),
    "a batch of 10^9": (("engines", "rtx", "profiles"), [{"min": 1, "opt": 2, "max": 10**9}]),
    "no profile": (("engines", "rtx", "profiles"), []),
    "an empty engine": (("engines", "rtx"), {}),
    "a label too many": (("contract", "labels"), ["x"] * 6),
    "a file outside": (("files", "../secret"), {"sha256": "0" * 64, "size": 1}),
    "a file of no name": (("files", ""), {"sha256": "0" * 64, "size": 1}),
    "a file with a NUL": (("files", "a\0b"), {"sha256": "0" * 64, "size": 1}),
    "a device": (("files", "/dev/zero"), {"sha256": "0" * 64, "size": 0}),
    "a name of 10^5 characters": (("files", "x" * 100_000), {"sha256": "0" * 64, "size": 1}),
}


@pytest.mark.parametrize("attack", WHOLE)
@pytest.mark.parametrize("reader", ["open_session", "deploy_cpp", "deploy_triton"])
def test_every_reader_refuses_what_is_beyond_the_limits(bundle: Path, tmp_path: Path, attack: str, reader: str) -> None:
    at, value = WHOLE[attack]
    copied = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    edit(copied, lambda manifest: (copied / "x").write_text(json.dumps(changed(manifest, at, value))))
    (copied / "x").replace(copied / "bundle.json")
    before = tree(tmp_path)
    readers: dict[str, Callable[[], object]] = {
        "open_session": lambda: open_session(copied, device="cpu"),
        "deploy_cpp": lambda: deploy_cpp(copied, tmp_path / "app"),
        "deploy_triton": lambda: deploy_triton(copied, tmp_path / "repository", TritonOptions(ensemble=True)),
    }
    with within_limits(), pytest.raises(VivitExportError) as refused:
        readers[reader]()
    assert refused.value.exit_code == 3
    assert len(str(refused.value)) < 200_000
    assert tree(tmp_path) == before


TEXTS = {
    "no JSON": "{",
    "a list": "[]",
    "100,000 levels": "[" * 100_000,
    "duplicate keys": '{"format": "vivit-bundle/2", "format": "vivit-bundle/1"}',
    "a million lists": "[" + "[]," * 1_000_000 + "[]]",
    "a number of 10^6 digits": '{"format": ' + "1" * 1_000_000 + "}",
    "UTF-16": "\ufeff{}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_is_no_manifest_is_refused(bundle: Path, tmp_path: Path, text: str) -> None:
    copied = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (copied / "bundle.json").write_text(text, encoding="utf-8")
    with within_limits(seconds=5 * SECONDS), pytest.raises(VivitExportError, match=r"bundle\.json"):
        read_bundle(copied)


@pytest.mark.parametrize("command", ["inspect", "check"])
def test_the_command_says_it_in_one_sentence(bundle: Path, tmp_path: Path, command: str) -> None:
    """In a process of its own, with the limit of memory set by the system."""
    copied = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    edit(copied, lambda manifest: manifest["contract"].update(labels=["\x1b[2J\ud800"]))
    done = console("vivit", command, copied, "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_the_whole_bundle_is_sound(bundle: Path) -> None:
    found = read_bundle(bundle)
    assert isinstance(found.manifest, Manifest) and BYTES and found.engines
    use(found)


@pytest.mark.parametrize(
    ("name", "value"), [("top1", -0.5), ("top1", 1.0000001), ("top5", 2), ("agreement", -1e-9), ("top1", 1e308)]
)
def test_a_share_of_more_than_all_is_refused(bundle: Path, tmp_path: Path, name: str, value: float) -> None:
    copied = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    edit(copied, lambda manifest: manifest["checks"]["runs"][0]["drift"].update({name: value}))
    with pytest.raises(VivitExportError, match=f"drift {name}=.* must be a share from 0 to 1"):
        read_bundle(copied)


@pytest.mark.parametrize("limit", [-1.0, 0.0, 1e-200, 5e-324, 1.0, 2.0, 1e308])
def test_no_limit_of_a_gate_gives_a_traceback(bundle: Path, tmp_path: Path, limit: float) -> None:
    copied = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    for share in (0.0, 2e-200, 1.0):
        edit(copied, lambda manifest, s=share: manifest["checks"]["runs"][0]["drift"].update(top1=s))  # type: ignore[misc]
        edit(copied, lambda manifest: manifest["checks"]["gate"].update(top1=limit))
        if limit <= 1:
            use(read_bundle(copied))
            continue
        with pytest.raises(BundleError, match="no model could pass the gate's top1="):
            read_bundle(copied)
