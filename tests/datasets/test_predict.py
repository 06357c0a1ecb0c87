"""Runs in partitions, in one process: results, resuming, what is refused, and what a full disk or Ctrl-C leaves."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from bundles import Bundles
from one_process import use_none, use_one_process
from small_disk import MountDisk
from tables import read_table, single_process, without

from vivit_export.datasets.predict import predict_dataset
from vivit_export.datasets.runs import Summary
from vivit_export.datasets.work import Outcome
from vivit_export.errors import ClipError, EnvironmentFault, OutputError, UsageError
from vivit_export.progress import Silent
from vivit_export.runtime.clips.folder import find_clips
from vivit_export.runtime.clips.windows import WindowRule
from vivit_export.runtime.predict import adapt_contract

pytestmark = pytest.mark.needs_onnxruntime


@pytest.fixture
def run(bundles: Bundles, folder: Path, tmp_path: Path) -> Run:
    return Run(bundles, folder, tmp_path / "out")


class Run:
    def __init__(self, bundles: Bundles, folder: Path, out: Path) -> None:
        self.bundle, self.folder, self.out = bundles.demo(), folder, out

    def __call__(self, **options: object) -> Summary:
        given: dict[str, object] = {"contract": self.bundle.contract, "progress": Silent(), **options}
        return predict_dataset(self.bundle, [self.folder], self.out, **given)  # type: ignore[arg-type]

    def files(self) -> dict[str, tuple[int, int]]:
        """The tables, with what tells whether one was written again."""
        found = {path: path.stat() for path in self.out.rglob("part-*.parquet")}
        return {path.relative_to(self.out).as_posix(): (s.st_ino, s.st_mtime_ns) for path, s in found.items()}


def test_rows_are_those_of_a_single_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_process(monkeypatch)
    summary = run()
    rows, faults = single_process(run.bundle, find_clips(run.folder))
    found = read_table(run.out, "rows")
    assert without(found, "clip", "window") == rows
    assert [row["clip"] for row in found] == [n for n in range(40) if n != 17]
    assert without(read_table(run.out, "faults"), "clip") == faults
    assert (summary.rows, summary.faults, summary.partitions, summary.done_before) == (39, 1, 3, 0)
    with pytest.raises(ClipError, match="1 of 40 clips could not be used"):
        summary.require()


def test_a_shard_gives_the_rows_of_its_videos(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_process(monkeypatch)
    shards = tmp_path / "shards"
    shards.mkdir()
    files = find_clips(run.folder)
    for number, some in enumerate((files[:22], files[22:])):
        with tarfile.open(shards / f"{number}.tar", "w", dereference=True) as archive:
            for path in some:
                archive.add(path, path.name)
    rows, faults = single_process(run.bundle, files)
    run.folder = shards
    assert run().partitions == 2
    found = read_table(run.out, "rows")
    assert [Path(row["video"].partition("::")[2]).name for row in found] == [
        Path(str(row["video"])).name for row in rows
    ]
    assert without(found, "clip", "window", "video") == without(rows, "video")
    (fault,) = read_table(run.out, "faults")
    name = str(shards / "0.tar::017.mp4")
    assert fault["video"] == name and fault["sentence"] == str(faults[0]["sentence"]).replace(str(files[17]), name)


def test_windows_views_and_few_labels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_process(monkeypatch)
    windows, contract = WindowRule(8, 3, "frames"), adapt_contract(run.bundle.contract, short="repeat")
    run(windows=windows, contract=contract, top_k=2)
    rows, faults = single_process(run.bundle, find_clips(run.folder), contract=contract, windows=windows, top_k=2)
    assert len(rows) > 60
    assert without(read_table(run.out, "rows"), "clip", "window") == rows
    assert without(read_table(run.out, "faults"), "clip") == faults
    run.out = run.out.with_name("views")
    contract = adapt_contract(run.bundle.contract, stride=1, views=(2, 3))
    run(contract=contract)
    assert (
        without(read_table(run.out, "rows"), "clip", "window")
        == single_process(run.bundle, find_clips(run.folder), contract=contract)[0]
    )


def test_a_rerun_does_only_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(outcome: Outcome) -> None:
        if outcome.partition == 1:
            raise KeyboardInterrupt

    use_one_process(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"1 of 3 partitions are kept in .*out; the same command goes on"):
        run()
    (kept,) = run.files().items()
    assert json.loads((run.out / "run.json").read_text())["extent"]["done"] == 1
    (run.out / "rows" / ".part-000001.parquet.vivit-0123abcd.part").write_bytes(b"half")
    use_one_process(monkeypatch)
    summary = run()
    assert summary.done_before == 1 and run.files().items() >= {kept}
    assert sorted(p.name for p in (run.out / "rows").iterdir()) == [f"part-00000{n}.parquet" for n in range(3)]
    assert (
        without(read_table(run.out, "rows"), "clip", "window") == single_process(run.bundle, find_clips(run.folder))[0]
    )
    files = run.files()
    use_none(monkeypatch)  # a run that is complete needs no cluster
    assert run().done_before == 3 and run.files() == files


def test_other_work_into_the_same_folder_is_refused(
    run: Run, bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_one_process(monkeypatch)
    run()
    files = run.files()
    with pytest.raises(OutputError, match=r"out holds the results of other options"):
        run(top_k=1)
    (run.folder / "017.mp4").unlink()
    with pytest.raises(OutputError, match=r"out holds the results of other inputs"):
        run()
    (run.folder / "017.mp4").touch()
    run.bundle = bundles.demo(precision="fp16")
    with pytest.raises(
        OutputError, match=r"out holds the results of another bundle, .* choose another folder with out"
    ):
        run()
    assert run.files() == files
    run.out = tmp_path / "mine"
    run.out.mkdir()
    (run.out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="mine exists and holds no results of a run on Ray"):
        run()
    run.out = run.out / "notes.txt"
    with pytest.raises(OutputError, match=r"notes.txt exists and is not a folder"):
        run()


def test_a_table_of_another_run_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_process(monkeypatch)
    run()
    table = run.out / "rows" / "part-000001.parquet"
    run.out = tmp_path / "second"
    run(top_k=1)
    table.rename(run.out / "rows" / "part-000001.parquet")
    with pytest.raises(OutputError, match=r"part-000001\.parquet is of another run; remove it"):
        run(top_k=1)


def test_a_full_disk_leaves_whole_partitions(run: Run, small_disk: MountDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_process(monkeypatch)
    run.out = small_disk(24) / "out"
    with pytest.raises(OutputError, match=r"the disk is full; .*; 1 of 3 partitions are kept in .*out"):
        run()
    assert run.files().keys() == {"rows/part-000000.parquet"}
    assert len(read_table(run.out, "rows")) == 15


def test_an_engine_that_fails_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_process(monkeypatch)
    with pytest.raises(EnvironmentFault, match="tensorrt was requested but is not available"):
        run(engine="tensorrt")
    assert not run.out.exists()


def test_nothing_to_run_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_process(monkeypatch)
    run.folder = tmp_path / "empty"
    run.folder.mkdir()
    with pytest.raises(ClipError, match="empty holds no video"):
        run()
    with pytest.raises(UsageError, match="gpu_share=0 must be above 0"):
        run(gpu_share=0)
    assert not run.out.exists()


def test_all_clips_unreadable_are_all_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_process(monkeypatch)
    for path in run.folder.iterdir():
        path.unlink()
        path.write_bytes(b"no video")
    summary = run()
    assert (summary.rows, summary.faults) == (0, 40)
    assert not read_table(run.out, "rows") and len(read_table(run.out, "faults")) == 40
    with pytest.raises(ClipError, match="40 of 40 clips could not be used"):
        summary.require()
