"""Weights in a file beside the graph: an engine computes with the bytes that were verified, whatever the file holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import Bundles, move_weights_out, need, random_crops

import vivit_export as ve
from vivit_export.bundle import GOLDEN, MODEL, MODEL_DATA, Bundle, read_bundle, write_manifest
from vivit_export.errors import BundleError
from vivit_export.runtime.drift.check import golden_clips
from vivit_export.runtime.session.external_weights import load_graph, read_external_weights

ENGINES = ["onnxruntime-cpu", "openvino"]
PRECISIONS = ["fp32", "fp16", "bf16", "int8"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    need(request.param.removesuffix("-cpu"))
    return str(request.param)


@pytest.fixture
def large(bundles: Bundles, tmp_path: Path) -> Bundle:
    return move_weights_out(bundles.copy(tmp_path / "large"))


def logits(bundle: Bundle, engine: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    with ve.open_session(bundle, prefer=engine) as session:
        return session.infer(random_crops(bundle, 2))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_outside_give_the_bits_of_weights_inside(
    bundles: Bundles, tmp_path: Path, engine: str, precision: str
) -> None:
    plain = bundles.demo(precision=precision)
    large = move_weights_out(bundles.copy(tmp_path / "large", precision=precision))
    assert large.manifest.files[MODEL_DATA].size > 5 * large.manifest.files[MODEL].size
    np.testing.assert_array_equal(logits(large, engine), logits(plain, engine))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnxruntime_1_23_computes_with_our_memory(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    need("onnxruntime")
    from onnxruntime import SessionOptions

    large = move_weights_out(bundles.copy(tmp_path / "large", precision=precision))
    expected = logits(bundles.demo(precision=precision), ENGINES[0])
    monkeypatch.delattr(SessionOptions, "add_external_initializers_from_files_in_memory", raising=False)
    np.testing.assert_array_equal(logits(large, ENGINES[0]), expected)


@pytest.mark.parametrize("name", [MODEL, MODEL_DATA])
def test_a_file_that_is_replaced_after_it_was_verified_is_refused(large: Bundle, engine: str, name: str) -> None:
    content = bytearray((large.path / name).read_bytes())
    content[-1] ^= 1
    (large.path / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is not the file that bundle.json describes"):
        ve.open_session(large, prefer=engine)


# Every reading of a file while a bundle is opened: the graph is read to be judged, and again to be run.
READINGS = [MODEL, MODEL, MODEL_DATA]


@pytest.mark.parametrize("at", range(len(READINGS)))
def test_a_file_that_is_overwritten_while_it_is_opened_does_not_run(
    large: Bundle, engine: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    expected = logits(large, engine)
    read, names = Bundle.read, list[str]()

    def read_and_overwrite(bundle: Bundle, name: str) -> bytes:
        content = read(bundle, name)
        if len(names) == at:
            with (bundle.path / name).open("r+b") as file:  # in place: also whoever mapped the file would see it
                file.write(bytes(len(content)))
        names.append(name)
        return content

    monkeypatch.setattr(Bundle, "read", read_and_overwrite)
    if READINGS[at] in READINGS[at + 1 :]:
        with pytest.raises(BundleError, match=f"{READINGS[at]} is not the file that bundle.json describes"):
            logits(large, engine)
        assert names == READINGS[: at + 1]
    else:
        np.testing.assert_array_equal(logits(large, engine), expected)
        assert names == READINGS


def test_golden_clips_that_were_replaced_are_refused(bundles: Bundles, tmp_path: Path) -> None:
    folder = bundles.copy(tmp_path / "checked", check=True)
    bundle = read_bundle(folder)
    assert len(golden_clips(bundle)[0])
    (folder / GOLDEN).write_bytes((folder / GOLDEN).read_bytes()[:-1] + b"\1")
    with pytest.raises(BundleError, match=f"{GOLDEN} is not the file that bundle.json describes"):
        golden_clips(bundle)


@pytest.mark.parametrize(("key", "value"), [("offset", "99999999999"), ("offset", "-1"), ("length", "7")])
def test_a_weight_outside_of_its_file_is_refused(large: Bundle, key: str, value: str) -> None:
    model = load_graph(large)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    next(entry for entry in tensor.external_data if entry.key == key).value = value
    with pytest.raises(BundleError, match=rf"places {tensor.name} where {MODEL_DATA} does not hold it; export"):
        read_external_weights(large.read, model)


def test_weights_in_a_file_that_is_not_listed_are_refused(large: Bundle) -> None:
    model = onnx.load(large.model, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../x" if entry.key == "location" else entry.value
    large.model.write_bytes(model.SerializeToString())
    write_manifest(large.path, large.manifest.content)
    found = read_bundle(large.path)
    with pytest.raises(BundleError, match=rf"keeps the weight '.*' in '\.\./x', not in {MODEL_DATA}, which no export"):
        ve.open_session(found, prefer="onnxruntime-cpu")
    with pytest.raises(BundleError, match=r"bundle\.json does not list \.\./x, so it is not used"):
        read_external_weights(found.read, load_graph(found))
