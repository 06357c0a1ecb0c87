"""``precision="auto"``: what is tried, what is kept, and how an interrupted search continues.

Exports are copies of bundles that other tests share, and times are made up, but for the last test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bundles import Bundles, need
from noted import Noted

import vivit_export as ve
import vivit_export.export.best_precision as best_precision
import vivit_export.export.pipeline as pipeline
from vivit_export.bundle import Bundle
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.errors import BuildError, DriftError, InputError, OutputError, UsageError
from vivit_export.export.candidates import candidates_folder
from vivit_export.export.contest import Contest
from vivit_export.export.options import ExportOptions
from vivit_export.precision import Precision
from vivit_export.progress import Progress
from vivit_export.runtime.bench.run import this_machine

FP8, INT8, FP16, BF16, FP32 = (Precision(name) for name in ("fp8", "int8", "fp16", "bf16", "fp32"))
EXPORT = pipeline._export
TIMES = {FP8: 5.0, INT8: 2.0, FP16: 3.0, BF16: 4.0, FP32: 9.0}


class Exports:
    """In place of exports of one precision: copies the shared bundle, or fails."""

    def __init__(self, bundles: Bundles, failures: Mapping[Precision, BaseException]) -> None:
        self._bundles, self.failures = bundles, dict(failures)
        self.done: list[Precision] = []

    def __call__(self, model: object, target: Path, options: ExportOptions, progress: Progress) -> Bundle:
        precision = options.precision
        self.done.append(precision)
        if precision in self.failures:
            raise self.failures[precision]
        quantized = {"calibration": CalibrationOptions(num_clips=32)} if precision.quantized else {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "_export", EXPORT)
            shared = self._bundles.demo(precision=str(precision), check=True, num_clips=2, **quantized)
        shutil.copytree(shared.path, target)
        return ve.read_bundle(target)


@pytest.fixture
def exports(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> Exports:
    """Without failures, until a test adds some."""
    need("onnxruntime")
    made = Exports(bundles, {})

    def contest(passed: Mapping[Precision, Bundle], progress: object) -> Contest:
        results = {precision: ("onnxruntime-cpu", TIMES[precision]) for precision in passed}
        return Contest("time", 1, 20, this_machine(), results, {})

    monkeypatch.setattr(pipeline, "_export", made)
    monkeypatch.setattr(best_precision, "hold_contest", contest)
    return made


def search(target: Path, progress: Progress | None = None, **fields: Any) -> Bundle:
    given: dict[str, Any] = {"targets": ("onnx",), "precision": "auto", **fields}
    return ve.export_model("demo", target, progress=progress, **given)


def outcomes(bundle: Bundle) -> dict[Precision, str]:
    assert bundle.manifest.search is not None
    return {one.precision: one.outcome for one in bundle.manifest.search.tried}


def test_the_fastest_inside_its_gate_is_kept_and_says_what_the_others_were(exports: Exports, tmp_path: Path) -> None:
    target = tmp_path / "best"
    made = search(target)
    assert exports.done == [FP8, INT8, FP16, BF16, FP32]
    assert made.precision is INT8 and made.path == target
    assert outcomes(made) == {FP8: "slower", INT8: "chosen", FP16: "slower", BF16: "slower", FP32: "slower"}
    assert list(tmp_path.iterdir()) == [target]
    assert "Choice of the precision" in (target / "report.html").read_text()
    assert ve.read_bundle(target).manifest.search == made.manifest.search


def test_what_is_beyond_its_gate_or_cannot_be_built_loses_with_its_reason(exports: Exports, tmp_path: Path) -> None:
    exports.failures = {
        FP8: DriftError("max 0.2 is above 0.1; no bundle was written (a wider type drifts less)"),
        INT8: BuildError("the compiler gave up"),
    }
    made = search(tmp_path / "best")
    assert made.precision is FP16 and made.manifest.search is not None
    told = {one.precision: (one.outcome, one.reason) for one in made.manifest.search.tried}
    assert told[FP8] == ("beyond the gate", "max 0.2 is above 0.1")
    assert told[INT8] == ("impossible", "the compiler gave up")


def test_where_none_passes_nothing_is_written(exports: Exports, tmp_path: Path) -> None:
    exports.failures = {p: DriftError(f"{p} is too far off; no bundle") for p in (FP8, INT8, FP16, BF16, FP32)}
    with pytest.raises(DriftError, match="no precision could be chosen, so no bundle was written: fp8: fp8 is too far"):
        search(tmp_path / "best")
    exports.failures = {p: BuildError(f"{p} does not compile") for p in exports.failures}
    with pytest.raises(BuildError, match="fp32 does not compile"):
        search(tmp_path / "best")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_search_continues_where_it_was(exports: Exports, tmp_path: Path) -> None:
    target = tmp_path / "best"
    exports.failures = {FP8: DriftError("too far off"), FP16: KeyboardInterrupt()}
    remarks = Noted()
    with pytest.raises(KeyboardInterrupt):
        search(target, remarks)
    assert exports.done == [FP8, INT8, FP16] and not target.exists()
    assert remarks.notes[-1].endswith("the same command continues with it")
    exports.failures, exports.done = {}, []
    made = search(target, remarks)
    assert exports.done == [FP16, BF16, FP32]  # what was lost or made before is known
    assert outcomes(made)[FP8] == "beyond the gate" and outcomes(made)[INT8] == "chosen"
    assert any(note.startswith("continues with") for note in remarks.notes)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("change", ["options", "damage"])
def test_what_no_longer_fits_is_made_again(exports: Exports, tmp_path: Path, change: str) -> None:
    target = tmp_path / "best"
    exports.failures = {FP16: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        search(target)
    if change == "damage":
        (candidates_folder(target) / "int8" / "model.onnx").write_bytes(b"x")
    exports.failures, exports.done = {}, []
    fields: dict[str, Any] = {"num_clips": 3} if change == "options" else {}
    search(target, **fields)
    assert exports.done[:2] == ([FP8, INT8] if change == "options" else [INT8, FP16])


@pytest.mark.parametrize("obstacle", ["file", "folder", "link"])
def test_what_is_not_ours_is_left_alone(exports: Exports, tmp_path: Path, obstacle: str) -> None:
    target = tmp_path / "best"
    place = candidates_folder(target)
    if obstacle == "file":
        place.write_text("mine")
    elif obstacle == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.mkdir()
        (place / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"best.candidates is needed for the candidates and is something else"):
        search(target)
    assert exports.done == [] and os.path.lexists(place)
    assert obstacle != "folder" or (place / "thesis.txt").read_text() == "mine"


def test_missing_folders_of_the_target_are_made_and_none_is_left_if_nothing_is(
    exports: Exports, tmp_path: Path
) -> None:
    target = tmp_path / "not/yet/best"
    exports.failures = dict.fromkeys((FP8, INT8, FP16, BF16, FP32), DriftError("too far off"))
    with pytest.raises(DriftError):
        search(target)
    assert not any(tmp_path.iterdir())
    exports.failures = {}
    search(target)
    assert list((tmp_path / "not/yet").iterdir()) == [target]


def test_options_go_to_the_precisions_that_have_them(exports: Exports, tmp_path: Path) -> None:
    seen: dict[Precision, ExportOptions] = {}

    def remember(model: object, target: Path, options: ExportOptions, progress: Progress) -> Bundle:
        seen[options.precision] = options
        raise DriftError("too far off")

    calibration = CalibrationOptions(num_clips=40)
    given: dict[str, Any] = {"fix": True, "calibration": calibration, "fp8_attention": True, "gate": "max=0.5"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_export", remember)
        with pytest.raises(DriftError):
            search(tmp_path / "best", **given)
    assert [seen[p].calibration == calibration for p in (FP8, INT8, FP16, FP32)] == [True, True, False, False]
    assert [seen[p].fix for p in (FP8, INT8, FP16, FP32)] == [True, True, True, False]
    assert [p for p, options in seen.items() if options.fp8_attention] == [FP8]
    assert all(options.gate == "max=0.5" and options.force for options in seen.values())


def test_mistakes_are_refused_before_any_work(exports: Exports, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the check"):
        search(tmp_path / "best", check=False)
    with pytest.raises(InputError):
        ve.export_model(tmp_path / "nowhere", tmp_path / "best", precision="auto", targets=("onnx",))
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="not a bundle"):
        search(tmp_path / "best")
    assert exports.done == []


@pytest.mark.needs_onnxruntime
def test_engines_of_this_machine_really_take_turns(bundles: Bundles, tmp_path: Path) -> None:
    """FP8 is emulated on a CPU; only it and fp32 are tried here, to save time."""
    exports = Exports(bundles, {p: BuildError("left out") for p in (INT8, FP16, BF16)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_export", exports)
        made = search(tmp_path / "best")
    assert made.precision is FP32 and made.manifest.search is not None
    ms = {one.precision: one.ms_per_clip or 0.0 for one in made.manifest.search.tried}
    assert ms[FP8] > 1.05 * ms[FP32] > 0
    assert made.manifest.search.machine is not None
