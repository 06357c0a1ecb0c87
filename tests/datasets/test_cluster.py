"""Real Ray: rows of a run, and clusters that cannot be used."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import Bundles
from console import BIN
from ray_nodes import Nodes, nodes
from tables import read_table, single_process, without

from vivit_export.datasets.cluster import Cluster, choose_address
from vivit_export.errors import UsageError
from vivit_export.runtime.clips.folder import find_clips

pytestmark = pytest.mark.needs_onnxruntime


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes() as started:
        yield started


def vivit(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "vivit", *arguments], env=env, capture_output=True, text=True, timeout=400)


def test_a_run_on_a_cluster_gives_the_rows_of_a_single_process(
    bundles: Bundles, folder: Path, tmp_path: Path, cluster: Nodes
) -> None:
    bundle, out = bundles.demo(), tmp_path / "out"
    done = vivit("predict", bundle.path, folder, "--ray", "-o", out, "--json",
                 env={**cluster.env, "RAY_ADDRESS": cluster.address})  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 40 clips could not be used; ")
    assert f"1 engine on the Ray cluster at {cluster.address}: ONNX Runtime" in done.stderr
    rows, faults = single_process(bundle, find_clips(folder))
    assert without(read_table(out, "rows"), "clip", "window") == rows
    assert without(read_table(out, "faults"), "clip") == faults
    facts = json.loads(done.stdout)
    assert (facts["rows"], facts["faults"], facts["partitions"]) == (39, 1, 3)


def test_an_engine_that_cannot_be_opened_there_is_told(
    bundles: Bundles, folder: Path, tmp_path: Path, cluster: Nodes
) -> None:
    out = tmp_path / "out"
    arguments = ("predict", bundles.demo().path, folder, "--engine", "tensorrt", "-o", out)
    done = vivit(*arguments, "--ray", cluster.address, env=cluster.env)
    assert done.returncode == 7 and not done.stdout
    assert "error: tensorrt was requested but is not available: " in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()


def test_a_stranger_is_told_that_the_cluster_does_not_know_it(
    bundles: Bundles, folder: Path, tmp_path: Path, cluster: Nodes
) -> None:
    env = {**cluster.env, "RAY_AUTH_TOKEN": "0" * 32}
    done = vivit("predict", bundles.demo().path, folder, "--ray", cluster.address, "-o", tmp_path / "out", env=env)
    assert done.returncode == 7 and "Traceback" not in done.stderr, done.stderr
    assert f"error: the Ray cluster at {cluster.address} cannot be used: " in done.stderr


def test_a_cluster_of_another_version_is_refused(bundles: Bundles, folder: Path, tmp_path: Path) -> None:
    with nodes(version="2.9.0") as old:
        arguments = ("predict", bundles.demo().path, folder, "--ray", old.address, "-o", tmp_path / "out")
        done = vivit(*arguments, env=old.env)
    assert done.returncode == 7 and "Traceback" not in done.stderr, done.stderr
    assert f"error: the Ray cluster at {old.address} has Ray 2.9.0 on Python 3." in done.stderr


def test_a_cluster_that_is_not_there_is_told_at_once(bundles: Bundles, folder: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = vivit("predict", bundles.demo().path, folder, "-o", tmp_path / "out", "--ray", address)
    assert done.returncode == 7 and not done.stdout
    assert f"error: the Ray cluster at {address} cannot be reached: Connection refused; start it" in done.stderr


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose_address("") == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    assert choose_address("") == "10.0.0.5:6379"
    assert choose_address("local") == "local"
    assert choose_address("[::1]:6379") == "[::1]:6379"
    with pytest.raises(
        UsageError, match=r"'clips/' is no address .*; put ray after everything else, or write ray=local"
    ):
        choose_address("clips/")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match=r"'ray://head:10001' \(from RAY_ADDRESS\) is no address of a Ray cluster"):
        choose_address("")


class FakeRay:
    """Nodes with GPUs, one of which is gone."""

    def nodes(self) -> list[dict[str, object]]:
        alive = ({"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}, {"CPU": 8.0, "GPU": 1.0})
        return [{"Alive": True, "Resources": found} for found in alive] + [{"Alive": False, "Resources": {"GPU": 8.0}}]


@pytest.mark.parametrize(
    ("share", "device", "engines"),
    [(1.0, None, (3, 1.0)), (0.5, None, (6, 0.5)), (0.4, "cuda", (6, 0.4)), (1.0, "cpu", (3, 0.0))],
)
def test_engines_fill_the_gpus_or_take_one_machine_each(
    share: float, device: str | None, engines: tuple[int, float]
) -> None:
    assert Cluster(FakeRay(), "a cluster").engines(share, device) == engines
