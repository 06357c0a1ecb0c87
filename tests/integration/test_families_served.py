"""Every model family behind a real tritonserver: the logits, drift and predictions of this process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bundles import need
from capabilities import fetched
from family_checkpoints import folder
from triton_server import TritonServer, make_backends, running

import vivit_export as ve
from vivit_export.bundle import Bundle
from vivit_export.demo import clips_path
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.runtime import VideoPrediction, predict_videos

CASES = ("encoder", "videomae", "timesformer", "vjepa2")
pytestmark = pytest.mark.needs_onnxruntime


@dataclass(frozen=True)
class Families:
    """A running server, and the bundle of each of its models."""

    server: TritonServer
    bundles: dict[str, Bundle]
    repository: Path


@contextmanager
def serve(place: Path) -> Iterator[Families]:
    need("tritonclient")
    installed, repository = fetched("fetch_triton.py", "tritonserver"), place / "repository"
    bundles = {}
    for case in CASES:
        bundles[case] = ve.export_model(folder(case), place / case, precision="fp32", targets=("onnx",), num_clips=1)
        deploy_triton(bundles[case], repository, TritonOptions(name=case, ensemble=True))
    server = TritonServer(installed, make_backends(installed, place / "backends"), [repository], place)
    with running(server):
        yield Families(server, bundles, repository)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Families]:
    """All families in one repository."""
    with serve(tmp_path_factory.mktemp("families")) as served:
        yield served


@pytest.mark.parametrize("case", CASES)
def test_a_served_family_answers_as_here(families: Families, case: str) -> None:
    bundle, url = families.bundles[case], families.server.url(case)
    shape = tuple(map(int, bundle.contract.io.inputs[0].shape[1:]))
    clips = np.random.default_rng(5).integers(0, 256, (3, *shape), np.uint8)
    with ve.open_session(bundle.path, prefer="onnxruntime-cpu") as here, ve.open_session(url) as there:
        expected, found = here.run(clips), there.run(clips)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
        videos = sorted(clips_path().glob("*.mp4"))[:2]
        local = list(predict_videos(here, videos))
    report = ve.check(bundle, engine=url)
    assert report.passed and all(case in run.engine for run in report.runs if run.gated)
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            families.repository / case / "check.py",
            f"http://127.0.0.1:{families.server.http}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("batch 1: ")
    command: list[str | Path] = [
        Path(sys.executable).parent / "vivit",
        "predict",
        families.server.url(f"{case}-video"),
        *videos,
        "--json",
    ]
    sent = subprocess.run(command, capture_output=True, text=True, check=True)
    labels = [line.split('"label": "')[1].split('"')[0] for line in sent.stdout.splitlines()]
    assert labels == [p.prediction.top(1)[0][0] for p in local if isinstance(p, VideoPrediction)]
