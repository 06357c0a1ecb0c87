"""Options are refused where they conflict or cannot be honored, before any work starts."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imports import imported_by

from vivit_export import demo
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.cli.flags import flag
from vivit_export.errors import ClipError, EnvironmentFault, MissingDependencyError, OutputError, UsageError
from vivit_export.export.engine import options as engine_options
from vivit_export.export.engine.options import EngineOptions
from vivit_export.export.options import ExportOptions, default_target, preview_export
from vivit_export.flavour import Flavour
from vivit_export.precision import Precision, PrecisionName

CACHE, CLIPS = Path("timings"), Path("clips")
SEEDED = CalibrationOptions(seed=1)
ONNX, RTX, TRT = ("onnx",), ("tensorrt-rtx",), ("tensorrt",)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "fp64"}, r"^precision 'fp64' is not one of fp32, fp16, bf16, int8, fp8$"),
        ({"precision": "fp16", "keep_fp16": "fc2"}, r"^calibration options have no effect on --fp16; add --int8"),
        ({"precision": "fp32", "calibration": SEEDED}, r"^calibration options have no effect on --fp32"),
        ({"precision": "int8", "keep_fp16": "("}, r"^--keep-fp16 '\(' is not a regular expression"),
        ({"precision": "int8", "fp8_attention": True}, r"^--fp8-attention has no effect on --int8; add --fp8"),
        (
            {"precision": "fp8", "fp8_attention": True, "attention": "fused-op"},
            r"^--fp8-attention needs the softmax in the graph, which --attention fused-op hides$",
        ),
        ({"precision": "int8", "keep_fp16": "auto", "check": False}, r"^--keep-fp16 auto needs the check"),
        ({"fix": True}, r"^--fix has no effect on --fp32, of which no type is wider$"),
        ({"precision": "fp16", "fix": True, "check": False}, r"^--fix needs the check, which --no-check turns off$"),
        ({"precision": "fp16", "fix": True, "keep_fp32": "a"}, r"^--fix chooses .*; leave it or --keep-fp32 out$"),
        ({"precision": "int8", "fix": True, "keep_fp16": "auto"}, r"^--fix chooses .*; leave it or --keep-fp16 out$"),
        ({"precision": "fp16", "keep_fp32": "["}, r"^--keep-fp32 '\[' is not a regular expression"),
        ({"precision": "fp16", "keep_fp32": ""}, r"^--keep-fp32 '' matches every name; name what to keep"),
        ({"keep_fp32": "fc2"}, r"^--keep-fp32 has no effect on --fp32, in which everything is float32; leave it out"),
        ({"precision": "fp8", "keep_fp32": "fc2", "fp8_attention": True}, r"^--keep-fp32 and --fp8-attention exclude"),
        ({"precision": "fp8", "sms": (86,)}, r"^--sm 86 has no fp8 arithmetic, which needs 89 or newer"),
        ({"precision": "int8", "sms": (87,)}, r"^--sm 87 is unknown"),
        ({"targets": ("cuda",)}, r"^target 'cuda' is not one of auto, onnx, tensorrt, tensorrt-rtx$"),
        ({"targets": ("onnx", "TensorRT")}, r"^target 'TensorRT' is not one of"),
        ({"input_mode": "video"}, r"^--input 'video' is not one of crops, pixels"),
        ({"outputs": ("pooler_output",)}, r"^--outputs 'pooler_output' is not one of logits, embedding$"),
        ({"attention": "flash"}, r"^--attention 'flash' is not one of auto, fused-op, pattern$"),
        ({"opset": 19}, r"^--opset 19 is outside 20 to 24 .*Gelu is an op since 20"),
        ({"opset": 25}, r"^--opset 25 is outside 20 to 24"),
        ({"opset": 21, "precision": "bf16"}, r"^--opset 21 is outside 22 to 24 .*bf16 Conv since 22"),
        ({"opset": 22, "attention": "fused-op"}, r"^--opset 22 is outside 23 to 24 .*Attention is an op since 23"),
        ({"batches": (0, 4, 8)}, r"^batches min=0, opt=4, max=8 must rise from 1"),
        ({"batches": (4, 2, 8)}, r"^batches min=4, opt=2, max=8 must rise"),
        ({"batches": (1, 8, 4)}, r"^batches min=1, opt=8, max=4 must rise"),
        ({"batches": (1, 4, 1025)}, r"max=1025 must rise .* at most 1024"),
        ({"num_clips": 0}, r"^--num-clips 0 must be at least 1; --no-check turns the check off$"),
        ({"check": False, "gate": "top1=1"}, r"^--no-check cannot be combined with --gate"),
        ({"check": False, "clips": CLIPS}, r"^--no-check cannot be combined"),
        ({"check": False, "num_clips": 3}, r"^--no-check cannot be combined"),
        ({"sms": (89,), "targets": ONNX}, r"^--sm compiles ahead of time .*; add --target tensorrt-rtx$"),
        ({"sms": (89,), "targets": TRT}, r"^--sm compiles ahead of time"),
        ({"sms": (91,)}, r"^--sm 91 is unknown to TensorRT for RTX; it supports 75, 80"),
        ({"sms": (90,)}, r"^--sm 90: .*H100, H200"),
        ({"sms": (75,), "precision": "bf16"}, r"^--sm 75 has no bf16 arithmetic"),
        ({"timing_cache": CACHE, "targets": RTX}, r"^--timing-cache is TensorRT's; add --target tensorrt"),
        ({"timing_cache": CACHE, "targets": ONNX}, r"^--timing-cache is TensorRT's"),
        ({"allow_unfused": True, "targets": ONNX}, r"^--allow-unfused is about engines and --target onnx builds none"),
        ({"batches": (2, 4, 8), "targets": ONNX}, r"^--min-batch is about engines"),
    ],
)
def test_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        ExportOptions(**options)
    assert re.search(sentence, caught.value.worded(flag))
    assert "--" not in str(caught.value)  # Python callers know no flags
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bf16", "opset": 22},
        {"precision": "fp16", "opset": 20, "attention": "pattern"},
        {"attention": "fused-op", "opset": 23},
        {"opset": 24, "outputs": ("logits", "embedding"), "input_mode": "pixels"},
        {"batches": (1, 1, 1), "targets": ONNX},
        {"batches": (1024, 1024, 1024), "targets": TRT},
        {"sms": (89, 120), "targets": ("tensorrt", "tensorrt-rtx")},
        {"sms": (75,), "precision": "fp16"},
        {"timing_cache": CACHE, "targets": TRT, "allow_unfused": True},
        {"timing_cache": CACHE},
        {"check": False},
        {"precision": "int8", "keep_fp16": "auto", "calibration": SEEDED},
        {"precision": "fp8", "keep_fp16": r"fc2$", "sms": (89,)},
        {"precision": "int8", "keep_fp16": r"fc2$", "keep_fp32": r"fc1$"},
        {"precision": "bf16", "keep_fp32": r"layers\.3\.mlp"},
        {"precision": "int8", "fix": True},
        {"gate": "top1=1", "clips": CLIPS, "num_clips": 1},
    ],
)
def test_accepted(options: dict[str, Any]) -> None:
    made = ExportOptions(**options)
    assert {name: getattr(made, name) for name in options} == options


@pytest.mark.parametrize(
    ("options", "targets", "noted"),
    [
        ({}, ("onnx",), "fused-op, opset 23), because no engine is built; .* (pattern, opset 20)"),
        ({"precision": "bf16"}, ("onnx",), "fused-op, opset 23), because no engine is built; .* (pattern, opset 22)"),
        ({"attention": "fused-op"}, ("onnx",), ""),
        ({"attention": "pattern"}, ("onnx",), ""),
        ({"opset": 20}, ("onnx",), ""),
    ],
)
def test_a_form_of_attention_that_the_target_chose_is_told(
    tmp_path: Path, options: dict[str, Any], targets: tuple[str, ...], noted: str
) -> None:
    plan = preview_export("demo", tmp_path / "out", ExportOptions(**options, targets=targets))
    assert bool(plan.attention_note) == bool(noted)
    assert re.search(re.escape(noted).replace(r"\.\*", ".*"), plan.attention_note)


# --- attention and opset -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "builds_engine", "form", "opset"),
    [
        ({}, False, "fused-op", 23),
        ({}, True, "pattern", 20),
        ({"precision": "bf16"}, True, "pattern", 22),
        ({"precision": "bf16"}, False, "fused-op", 23),
        ({"opset": 22}, False, "pattern", 22),
        ({"opset": 24}, False, "fused-op", 24),
        ({"opset": 24}, True, "pattern", 24),
        ({"attention": "fused-op"}, True, "fused-op", 23),
        ({"attention": "pattern"}, False, "pattern", 20),
        ({"precision": "fp8", "fp8_attention": True}, False, "pattern", 20),
    ],
)
def test_form_of_attention_and_opset(options: dict[str, Any], builds_engine: bool, form: str, opset: int) -> None:
    made = ExportOptions(**options)
    assert made.attention_form(builds_engine) == form
    assert made.opset_for(form) == opset


# --- what this machine can build ---------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that this machine can build those flavours and no other."""

    def pretend(*available: Flavour) -> None:
        monkeypatch.setattr(
            engine_options, "unavailable_reason", lambda f: None if f in available else f"there is no {f} here"
        )

    return pretend


