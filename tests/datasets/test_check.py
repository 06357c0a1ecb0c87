"""A check in partitions, in one process: the figures of a check of all clips at once, and what is refused."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bundles import Bundles, need

need("torch", "transformers", "onnx_ir")

import torch  # noqa: E402
from noted import Noted  # noqa: E402
from one_process import use_none, use_one_process  # noqa: E402
from tables import read_table, write_table  # noqa: E402

from vivit_export import __version__  # noqa: E402
from vivit_export.bundle.checks import DriftReport, Run  # noqa: E402
from vivit_export.datasets import check as checking  # noqa: E402
from vivit_export.datasets.check import check_dataset  # noqa: E402
from vivit_export.datasets.runs import Summary  # noqa: E402
from vivit_export.datasets.work import Outcome  # noqa: E402
from vivit_export.demo import clips_path  # noqa: E402
from vivit_export.errors import CheckpointError, ClipError, InputError, OutputError, UsageError  # noqa: E402
from vivit_export.export.checkpoint.load import Checkpoint  # noqa: E402
from vivit_export.export.recheck import check  # noqa: E402
from vivit_export.precision import Precision  # noqa: E402
from vivit_export.progress import Silent  # noqa: E402
from vivit_export.runtime.drift.per_clip import Outputs  # noqa: E402

pytestmark = pytest.mark.needs_onnxruntime


@pytest.fixture
def run(bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckRun:
    use_one_process(monkeypatch)
    folder = tmp_path / "clips"
    shutil.copytree(clips_path(), folder)
    return CheckRun(bundles, folder, tmp_path / "out")


class CheckRun:
    def __init__(self, bundles: Bundles, place: Path, out: Path) -> None:
        self.bundle, self.place, self.out = bundles.demo(precision="fp16"), place, out

    def __call__(self, **options: object) -> tuple[DriftReport, Summary]:
        given: dict[str, object] = {"checkpoint": "demo", "progress": Silent(), **options}
        return check_dataset(self.bundle, self.place, self.out, **given)  # type: ignore[arg-type]


def run_named(report: DriftReport, part: str, batch: int) -> Run:
    (found,) = (each for each in report.runs if part in each.engine and each.batch == batch)
    return found


def test_the_figures_are_those_of_a_check_in_one_process(run: CheckRun, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    files = sorted(run.place.glob("*.mp4"))
    labels.write_text("".join(f"{path.name},{n % 3}\n" for n, path in enumerate(files)))
    report, summary = run(labels=labels)
    whole = check(run.bundle, run.place, checkpoint="demo", labels=labels, progress=Silent())
    assert (summary.rows, summary.faults) == (len(files), 0)
    assert report.clips == whole.clips and report.reference == whole.reference
    assert report.gate == whole.gate
    ours, theirs = run_named(report, "emulated", 1), run_named(whole, "emulated", 1)
    assert ours == theirs  # on the same rows, one by one
    session = report.runs[0]
    expected = run_named(whole, session.engine, session.batch)
    assert session.drift is not None and expected.drift is not None
    assert session.drift.max == pytest.approx(expected.drift.max, abs=1e-6)
    assert session.drift.accuracy_drop == expected.drift.accuracy_drop
    assert report.accuracy is not None and whole.accuracy is not None
    assert (report.accuracy.top1, report.accuracy.top5) == (whole.accuracy.top1, whole.accuracy.top5)
    assert report.view is not None and whole.view is not None
    assert report.view.margins == whole.view.margins
    assert [strata.by for strata in report.view.strata] == [strata.by for strata in whole.view.strata]
    assert [(p.ours, p.reference, p.differing) for p in report.parity] == [
        (p.ours, p.reference, p.differing) for p in whole.parity
    ]
    assert report.passed and whole.passed


def test_views_are_averaged(run: CheckRun) -> None:
    report, _ = run(views=(1, 3))
    whole = check(run.bundle, run.place, checkpoint="demo", views=(1, 3), progress=Silent())
    assert report.clips == whole.clips and report.clips.views == (1, 3)
    ours, theirs = run_named(report, "emulated", 1), run_named(whole, "emulated", 1)
    assert ours.drift is not None and theirs.drift is not None
    assert ours.drift.max == pytest.approx(theirs.drift.max, rel=1e-6)


def test_a_graph_of_pixels(run: CheckRun, bundles: Bundles) -> None:
    run.bundle = bundles.demo(precision="fp32", input_mode="pixels")
    report, summary = run(num_clips=2)
    assert summary.rows == 2 and len(report.runs) == len(report.parity) == 1  # nothing rounds or preprocesses
    assert report.runs[0].drift is not None and report.runs[0].drift.max is not None
    assert report.runs[0].drift.max < 1e-5


def test_a_graph_of_whole_frames_takes_videos_of_its_size(run: CheckRun, bundles: Bundles) -> None:
    run.bundle = bundles.demo(precision="fp32", input_mode="frames", frame_size=(320, 180))
    fitting = [path for path in run.place.glob("*.mp4") if "180x320" in path.name]
    report, summary = run()
    assert report.names == tuple(sorted(path.name for path in fitting)) and summary.faults
    assert {(parity.ours, parity.differing) for parity in report.parity} == {("the runtime", 0), ("the graph", 0)}
    assert report.passed


def test_unusable_clips_are_left_out_and_told(run: CheckRun, tmp_path: Path) -> None:
    (run.place / "broken.mp4").write_bytes(b"no video")
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(f"{path.name},0\n" for path in run.place.glob("*.mp4")))
    report, summary = run(labels=labels)
    assert "broken.mp4" not in report.names and summary.faults == 1
    with pytest.raises(ClipError, match=r"1 of \d+ clips could not be used; "):
        summary.require()
    (fault,) = read_table(run.out, "faults")
    assert fault["video"] == str(run.place / "broken.mp4")


def test_shards_and_lists_are_named_as_they_are(run: CheckRun, tmp_path: Path) -> None:
    files, folder = sorted(run.place.glob("*.mp4"))[:4], run.place
    run.place = tmp_path / "some.tar"
    with tarfile.open(run.place, "w") as archive:
        for path in files:
            archive.add(path, f"walk/{path.name}")
    labels = tmp_path / "labels.csv"
    labels.write_text("".join(f"walk/{path.name},0\n" for path in files))
    report, _ = run(labels=labels)
    assert report.names == tuple(f"some.tar::walk/{path.name}" for path in files)
    assert report.accuracy is not None and report.accuracy.clips == 4
    run.out, run.place = tmp_path / "listed", write_table(tmp_path / "list.parquet", path=[str(p) for p in files])
    assert run(labels=None)[0].names == tuple(f"clips/{path.name}" for path in files)
    run.out, run.place = tmp_path / "first", folder
    assert run(num_clips=3)[0].names == tuple(path.name for path in files[:3])


def test_another_gate_and_labels_need_no_second_run(run: CheckRun, monkeypatch: pytest.MonkeyPatch) -> None:
    report, first = run()
    use_none(monkeypatch)
    again, second = run(gate="max=1e-9")
    assert first.done_before == 0 and second == replace(first, done_before=first.partitions)
    assert again.runs == report.runs and report.passed and not again.passed
    assert again.parity == report.parity


@pytest.mark.parametrize("change", ["a table is gone", "another version", "written before it was kept"])
def test_what_is_not_known_to_be_complete_is_run_again(
    run: CheckRun, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    report, _ = run()
    place, ran = run.out / "run.json", list[Outcome]()
    record = json.loads(place.read_text())
    if change == "a table is gone":
        next((run.out / "rows").iterdir()).unlink()
    elif change == "another version":
        place.write_text(json.dumps({**record, "probe": {**record["probe"], "version": "0"}}))
    else:
        del record["probe"]
        place.write_text(json.dumps(record))
    use_one_process(monkeypatch, ran.append)
    again, summary = run()
    assert bool(ran) is (change == "a table is gone")
    assert (again.runs, summary.done_before) == (report.runs, summary.partitions - bool(ran))
    kept = json.loads(place.read_text())["probe"]
    assert kept["version"] == __version__ and kept["reference"].startswith("eager fp32")


def test_an_interrupted_check_goes_on(run: CheckRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in list(run.place.glob("*.mp4")):
        for n in range(4):
            (run.place / f"{path.stem}-{n}.mp4").hardlink_to(path)

    def interrupt(outcome: Outcome) -> None:
        if outcome.partition == 1:
            raise KeyboardInterrupt

    use_one_process(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"1 of \d partitions are kept in .*out; the same command goes on"):
        run()
    use_one_process(monkeypatch)
    report, summary = run()
    assert summary.done_before == 1 and summary.partitions > 2
    assert len(report.names) == summary.rows == len(list(run.place.glob("*.mp4")))
    assert report.names == tuple(sorted(report.names))


def test_a_baseline_of_one_process_is_held(run: CheckRun, tmp_path: Path) -> None:
    whole = check(run.bundle, run.place, checkpoint="demo", progress=Silent())
    stored = json.loads((run.bundle.path / "report.json").read_text())
    stored["checks"] = whole.to_json()
    (baseline := tmp_path / "before.json").write_text(json.dumps(stored))
    report, _ = run(baseline=baseline)
    assert report.baseline is not None and report.baseline.source == "before.json"
    assert not report.baseline.regressions and report.passed


def test_a_model_that_drifts_fails_and_names_the_clips(run: CheckRun, monkeypatch: pytest.MonkeyPatch) -> None:
    eager = Checkpoint.run_eager

    def other(*args: object) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        return {name: array[:, ::-1].copy() for name, array in eager(*args).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(Checkpoint, "run_eager", other)
    report, _ = run()
    assert not report.passed and report.view is not None
    assert report.view.clips[0].flip == "clear" and report.view.clips[0].name in report.names


def test_the_eager_model_tries_the_engines_device(run: CheckRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without the memory is found out before the report names it: by a clip of zeros, in each process."""
    asked: list[str | None] = []
    ran: list[tuple[str, bool]] = []
    eager = Checkpoint.run_eager

    def beside(name: str | None) -> torch.device:
        asked.append(name)
        return torch.device("cuda:1")

    def full(self: Checkpoint, pixels: npt.NDArray[np.float32], *given: Precision) -> Outputs:
        ran.append((self.device.type, bool(pixels.any())))
        monkeypatch.setattr(Checkpoint, "device", torch.device("cpu"))
        return eager(self, pixels, *given)

    monkeypatch.setattr("vivit_export.export.checkpoint.device.device_beside", beside)
    monkeypatch.setattr(Checkpoint, "move", lambda _, device: monkeypatch.setattr(Checkpoint, "device", device))
    monkeypatch.setattr(Checkpoint, "run_eager", full)
    report, _ = run(device="cpu", num_clips=1)
    assert asked == ["cpu"] * 2 and report.passed
    assert ran == [("cuda", False), ("cuda", False), ("cpu", True)]
    assert report.reference == f"eager fp32, PyTorch {torch.__version__}"


