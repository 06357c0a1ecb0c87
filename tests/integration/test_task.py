"""What a head was trained for, from config.json to what ``vivit predict`` and ``vivit check`` say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Checkpoints
from command_line import Cli
from real_clips import real_clip
from transformers import VivitForVideoClassification

import vivit_export as ve
from vivit_export.contract import Task
from vivit_export.export.checkpoint.load import hugging_face_pixels

pytestmark = pytest.mark.needs_onnxruntime
QUICK = ("--engine", "onnxruntime-cpu", "-q")
NUM_LABELS: dict[Task, int] = {
    "single_label_classification": 5,
    "multi_label_classification": 5,
    "regression": 1,
}


@pytest.fixture(scope="module", params=NUM_LABELS)
def exported(
    request: pytest.FixtureRequest, checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Task, Path, Path]:
    task: Task = request.param
    # A regression of one value does not have to be named as one.
    stated = None if task == "regression" else task
    checkpoint = checkpoints.folder(problem_type=stated, num_labels=NUM_LABELS[task])
    bundle = tmp_path_factory.mktemp("task") / task
    ve.export_model(str(checkpoint), bundle, precision="fp16", targets=("onnx",), num_clips=3)
    return task, checkpoint, bundle


def test_predict_says_what_the_head_means(exported: tuple[Task, Path, Path], cli: Cli) -> None:
    task, checkpoint, bundle = exported
    path = real_clip("up_240x426_30fps.mp4")
    (line,) = cli("predict", bundle, path, "--json", *QUICK).stdout.splitlines()
    network = VivitForVideoClassification.from_pretrained(checkpoint).eval()
    contract = ve.read_bundle(bundle).contract
    assert contract.task == task
    pixels = hugging_face_pixels(contract.preprocess, ve.runtime.read_clip(path, contract))
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels)).logits[0].double()
    apply: dict[Task, Any] = {
        "single_label_classification": lambda: logits.softmax(-1),
        "multi_label_classification": lambda: logits.sigmoid(),
        "regression": lambda: logits,
    }
    expected = {f"LABEL_{i}": float(score) for i, score in enumerate(apply[task]())}
    key = "value" if task == "regression" else "probability"
    top = json.loads(line)["top"]
    assert {one["label"]: one[key] for one in top} == pytest.approx(expected, rel=1e-2)
    shown = cli("predict", bundle, path, *QUICK).stdout.splitlines()[1]
    assert shown.endswith(" %") == (task != "regression")


def test_check_measures_what_the_task_has(exported: tuple[Task, Path, Path], cli: Cli) -> None:
    task, _, bundle = exported
    drift = json.loads(cli("check", bundle, "--json", *QUICK).stdout)["runs"][0]["drift"]
    decided = {"single_label_classification": "top1", "multi_label_classification": "agreement", "regression": None}
    for name in ("top1", "agreement"):
        assert (drift[name] is not None) == (name == decided[task])
    shown = cli("check", bundle, *QUICK).stdout
    assert ("top-1 " in shown) == (task == "single_label_classification")
    assert ("labels 100.0 %" in shown) == (task == "multi_label_classification")
    refused = cli("check", bundle, "--gate", "top5=0.9", *QUICK, code=0 if task.startswith("single") else 2)
    if not task.startswith("single"):
        assert "--gate 'top5=0.9': this model has no top5, because of its task or outputs" in refused.stderr


def test_an_export_refuses_a_limit_on_what_is_not_measured(checkpoints: Checkpoints, tmp_path: Path, cli: Cli) -> None:
    folder = checkpoints.folder(problem_type="multi_label_classification")
    out = tmp_path / "out"
    refused = cli("export", folder, "-o", out, "--fp32", "--target", "onnx", "--gate", "top1=0.99", code=2)
    assert "this model has no top1" in refused.stderr
    assert not out.exists()