def test_auto_builds_what_this_machine_can_and_says_what_not(machine: Any) -> None:
    options = EngineOptions()
    machine(Flavour.TENSORRT_RTX)
    assert options.choose_flavours(("auto",)) == (["tensorrt-rtx"], {"tensorrt": "there is no tensorrt here"})
    machine()
    assert options.choose_flavours(("auto",))[0] == []
    machine(*Flavour)
    assert options.choose_flavours(("auto",)) == (["tensorrt", "tensorrt-rtx"], {})


def test_onnx_alone_builds_no_engine(machine: Any) -> None:
    machine(*Flavour)
    assert EngineOptions().choose_flavours(ONNX) == ([], {})
    assert EngineOptions().choose_flavours(("onnx", "tensorrt")) == (["tensorrt"], {})


@pytest.mark.parametrize(
    ("targets", "options", "sentence"),
    [
        (TRT, {}, "--target tensorrt: there is no tensorrt here"),
        (RTX, {}, "--target tensorrt-rtx: there is no tensorrt-rtx here"),
        (("auto", "tensorrt"), {}, "--target tensorrt: there is no tensorrt here"),
        (("auto",), {"sms": (89,)}, "--sm: there is no tensorrt-rtx here"),
        (("auto",), {"timing_cache": CACHE}, "--timing-cache: there is no tensorrt here"),
    ],
)
def test_what_was_asked_for_by_name_must_be_there(
    machine: Any, targets: tuple[str, ...], options: dict[str, Any], sentence: str
) -> None:
    machine()
    with pytest.raises(EnvironmentFault) as caught:
        EngineOptions(**options).choose_flavours(targets)
    assert caught.value.worded(flag) == sentence
    assert caught.value.exit_code == 7


