"""The check in a model repository: its figures, and a real tritonserver right, wrong, and gone."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Bundles, add_plan
from made_bundle import make_bundle
from stand_in_engine import damaged
from triton_repository import deploy
from triton_server import Served, TritonServer, executions, running

from vivit_export.bundle.checks import Gate
from vivit_export.deploy.triton import golden_check
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.deploy.triton.golden_check import Golden, measure, violations, worst
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.per_clip import scale_of

RNG = np.random.default_rng(0)


def golden(**changes: Any) -> Golden:
    made: Any = {
        "model": "m", "input": "frames", "datatype": "UINT8", "shape": [1], "batches": [1, 2],
        "outputs": {"logits": [1.0, -2.0, 0.5], "embedding": [0.25, 4.0]}, "span": 8.0,
        "limits": {"max": 0.01, "cosine": 0.999, "embedding_cosine": 0.99, "nonfinite": 0.0},
    }  # fmt: skip
    return made | changes  # type: ignore[no-any-return]


def test_the_figures_are_those_of_a_check() -> None:
    logits, embedding = RNG.normal(size=(5, 7)).astype(np.float32), RNG.normal(size=(5, 9)).astype(np.float32)
    reference = {"logits": logits, "embedding": embedding}
    ours = {name: rows.copy() for name, rows in reference.items()}
    ours["logits"][0] += RNG.normal(size=7).astype(np.float32) / 9
    ours["embedding"][0] *= np.linspace(0.5, 2, 9, dtype=np.float32)
    expected = compare(reference, ours)
    span = scale_of(logits.astype(np.float64))
    told = golden(outputs={name: rows[0].tolist() for name, rows in reference.items()}, span=span)
    found = measure(told, {name: rows[0].tolist() for name, rows in ours.items()})
    assert found.keys() == set(golden_check.LIMITS)
    for name, figure in found.items():
        assert figure == pytest.approx(getattr(expected, name), rel=1e-5), name
    limits = {"max": 0.01, "embedding_cosine": 0.999, "nonfinite": 0.0}
    assert violations(limits, found) == Gate(limits).violations(expected) != []


def test_what_is_no_number_is_the_worst() -> None:
    rows: list[Any] = [golden()["outputs"], {"logits": [1.0, math.nan, 0.5], "embedding": [0.25, 4.0]}]
    figures = worst([measure(golden(), row) for row in rows])
    assert figures["nonfinite"] == 1
    assert violations(golden()["limits"], figures) == [
        "max nan is above 0.01",
        "cosine nan is below 0.999",
        "nonfinite 1 is above 0",
    ]


def test_what_a_repository_gets(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "a")
    model = deploy(bundle, tmp_path / "r")
    facts = json.loads((model / "check.json").read_text())
    assert (facts["input"], facts["datatype"], facts["shape"]) == ("frames", "UINT8", [32, 224, 224, 3])
    assert facts["batches"] == [1, 4, 8]
    assert facts["outputs"].keys() == {"logits", "embedding"}
    assert facts["limits"] == {"max": 1}
    assert (model / "check.py").read_bytes() == Path(golden_check.__file__).read_bytes()
    assert f"python3 {model.name}/check.py" in (model / "README.md").read_text()
    without = deploy(make_bundle(tmp_path / "b", golden=False), tmp_path / "s")
    assert not (without / "check.json").exists()
    assert "check.py" not in (without / "README.md").read_text()


def run_readme(model: Path, *address: str) -> subprocess.CompletedProcess[str]:
    """Run the README's command where it says, in a Python without anything installed."""
    (command,) = re.findall(r"^(python3 \S+/check\.py)", (model / "README.md").read_text(), re.MULTILINE)
    program, script = command.split()
    assert program == "python3"
    return subprocess.run(
        [sys.executable, "-I", "-S", script, *address], cwd=model.parent, capture_output=True, text=True, check=False
    )


def test_a_server_that_answers_rightly_passes_at_every_batch(served: Served) -> None:
    for repository, name in ((served.repositories[0], "demo"), (served.repositories[-1], "plan")):
        before = executions(served.server, name)
        done = run_readme(repository / name, f"http://127.0.0.1:{served.server.http}/")
        assert (done.returncode, done.stderr) == (0, "")
        sizes = json.loads((repository / name / "check.json").read_text())["batches"]
        assert [line.split(":")[0] for line in done.stdout.splitlines()] == [f"batch {size}" for size in sizes]
        first = r"batch 1: cosine [01][\d.]*, embedding_cosine .*, max .*, nonfinite 0\n"
        assert re.match(first, done.stdout)
        after = executions(served.server, name)
        assert all(after[size] > before.get(size, 0) for size in sizes)


def test_a_server_that_computes_wrongly_or_not_at_all_fails(served: Served, bundles: Bundles, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(served.bundle.path, tmp_path / "bundle"))
    planned = add_plan(
        folder, "sm90", damaged(served.bundle.model.read_bytes()), profiles=[{"min": 1, "opt": 2, "max": 4}]
    )
    model = deploy_triton(planned, tmp_path / "r", TritonOptions(name="wrong")).path / "wrong"
    (tmp_path / "server").mkdir()
    server = TritonServer(served.installed, served.backends, [tmp_path / "r"], tmp_path / "server")
    address = f"http://127.0.0.1:{server.http}"
    with running(server):
        done = run_readme(model, address)
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.startswith(f"error: wrong at {address} computes wrongly at batch 1: ")
        assert re.search(r"max [\d.]+ is above 0\.0001; ", done.stderr)
        (other,) = (repository / "demo" for repository in served.repositories if (repository / "demo").is_dir())
        done = run_readme(other, address)
        assert done.returncode == 7
        assert "did not answer a batch of 1: 404, " in done.stderr or ": 400, " in done.stderr
    done = run_readme(model, address)
    assert done.returncode == 7
    assert done.stderr.startswith(f"error: wrong at {address} did not answer a batch of 1: ")
    assert "Traceback" not in done.stderr
