"""``config.pbtxt``: byte for byte, derived from the bundle, and what protobuf reads in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundle import contract, make_bundle
from made_records import engine_record
from triton_repository import deploy, read_config

from vivit_export.bundle import write_manifest
from vivit_export.bundle.bench import BenchRecord, ContenderRecord, Figures, Machine
from vivit_export.bundle.engines import EngineRecord, Profile
from vivit_export.contract import Contract, Tensor
from vivit_export.errors import BundleError
from vivit_export.flavour import Flavour
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor

DATA = Path(__file__).with_name("data")


@pytest.mark.parametrize(
    ("golden", "engines", "options"),
    [
        ("onnxruntime", {}, {}),
        ("onnxruntime_tensorrt", {}, {"backend": "onnxruntime-tensorrt"}),
        ("tensorrt", {"tensorrt": engine_record()}, {"instances": 2, "delay_us": 500}),
        ("tensorrt_two_gpus", {"hopper": engine_record(), "ada": engine_record(sms=(89,))}, {"name": "vivit"}),
    ],
)
def test_the_configuration_is_this_byte_for_byte(
    tmp_path: Path, golden: str, engines: dict[str, EngineRecord], options: dict[str, Any]
) -> None:
    model = deploy(make_bundle(tmp_path / "bundle", engines), tmp_path / "repository", **options)
    assert (model / "config.pbtxt").read_bytes() == (DATA / f"{golden}.pbtxt").read_bytes()
    read = read_config(model)
    assert read.name == model.name
    assert Contract.from_json(json.loads(read.parameters["vivit_contract"].string_value)) == contract()


def test_warm_up_runs_a_real_clip_at_the_sizes_of_the_profile(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", {"tensorrt": engine_record(profiles=(Profile(1, 2, 6),))})
    model = deploy(bundle, tmp_path / "r")
    read = read_config(model)
    assert read.max_batch_size == 6
    assert [sample.batch_size for sample in read.model_warmup] == [1, 2, 6]
    assert [spec.batch_size for spec in read.optimization.cuda.graph_spec] == [1, 2, 6]
    clip = np.fromfile(model / "warmup/frames", np.uint8)
    assert clip.size == 32 * 224 * 224 * 3
    assert (clip[:300] == np.arange(300, dtype=np.uint64).astype(np.uint8)).all()


def test_a_bundle_that_was_not_checked_warms_up_with_random_data(tmp_path: Path) -> None:
    model = deploy(make_bundle(tmp_path / "bundle", batches=(), golden=False), tmp_path / "r")
    read = read_config(model)
    assert [sample.batch_size for sample in read.model_warmup] == [1, 8]
    assert all(sample.inputs["frames"].random_data for sample in read.model_warmup)
    assert not (model / "warmup").exists()


def test_pixels_are_warmed_up_as_pixels(tmp_path: Path) -> None:
    source = Tensor("pixel_values", "float32", ("batch", 32, 3, 224, 224))
    bundle = make_bundle(tmp_path / "bundle", mode="pixels", inputs=(source,))
    model = deploy(bundle, tmp_path / "r")
    (read,) = read_config(model).input
    assert read.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[read.data_type].name == "TYPE_FP32"
    assert list(read.dims) == [32, 3, 224, 224]
    pixels = np.fromfile(model / "warmup/pixel_values", np.float32).reshape(1, 32, 3, 224, 224)
    crops = np.arange(32 * 224 * 224 * 3, dtype=np.uint64).astype(np.uint8).reshape(1, 32, 224, 224, 3)
    np.testing.assert_array_equal(
        pixels, Preprocessor(bundle.contract.clip, bundle.contract.preprocess).to_pixels(crops)
    )


def test_several_engines_share_the_batches_that_all_of_them_take(tmp_path: Path) -> None:
    small = engine_record(sms=(89,), profiles=(Profile(1, 2, 4),))
    model = deploy(make_bundle(tmp_path / "bundle", {"hopper": engine_record(), "ada": small}), tmp_path / "r")
    read = read_config(model)
    assert dict(read.cc_model_filenames) == {"8.9": "model_sm89.plan", "9.0": "model_sm90.plan"}
    assert read.max_batch_size == 4
    assert [sample.batch_size for sample in read.model_warmup] == [1, 2, 4]


def timed(name: str, **p50_ms: float) -> BenchRecord:
    """A bench in which one contender was timed at these batches."""
    figures = {batch.removeprefix("b"): Figures(1, ms, ms, ms, ms, 1.0, 1.0) for batch, ms in p50_ms.items()}
    return BenchRecord(
        Machine("cpu", 2, 0.0, "Linux", "3.11"), 1, False, "", name, {name: ContenderRecord(name, figures)}
    )


@pytest.mark.parametrize(
    ("engines", "bench", "delay"),
    [
        ({}, None, 1000),
        ({}, timed("onnxruntime-cpu", b1=812.34, b4=1.0), 81234),
        ({}, timed("onnxruntime-cpu", b4=1.0), 1000),
        ({"a": engine_record()}, timed("onnxruntime-cpu", b1=812.0), 1000),
        ({"a": engine_record()}, timed("tensorrt", b1=4.567), 457),
    ],
)
def test_the_delay_is_a_tenth_of_what_the_engine_was_timed_at(
    tmp_path: Path, engines: dict[str, EngineRecord], bench: BenchRecord | None, delay: int
) -> None:
    bundle = make_bundle(tmp_path / "bundle", engines)
    (bundle.path / "bundle.json").unlink()
    write_manifest(bundle.path, replace(bundle.manifest, bench=bench))
    read = read_config(deploy(bundle, tmp_path / "r"))
    assert read.dynamic_batching.max_queue_delay_microseconds == delay
    given = read_config(deploy(bundle, tmp_path / "given", delay_us=0))
    assert given.dynamic_batching.max_queue_delay_microseconds == 0


RTX = {"rtx": engine_record(flavour=Flavour.TENSORRT_RTX, version="1.7.1.116")}


@pytest.mark.parametrize("backend", ["onnxruntime", "onnxruntime-tensorrt"])
def test_a_graph_for_single_clips(tmp_path: Path, backend: str) -> None:
    read = read_config(deploy(make_bundle(tmp_path / "bundle", batches=(1,)), tmp_path / "r", backend=backend))
    assert read.max_batch_size == 1
    assert [sample.batch_size for sample in read.model_warmup] == [1]
    for accelerator in read.optimization.execution_accelerators.gpu_execution_accelerator:
        for size in ("min", "opt", "max"):
            assert accelerator.parameters.get(f"trt_profile_{size}_shapes", "frames:1x").startswith("frames:1x")


def test_the_tensorrt_provider_has_no_mode_for_bf16(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle.path / "bundle.json"
    path.write_text(path.read_text().replace('"name": "fp16"', '"name": "bf16"'))
    with pytest.raises(BundleError, match="is in bf16, which ONNX Runtime's TensorRT provider does not support"):
        deploy(bundle, tmp_path / "r", backend="onnxruntime-tensorrt")


def test_an_rtx_engine_is_passed_over(tmp_path: Path) -> None:
    assert read_config(deploy(make_bundle(tmp_path / "bundle", RTX), tmp_path / "r")).backend == "onnxruntime"