# --- the plan of an export ---------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub whose models are the demo, as far as their JSON goes."""
    monkeypatch.setattr("vivit_export.export.checkpoint.preview.download_json", lambda *_: demo.checkpoint_path())


@pytest.mark.usefixtures("hub")
def test_plan_decides_all_before_the_weights_are_read(machine: Any, tmp_path: Path) -> None:
    machine(Flavour.TENSORRT_RTX)
    options = ExportOptions(Precision.FP16, batches=(1, 2, 4), outputs=("logits",))
    plan = preview_export("owner/model", tmp_path / "out", options)
    assert (plan.attention, plan.opset, plan.flavours) == ("pattern", 20, ("tensorrt-rtx",))
    told = plan.to_json()
    assert told["engines"] == {"tensorrt-rtx": {"sms": [86, 89, 120]}}
    assert told["skipped"] == {"tensorrt": "there is no tensorrt here"}
    assert (told["precision"], told["batches"], told["check"]) == ("fp16", [1, 2, 4], True)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("model", "name"),
    [("demo", "vivit-demo-bf16"), ("google/vivit-b", "vivit-b-bf16"), ("some/local/folder/", "folder-bf16")],
)
def test_target_is_named_after_the_model(machine: Any, model: str, name: str) -> None:
    machine()
    assert default_target(model, Precision.BF16) == Path(name)
    if not model.endswith("/"):  # which does not exist
        assert preview_export(model, None, ExportOptions(Precision.BF16, targets=ONNX)).target == Path(name)


