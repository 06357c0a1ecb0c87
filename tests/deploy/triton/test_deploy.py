"""What a deployment holds: the engine, its labels, every file listed; and what is refused leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Bundles, random_crops
from made_bundle import LABELS, contract, make_bundle
from made_records import engine_record
from tiny_graph import tiny_graph
from triton_repository import deploy, read_config

from vivit_export.bundle.engines import Profile
from vivit_export.bundle.manifest import FileRecord
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.deploy.wheel import wheel_name
from vivit_export.errors import BundleError, InputError, UsageError
from vivit_export.files import sha256_of
from vivit_export.flavour import Flavour
from vivit_export.runtime.predict import adapt_contract
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", {"tensorrt": engine_record()})
    trees = [deploy_triton(bundle, tmp_path / name).files for name in ("a", "b")]
    assert trees[0] == trees[1]


def test_every_file_is_there_and_listed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", {"hopper": engine_record(), "ada": engine_record(sms=(89,))})
    done = deploy_triton(bundle, tmp_path / "r", TritonOptions(name="m"))
    assert done.kind == "triton"
    assert set(done.files) == {
        *("m/README.md", "m/1/model_sm89.plan", "m/1/model_sm90.plan", "m/config.pbtxt", "m/labels.txt"),
        *("m/warmup/frames", "m/check.json", "m/check.py", f"m/{wheel_name()}"),
    }
    for name, entry in done.files.items():
        assert entry == FileRecord(sha256_of(done.path / name), (done.path / name).stat().st_size)
    assert (done.path / "m/1/model_sm89.plan").read_bytes() == b"plan ada"
    assert (done.path / "m/labels.txt").read_text(encoding="utf-8").splitlines() == list(LABELS)


@pytest.mark.field_case("modelmesh 221")
def test_the_graph_goes_with_its_weights(tmp_path: Path) -> None:
    model = deploy(make_bundle(tmp_path / "bundle"), tmp_path / "r")
    assert (model / "1/model.onnx").read_bytes() == tiny_graph(contract())
    assert (model / "1/model.onnx.data").read_bytes() == b"weights"


@pytest.mark.needs_onnxruntime
@pytest.mark.parametrize("attention", ["fused-op", "pattern"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "bf16"])
def test_onnxruntime_gets_fused_attention_where_every_server_has_it(
    bundles: Bundles, tmp_path: Path, precision: str, attention: str
) -> None:
    quantized = {"calibration": CalibrationOptions(num_clips=32)} if precision == "int8" else {}
    bundle = bundles.demo(precision=precision, attention=attention, **quantized)
    own = bundle.manifest.precision.opset
    model = deploy(bundle, tmp_path / "r", name="m")
    deployed, engine = model / "1/model.onnx", read_config(model).parameters["vivit_engine"].string_value
    if precision == "bf16":
        assert deployed.read_bytes() == bundle.model.read_bytes() and engine == f"ONNX Runtime, opset {own}, bf16"
        return
    assert engine == f"ONNX Runtime, opset {min(own, 22)}, 3 fused attention layers, {precision}"
    assert f"(opset {min(own, 22)})" in (model / "README.md").read_text()
    clips = random_crops(bundle, 2)
    pattern = bundles.demo(precision=precision, attention="pattern", **quantized).model  # which any version loads
    with_it, without = (OnnxRuntimeSession(graph).run(clips) for graph in (deployed, pattern))
    for name, values in without.items():
        np.testing.assert_allclose(with_it[name], values, rtol=0, atol=1e-5 if precision == "fp32" else 2e-2)
    if precision == "fp16":
        other = deploy(bundle, tmp_path / "r", name="o", backend="onnxruntime-tensorrt")
        assert (other / "1/model.onnx").read_bytes() == bundle.model.read_bytes()


def test_other_labels_reach_server_and_client(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\n")
    bundle = make_bundle(tmp_path / "bundle")
    model = deploy(bundle, tmp_path / "r", contract=adapt_contract(bundle.contract, labels=names))
    assert (model / "labels.txt").read_text() == "one\ntwo\nthree\n"
    assert json.loads(read_config(model).parameters["vivit_contract"].string_value)["labels"] == ["one", "two", "three"]


RTX = {"rtx": engine_record(flavour=Flavour.TENSORRT_RTX, version="1.7.1.116")}


@pytest.mark.parametrize(
    ("engines", "options", "error", "said"),
    [
        ({}, {"backend": "tensorrt"}, BundleError, "has no full TensorRT engine for Triton; add one with: vivit build"),
        (RTX, {"backend": "tensorrt"}, BundleError, r"for Triton \(that back end cannot load its rtx\)"),
        ({"a": engine_record(profiles=(Profile(2, 2, 4),))}, {}, BundleError, "a takes batches of 2 or more"),
        (
            {"a": engine_record(), "b": engine_record(version="10.13.0")},
            {},
            BundleError,
            "TensorRT 10.13.0 and 11.4.0.106",
        ),
        ({}, {"backend": "openvino"}, UsageError, "backend=openvino is unknown"),
        ({}, {"name": "a/b"}, UsageError, "'a/b' is not a model name"),
        ({}, {"instances": 0}, UsageError, "instances=0 must be 1 or more"),
        ({}, {"delay_us": -1}, UsageError, "delay_us=-1 must be 0 or more"),
    ],
)
def test_refusals_leave_nothing(
    tmp_path: Path, engines: dict[str, Any], options: dict[str, Any], error: type[Exception], said: str
) -> None:
    bundle = make_bundle(tmp_path / "bundle", engines)
    with pytest.raises(error, match=said):
        deploy(bundle, tmp_path / "r", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_label_of_two_lines_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle.path / "bundle.json"
    path.write_text(path.read_text().replace("abseiling", "ab\\nseiling"))
    with pytest.raises(InputError, match=r"label 'ab\\nseiling' cannot be one line of labels.txt"):
        deploy(bundle, tmp_path / "r")


def test_a_damaged_bundle_and_labels_that_do_not_match_the_head_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    manifest = bundle.path / "bundle.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"abseiling",', ""))
    with pytest.raises(BundleError, match="2 labels for 3 logits"):
        deploy(bundle, tmp_path / "r")
    manifest.write_text(whole)
    (bundle.path / "model.onnx").write_bytes(b"grape")
    with pytest.raises(BundleError, match=r"model\.onnx is not the file that bundle.json describes"):
        deploy(bundle, tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
