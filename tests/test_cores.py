"""How many cores a process may use, with control groups of every kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import Bundles, need
from control_groups import CASES, write_groups

from vivit_export import cores

MACHINE = 64


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with many cores whose control groups are the files that a test writes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(MACHINE)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: MACHINE)
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "_OWN_GROUPS", tmp_path / "own")
    return tmp_path


@pytest.mark.parametrize(("own", "files", "expected"), CASES)
def test_a_quota_counts(groups: Path, own: str, files: dict[str, str], expected: int | None) -> None:
    write_groups(groups, own, files)
    assert cores.usable_cores() == (expected or MACHINE)
    assert cores.is_restricted() == (expected is not None)


def test_a_machine_without_control_groups_has_its_cores(groups: Path) -> None:
    assert cores.usable_cores() == MACHINE and not cores.is_restricted()


def test_the_smaller_of_both_counts(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_groups(groups, "0::/\n", {"cpu.max": "800000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {3, 5}, raising=False)
    assert cores.usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")  # as on other systems
    assert cores.usable_cores() == 8


THREADS = """
import os, sys
from pathlib import Path
import numpy as np
import vivit_export as ve
from vivit_export import cores
cores._GROUPS, cores._OWN_GROUPS = Path(sys.argv[2]), Path(sys.argv[2], "own")
session = ve.open_session(sys.argv[1], prefer=sys.argv[3], self_test=False)
session.run(np.zeros((1, 8, 64, 64, 3), np.uint8))
print(cores.usable_cores(), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a machine with one core has no more threads")
@pytest.mark.parametrize("engine", ["onnxruntime-cpu", "openvino"])
@pytest.mark.field_case("onnxruntime 29510", "onnxruntime_backend 245")
def test_an_engine_starts_no_threads_for_cores_that_it_may_not_use(
    bundles: Bundles, tmp_path: Path, engine: str
) -> None:
    need(engine.removesuffix("-cpu"))
    (tmp_path / "own").write_text("0::/\n")
    threads = {}
    for quota in ("100000 100000", "max 100000"):
        (tmp_path / "cpu.max").write_text(quota)
        command = [sys.executable, "-c", THREADS, str(bundles.demo().path), str(tmp_path), engine]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
        usable, threads[quota] = map(int, done.stdout.split())
        assert (usable == 1) == (quota == "100000 100000")
    assert threads["100000 100000"] < threads["max 100000"]


WAITING = """
import os, sys
if sys.argv[1] == "ours":
    sys.argv = ["vivit", "inspect", "nothing"]
    from vivit_export.cli import vivit
    try:
        vivit()
    except SystemExit:
        pass
import torch
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch computes on GNU's OpenMP on Linux")
@pytest.mark.parametrize(
    ("who", "chosen", "spins"),
    [
        ("ours", {}, "1000"),
        ("nobody", {}, "300000"),
        ("ours", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("ours", {"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000"),
    ],
)
def test_threads_of_pytorch_sleep_soon_when_they_wait(who: str, chosen: dict[str, str], spins: str) -> None:
    need("torch")
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = {**kept, **chosen, "OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run([sys.executable, "-c", WAITING, who], capture_output=True, text=True, env=environment)
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