def test_plan_refuses_what_would_fail_in_the_end(machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").touch()
    with pytest.raises(OutputError, match="thesis exists and is not a bundle"):
        preview_export("demo", tmp_path / "thesis", ExportOptions(force=True))
    with pytest.raises(UsageError, match="'accuracy' is not a metric"):
        preview_export("demo", tmp_path / "out", ExportOptions(gate="accuracy=1"))
    with pytest.raises(ClipError, match="none"):
        preview_export("demo", tmp_path / "out", ExportOptions(clips=tmp_path / "none"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(MissingDependencyError, match=r"vivit-export\[cpu\].*check=False"):
        preview_export("demo", tmp_path / "out", ExportOptions())
    preview_export("demo", tmp_path / "out", ExportOptions(check=False))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"vivit-export\[export,cpu\].*check=False"):
        preview_export("demo", tmp_path / "out", ExportOptions())


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_check_that_onnxruntime_1_23_cannot_run_is_refused(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: PrecisionName
) -> None:
    """It is the last for Python 3.10, and has no QuantizeLinear of the opset that has Attention."""
    machine()
    monkeypatch.setattr("vivit_export.packages.installed_onnxruntime", lambda: "1.23.2")
    options = ExportOptions(precision, targets=ONNX)  # type: ignore[arg-type]  # a name stands for its precision
    with pytest.raises(
        EnvironmentFault, match=rf"ONNX Runtime 1\.23\.2 cannot run {precision} .* attention=pattern, or"
    ):
        preview_export("demo", tmp_path / "out", options)
    preview_export("demo", tmp_path / "out", dataclasses.replace(options, attention="pattern"))
    preview_export("demo", tmp_path / "out", dataclasses.replace(options, check=False))
    preview_export("demo", tmp_path / "out", ExportOptions(targets=ONNX))


def test_mistakes_are_told_without_importing_anything_heavy() -> None:
    code = "from vivit_export.export.options import ExportOptions; ExportOptions()"
    assert imported_by(code, "torch", "transformers", "onnx", "onnxruntime", "tensorrt_rtx") == []


def test_a_mistake_is_worded_for_whoever_made_it() -> None:
    with pytest.raises(UsageError) as raised:
        ExportOptions(Precision.FP16, fp8_attention=True)
    assert str(raised.value) == "fp8_attention has no effect on precision=fp16; add precision=fp8, or leave it out"
    assert raised.value.worded(flag) == "--fp8-attention has no effect on --fp16; add --fp8, or leave it out"


def test_numbers_of_numpy_lists_and_single_names_are_those_of_python() -> None:
    given: dict[str, Any] = {"num_clips": np.int64(2), "batches": [1, np.int32(2), 3], "targets": "onnx"}
    given |= {"sampling": "stride", "stride": np.int64(2), "views": np.array([4, 3]), "outputs": "logits"}
    found = ExportOptions(**given)
    plain: dict[str, Any] = {"num_clips": 2, "batches": (1, 2, 3), "targets": ("onnx",)}
    plain |= {"sampling": "stride", "stride": 2, "views": (4, 3), "outputs": ("logits",)}
    assert found == ExportOptions(**plain)
    assert type(found.num_clips) is type(found.batches[1]) is int


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batches": 4}, "batches=4 must be 3 whole numbers"),
        ({"num_clips": 2.0}, "num_clips=2.0 must be a whole number"),
        ({"views": 2}, "views=2 must be 2 whole numbers"),
        ({"sms": "89"}, "sms='89' must be whole numbers"),
        ({"targets": None}, "targets=None must be a text, or several"),
        ({"clips": 3}, "clips must be a path, got int; give a string or a Path"),
        ({"calibration": {"data": "x"}}, "calibration must be a CalibrationOptions, got dict"),
        ({"opset": "20"}, "opset='20' must be a whole number"),
    ],
)
def test_values_of_another_kind_are_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        ExportOptions(**given)
    assert str(raised.value) == sentence


@pytest.mark.field_case("flixopt 249", "itolapi 40")
def test_paths_may_be_strings_and_what_may_be_several_may_be_one() -> None:
    calibration = CalibrationOptions(data="videos", cache="seen")  # type: ignore[arg-type]
    given: dict[str, Any] = {"precision": "int8", "targets": "tensorrt-rtx", "sms": 89, "clips": "videos"}
    found = ExportOptions(**given, calibration=calibration, timing_cache=None)
    assert (found.targets, found.sms, found.clips) == (("tensorrt-rtx",), (89,), Path("videos"))
    assert (calibration.data, calibration.cache) == ((Path("videos"),), Path("seen"))
    assert CalibrationOptions(smooth=0.5).smooth == "0.5"  # type: ignore[arg-type]
