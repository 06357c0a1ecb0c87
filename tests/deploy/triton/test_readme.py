"""The README of a deployed model: commands that work."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from made_bundle import make_bundle
from made_records import engine_record
from triton_repository import NAME, deploy, read_config

from vivit_export.bundle.engines import Profile
from vivit_export.deploy.triton.deploy import TritonOptions, deploy_triton
from vivit_export.deploy.wheel import wheel_name
from vivit_export.precision import Precision
from vivit_export.runtime.predict import adapt_contract


def test_the_readme_has_the_commands(tmp_path: Path) -> None:
    onnx = deploy(make_bundle(tmp_path / "a"), tmp_path / "onnx") / "README.md"
    assert "nvcr.io/nvidia/tritonserver:25.11-py3 tritonserver --model-repository=/models" in onnx.read_text()
    assert f"vivit predict triton://localhost:8001/{NAME} video.mp4" in onnx.read_text()
    plan = deploy(make_bundle(tmp_path / "b", {"tensorrt": engine_record()}), tmp_path / "plan") / "README.md"
    assert "image with TensorRT 11.4.0.106" in plan.read_text()
    assert "@" not in onnx.read_text() + plan.read_text()


def test_the_readme_has_the_order_of_loading_where_triton_does_not_know_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    one = deploy(bundle, tmp_path / "one", ensemble=True)
    views = adapt_contract(bundle.contract, stride=2, views=(4, 3))
    several = deploy(bundle, tmp_path / "several", ensemble=True, contract=views)
    order = f"With `--model-control-mode=explicit`, load `{NAME}` and then `{NAME}-video`."
    assert order not in (one / "README.md").read_text()
    assert order in (several / "README.md").read_text()


@pytest.mark.parametrize("precision", list(Precision))
def test_the_readme_knows_which_precisions_a_cpu_runs(tmp_path: Path, precision: Precision) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle.path / "bundle.json"
    path.write_text(path.read_text().replace('"name": "fp16"', f'"name": "{precision}"'))
    model = deploy(bundle, tmp_path / "r")
    said = " ".join((model / "README.md").read_text().split())
    assert ("Without a GPU leave `--gpus all` out, and Triton uses the CPU:" in said) == precision.cpu_kernels
    needs = f"The server needs a GPU: ONNX Runtime does not compute in {precision} on a CPU:"
    assert (needs in said) == (not precision.cpu_kernels)
    # And Triton says so itself where there is none.
    assert ("kind: KIND_GPU" in (model / "config.pbtxt").read_text()) == (not precision.cpu_kernels)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (Profile(1, 4, 8), "batches of 1, 4 and 8. The first batch of another size may take longer. The"),
        (Profile(1, 2, 3), "batches of 1, 2 and 3. The ports"),
        (Profile(1, 1, 16), "batches of 1 and 16. The first batch of another size may take longer. The"),
        (Profile(1, 1, 1), "batches of 1. The ports"),
    ],
)
def test_the_readme_says_which_batches_are_warmed_up(tmp_path: Path, profile: Profile, said: str) -> None:
    model = deploy(make_bundle(tmp_path / "b", {"tensorrt": engine_record(profiles=(profile,))}), tmp_path / "r")
    assert said in " ".join((model / "README.md").read_text().split())
    warmed_up = [sample.batch_size for sample in read_config(model).model_warmup]
    assert re.findall(r"\d+", said) == list(map(str, warmed_up))


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize(("engines", "tag"), [({}, "25.11-py3"), ({"tensorrt": engine_record()}, "11.4-py3")])
def test_the_start_line_is_one_that_a_shell_takes(
    tmp_path: Path, engines: dict[str, Any], tag: str, ensemble: bool
) -> None:
    """With a docker that writes down what it was told."""
    made = deploy_triton(make_bundle(tmp_path / "b", engines), tmp_path / "a b", TritonOptions(ensemble=ensemble))
    (start,) = re.findall(r"^```\n(.*?)^```$", made.readme.read_text(), re.DOTALL | re.MULTILINE)[:1]
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\n[ "$1" = build ] && cat\nprintf "%s|" "$@"\necho\n')
    docker.chmod(0o755)
    environment = {"PATH": f"{docker.parent}:{os.environ['PATH']}", "TAG": "11.4-py3"}
    done = subprocess.run(
        ["bash", "-euc", start], env=environment, cwd=made.path, capture_output=True, text=True, check=True, timeout=20
    )
    run = done.stdout.splitlines()[-1].split("|")
    assert f"{made.path}:/models:ro" in run
    image = run[run.index("tritonserver") - 1]
    assert run[run.index("tritonserver") + 1 :] == ["--model-repository=/models", "--disable-auto-complete-config", ""]
    if not ensemble:
        assert image == f"nvcr.io/nvidia/tritonserver:{tag}"
        return
    assert image == "vivit-triton"
    base, _, copy, install, told = done.stdout.splitlines()[:5]
    assert base == f"FROM nvcr.io/nvidia/tritonserver:{tag}"
    assert copy == f"COPY {wheel_name()} /tmp/"
    assert install == f"RUN pip install --no-cache-dir /tmp/{wheel_name()}"
    assert told == f"build|-t|vivit-triton|-f|-|{NAME}|"  # the last is the folder that COPY reads
    assert (made.path / NAME / wheel_name()).is_file()