def test_what_cannot_be_checked_is_refused(run: CheckRun, bundles: Bundles, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("nobody.mp4,0\n")
    with pytest.raises(InputError, match=r"line 1 of .* labels 'nobody.mp4', which is not a clip of this check"):
        run(labels=labels)
    first = min(run.place.glob("*.mp4"))
    labels.write_text(f"{first.name},0\n")
    with pytest.raises(InputError, match=r"has no label for \d+ of \d+ clips"):
        run(labels=labels)
    with pytest.raises(UsageError, match="num_clips=0 must be at least 1"):
        run(num_clips=0)
    with pytest.raises(UsageError, match=r"top1=2.*no model could pass it"):
        run(gate="top1=2")
    with pytest.raises(CheckpointError, match=r"is not the checkpoint that .* was exported from"):
        run(checkpoint=str(_other_checkpoint(tmp_path)))
    assert not run.out.exists()
    shard, place = tmp_path / "a.tar", run.place
    with tarfile.open(shard, "w") as archive:
        archive.add(first, first.name)
    run.place = shard
    with pytest.raises(UsageError, match="num_clips=1 counts videos, and nobody has counted those in shards"):
        run(num_clips=1)
    run.place = place
    run()
    run.bundle = bundles.demo(precision="fp32")
    with pytest.raises(OutputError, match="holds the results of another bundle"):
        run()


def _other_checkpoint(folder: Path) -> Path:
    from vivit_export.demo import checkpoint_path

    other = Path(shutil.copytree(checkpoint_path(), folder / "other"))
    weights = next(other.glob("*.safetensors"))
    weights.chmod(0o644)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return other


def test_results_of_predictions_are_not_mixed_with_those_of_a_check(run: CheckRun) -> None:
    from vivit_export.datasets.predict import predict_dataset

    predict_dataset(run.bundle, [run.place], run.out, contract=run.bundle.contract, progress=Silent())
    with pytest.raises(OutputError, match="out holds the results of other options"):
        run()


def test_a_baseline_of_too_many_clips_is_refused_before_anything_runs(
    run: CheckRun, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.bundle = bundles.demo(precision="fp32", check=True)
    monkeypatch.setattr(checking, "MOST_LISTED", 2)
    with pytest.raises(UsageError, match="is compared clip by clip, of at most 2 clips, and there are 8; check on"):
        run(baseline=run.bundle.path / "report.json")
    assert not run.out.exists()


def test_preprocessing_is_compared_on_the_first_clips_that_can_be_used(run: CheckRun) -> None:
    for n in range(12):
        (run.place / f"0{n}.mp4").write_bytes(b"no video")
    report, summary = run()
    assert summary.faults == 12 and [parity.differing for parity in report.parity] == [0, 0]
    for n in range(70):
        (run.place / f"00{n}.mp4").write_bytes(b"no video")
    run.out, told = run.out.with_name("more"), Noted()
    report, _ = run(progress=told)
    assert not report.parity
    assert "preprocessing was not compared: none of the first videos could be used" in told.notes


def test_all_clips_unusable(run: CheckRun) -> None:
    for path in list(run.place.iterdir()):
        path.unlink()
        path.write_bytes(b"no video")
    with pytest.raises(ClipError, match=r"^none of \d+ clips could be used: .*mp4 .*; .*faults names them all$"):
        run()


def test_stages_are_told(run: CheckRun) -> None:
    told = Noted()
    run(progress=told)
    assert any("rounding" not in note and "on one process: ONNX Runtime" in note for note in told.notes)
