"""A bundle that is damaged is refused as in Python."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Bundles, move_weights_out, random_crops
from cpp_project import Cpp, flip_a_byte
from linked_bundles import LAYOUTS, link
from made_records import engine_record

from vivit_export.bundle import MODEL, MODEL_DATA, read_bundle
from vivit_export.errors import VivitExportError
from vivit_export.records import to_json
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

pytestmark = pytest.mark.needs_onnxruntime


Damage = Callable[[Path, dict[str, Any]], None]


def edit(*path: str | int, value: Any) -> Damage:
    """Change one value of the manifest."""

    def damage(_folder: Path, manifest: dict[str, Any]) -> None:
        *parents, last = path
        place: Any = manifest
        for key in parents:
            place = place[key]
        place[last] = value

    return damage


def drop(*path: str) -> Damage:
    """Remove one value of the manifest."""

    def damage(_folder: Path, manifest: dict[str, Any]) -> None:
        *parents, last = path
        for key in parents:
            manifest = manifest[key]
        del manifest[last]

    return damage


def cut(folder: Path, _manifest: dict[str, Any]) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1])


def lose(folder: Path, _manifest: dict[str, Any]) -> None:
    (folder / "model.onnx").unlink()


def put(make: Callable[[Path], object]) -> Damage:
    """Put something else in the place of the model."""

    def damage(folder: Path, _manifest: dict[str, Any]) -> None:
        (folder / "model.onnx").unlink()
        make(folder / "model.onnx")

    return damage


ENTRY = {"sha256": "0" * 64, "size": 1}
CLIP = {"num_frames": 8, "height": 64, "width": 64, "tubelet_size": [2, 8, 8]}
ENGINE = to_json(engine_record()) | {"profiles": [{"min": 1, "opt": 2, "max": 1025}]}
PROFILE = {"min": 1, "opt": 2, "max": 4}
DAMAGES: dict[str, Damage] = {
    "a flipped byte": flip_a_byte,
    "a cut file": cut,
    "a lost file": lose,
    "a link to nothing": put(lambda path: path.symlink_to("nothing")),
    "a link to a device": put(lambda path: path.symlink_to("/dev/zero")),
    "a pipe": put(os.mkfifo),
    "a folder": put(Path.mkdir),
    "another format": edit("format", value="vivit-bundle/3"),
    "a format of another type": edit("format", value=1),
    "no contract": drop("contract"),
    "no labels": drop("contract", "labels"),
    "a model that is not listed": drop("files", "model.onnx"),
    "an engine that is not listed": edit("engines", "x", value={}),
    "a manifest that lists itself": edit("files", "bundle.json", value=ENTRY),
    "a signature that is listed": edit("files", "model.sig", value=ENTRY),
    "a path above": edit("files", "../x", value=ENTRY),
    "an absolute path": edit("files", "/etc/passwd", value=ENTRY),
    "a backslash": edit("files", "a\\b", value=ENTRY),
    "a size that is none": edit("files", "model.onnx", "size", value="1"),
    "an entry that is none": edit("files", "model.onnx", value=[]),
    "labels that do not match the head": edit("contract", "labels", value=["a", "b"]),
    "an unknown field": edit("contract", "clip", "frames", value=3),
    "a field that is missing": drop("contract", "clip", "height"),
    "a number that is a string": edit("contract", "clip", "height", value="64"),
    "a number that is a boolean": edit("contract", "clip", "stride", value=True),
    "an unknown rule": edit("contract", "clip", "sampling", value="random"),
    "a list that is too long": edit("contract", "clip", "views", value=[1, 2, 3]),
    "a list of something else": edit("contract", "clip", "views", value=[1, "a"]),
    "a size that is an object": edit("contract", "preprocess", "size", value={"height": 3}),
    "a stride of another rule": edit("contract", "clip", "stride", value=2),
    "views of another rule": edit("contract", "clip", "views", value=[4, 3]),
    "two views": edit("contract", "clip", "views", value=[1, 2]),
    "a clip that the tubelet does not divide": edit("contract", "clip", "num_frames", value=7),
    "a filter that is none": edit("contract", "preprocess", "resample", value=6),
    "a size of zero": edit("contract", "preprocess", "shortest_edge", value=0),
    "two sizes": edit("contract", "preprocess", "size", value=[64, 64]),
    "a deviation of zero": edit("contract", "preprocess", "std", value=[0.5, 0, 0.5]),
    "an offset without a scale": edit("contract", "preprocess", "do_rescale", value=False),
    "a crop of another size": edit("contract", "preprocess", "crop_size", value=[32, 64]),
    "two inputs": edit("contract", "io", "inputs", value=[]),
    "a clip of too many frames": edit("contract", "clip", "num_frames", value=100_000),
    "a stride beyond any video": edit("contract", "clip", value=CLIP | {"sampling": "stride", "stride": 65537}),
    "too many views": edit(
        "contract", "clip", value=CLIP | {"sampling": "stride", "stride": 2, "views": [1_000_000, 3]}
    ),
    "a resize that fills memory": edit("contract", "preprocess", "shortest_edge", value=1_000_000),
    "a deviation close to zero": edit("contract", "preprocess", "std", value=[0.5, 1e-9, 0.5]),
    "an input of another type": edit("contract", "io", "inputs", 0, "dtype", value="int64"),
    "an input of another shape": edit("contract", "io", "inputs", 0, "shape", 2, value=63),
    "an input without a batch": edit("contract", "io", "inputs", 0, "shape", 0, value=1),
    "an input without a shape": edit("contract", "io", "inputs", 0, "shape", value=[]),
    "another mode": edit("contract", "io", "mode", value="pixels"),
    "an input whose name is a path": edit("contract", "io", "inputs", 0, "name", value="../../x"),
    "no output": edit("contract", "io", "outputs", value=[]),
    "an output of another name": edit("contract", "io", "outputs", 0, "name", value="tokens"),
    "an output of another type": edit("contract", "io", "outputs", 1, "dtype", value="float64"),
    "an output that is too wide": edit("contract", "io", "outputs", 1, "shape", 1, value=100_000),
    "the same output twice": edit("contract", "io", "outputs", 1, "name", value="logits"),
    "a label as long as a book": edit("contract", "labels", 0, value="ñ" * 1001),
    "an unknown field of a long name": edit("contract", "é" * 100, value=1),
    "a size beyond 63 bits": edit("files", "model.onnx", "size", value=2**63 - 1),
    "a batch that fills memory": edit("engines", "x", value=ENGINE),
    "an escape in a value": edit("contract", "clip", "sampling", value="\x1b[31m\n\x7f\x85\u2028'"),
    "inputs that are none": edit("contract", "io", "inputs", value=None),
    "a GPU of the far future": edit("engines", "x", value=ENGINE | {"profiles": [PROFILE], "sms": [90, 2**62]}),
    "no tokens": drop("model", "anatomy", "tokens"),
    "tokens that are a string": edit("model", "anatomy", "tokens", value="257"),
    "tokens that are none": edit("model", "anatomy", "tokens", value=0),
    "an anatomy that is none": edit("model", "anatomy", value=[]),
    "an unknown part of the anatomy": edit("model", "anatomy", "tail", value=1),
    "a frame size of another mode": edit("contract", "io", "frame_size", value=[10, 20]),
}


def test_a_damaged_bundle_is_refused_with_pythons_own_sentence(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    folders = [bundles.copy(tmp_path / str(i)) for i in range(len(DAMAGES))]
    for folder, damage in zip(folders, DAMAGES.values(), strict=True):
        manifest = json.loads((folder / "bundle.json").read_text())
        damage(folder, manifest)
        (folder / "bundle.json").write_text(json.dumps(manifest))
    folders += [tmp_path / "nowhere", tmp_path]
    answers = cpp.ask([{"do": "bundle", "bundle": str(folder)} for folder in folders], "avx2")
    for name, folder, answer in zip([*DAMAGES, "nowhere", "no bundle"], folders, answers, strict=True):
        with pytest.raises(VivitExportError) as e:
            read_bundle(folder)
        assert answer == {"error": str(e.value), "code": e.value.exit_code}, name


def test_a_manifest_that_is_no_json_is_refused(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    texts = (
        "{",
        '{"a": "\xff"}',
        '["\\ud800"]',
        "[" * 100_000,
        "[" * 65 + "]" * 65,
        "[1e999]",
        '{"a": 1, "a": 2}',
        '{"a": 9223372036854775808}',
        '{"a": "1", "b": [-100000000000000000000]}',
        "[" + "[]," * 200_000 + "[]]",
        "\xef\xbb\xbf{}",
        "[]",
    )
    for i, text in enumerate(texts):
        folder = bundles.copy(tmp_path / str(i))
        (folder / "bundle.json").write_bytes(text.encode("latin-1"))
    requests = [{"do": "bundle", "bundle": str(tmp_path / str(i))} for i in range(len(texts))]
    answers = cpp.ask(requests, "avx2")
    for i, answer in enumerate(answers[:-1]):
        assert "bundle.json cannot be read as JSON (" in answer["error"], texts[i]
        with pytest.raises(VivitExportError, match=r"bundle\.json cannot be read as JSON \("):
            read_bundle(tmp_path / str(i))
    assert "has format None; this version reads 'vivit-bundle/2' and 'vivit-bundle/1'" in answers[-1]["error"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bundle_whose_files_are_links_is_read(cpp: Cpp, tmp_path: Path, layout: str) -> None:
    folder = link(cpp.bundle, tmp_path, layout)
    assert cpp.ask([{"do": "open", "bundle": str(folder)}]) == [{"engine": "onnxruntime-cpu"}]


def test_weights_in_a_file_are_those_that_were_verified(cpp: Cpp, bundles: Bundles, tmp_path: Path) -> None:
    bundle = move_weights_out(bundles.copy(tmp_path / "large"))
    clips = random_crops(bundle, 2)
    clips.tofile(tmp_path / "clips")
    (answer,) = cpp.ask([{"do": "infer", "bundle": str(bundle.path), "clips": str(tmp_path / "clips")}], "avx2")
    # A bundle that was not deployed has no graph for the CPU: the portable one runs, here with its weights inside.
    expected = OnnxRuntimeSession(bundles.demo().model).run(clips)["logits"]
    np.testing.assert_allclose(np.reshape(answer["logits"], (2, -1)), expected, rtol=0, atol=1e-6)
    for name in (MODEL_DATA, MODEL):
        (answer,) = cpp.ask([{"do": "open", "bundle": str(bundle.path), "flip": name}])
        message = f"{bundle.path / name} is not the file that bundle.json describes: it was altered or cut short"
        assert answer == {"error": message, "code": 3}
        content = bytearray((bundle.path / name).read_bytes())
        content[0] ^= 1
        (bundle.path / name).write_bytes(content)
