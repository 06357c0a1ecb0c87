"""Processes and machines that are killed in the middle of a run: afterwards every row is there, once.

Two `ray start` processes are two nodes on loopback. `benchmarks/ray_kills.py` does the same with 2,000 clips.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from bundles import Bundles
from console import BIN
from ray_nodes import Nodes, kill, nodes
from tables import Row, read_table, single_process, without

from vivit_export.bundle import Bundle
from vivit_export.runtime.clips.folder import find_clips

pytestmark = pytest.mark.needs_onnxruntime

CLIPS = 600
SECONDS = 400


@pytest.fixture(scope="module")
def many(few_videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to a few videos."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(CLIPS):
        (folder / f"{number:04}.mp4").hardlink_to(few_videos[number % len(few_videos)])
    return folder


@pytest.fixture(scope="module")
def expected(bundles: Bundles, many: Path) -> list[Row]:
    """What a single process says."""
    rows, faults = single_process(bundles.demo(), find_clips(many))
    assert len(rows) == CLIPS and not faults
    return rows


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes() as started:
        yield started


class Running:
    """A run on a cluster, watched from outside."""

    def __init__(self, bundle: Bundle, clips: Path, out: Path, cluster: Nodes) -> None:
        self.out = out
        command: list[str | Path] = [BIN / "vivit", "predict", bundle.path, clips, "--ray", cluster.address, "-o", out]
        self.process = subprocess.Popen(
            command, env=cluster.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_for(self, partitions: int) -> None:
        """Until so many are written."""
        deadline = time.monotonic() + SECONDS
        while len(list(self.out.glob("rows/part-*.parquet"))) < partitions:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert self.process.poll() is None, "it ended before it could be killed"

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said


def workers(cluster: Nodes, what: str) -> list[psutil.Process]:
    """Processes of Ray that do something now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if (
                what in " ".join(process.cmdline())
                and process.environ().get("RAY_AUTH_TOKEN") == cluster.env["RAY_AUTH_TOKEN"]
            ):
                found.append(process)
    return found


def rows_without_numbers(out: Path) -> list[Row]:
    return without(read_table(out, "rows"), "clip", "window")


def test_a_killed_worker_and_a_killed_driver_lose_nothing(
    bundles: Bundles, many: Path, expected: list[Row], tmp_path: Path, cluster: Nodes
) -> None:
    out = tmp_path / "out"
    first = Running(bundles.demo(), many, out, cluster)
    first.wait_for(2)
    (engine, *_) = workers(cluster, "_EngineActor")
    engine.kill()
    first.wait_for(5)
    first.process.kill()
    first.end()
    done = {path.name: path.stat().st_ino for path in out.glob("rows/*.parquet")}
    assert 5 <= len(done) < CLIPS // 15
    code, said = Running(bundles.demo(), many, out, cluster).end()
    assert code == 0, said
    assert rows_without_numbers(out) == expected
    assert {path.name: path.stat().st_ino for path in out.glob("rows/*.parquet")}.items() >= done.items()


def test_ctrl_c_leaves_whole_partitions(
    bundles: Bundles, many: Path, expected: list[Row], tmp_path: Path, cluster: Nodes
) -> None:
    out = tmp_path / "out"
    run = Running(bundles.demo(), many, out, cluster)
    run.wait_for(3)
    run.process.send_signal(signal.SIGINT)
    start = time.monotonic()
    code, said = run.end()
    assert code == 130, said
    assert time.monotonic() - start < 30  # on a busy machine; a few seconds else
    assert f"partitions are kept in {out}; the same command goes on with the others" in said
    assert "Traceback" not in said
    kept = rows_without_numbers(out)
    assert len(kept) % 15 == 0 and all(row in expected for row in kept)
    assert not list(out.rglob("*.part"))


def test_a_killed_node_loses_nothing(
    bundles: Bundles, many: Path, expected: list[Row], tmp_path: Path, cluster: Nodes
) -> None:
    out, second = tmp_path / "out", cluster.add("second")
    run = Running(bundles.demo(), many, out, cluster)
    run.wait_for(3)
    kill(second)
    code, said = run.end()
    assert code == 0, said
    assert "2 engines on the Ray cluster" in said
    assert rows_without_numbers(out) == expected
