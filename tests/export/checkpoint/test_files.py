"""Finding the files of a checkpoint: a folder, a hub id, or one sentence that says why neither."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from checkpoints import Checkpoints, refusal
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("vivit-export-tests/none", "cannot reach the hub for vivit-export-tests/none .* vivit-export demo"),
        ("no-such-model", "cannot reach the hub for no-such-model"),
        ("./no/such/folder", "./no/such/folder does not exist; give a checkpoint folder, a hub id"),
        ("a/b/c", "a/b/c does not exist"),
        ("checkpoint/", "checkpoint/ does not exist"),
        ("two words", "'two words' is neither a folder nor a valid hub id"),
        ("x" * 300, "'x{300}' is neither a folder nor a valid hub id"),
        ("~no-such-user/checkpoint", "~no-such-user/checkpoint does not exist"),
    ],
)
def test_a_model_that_is_nowhere(model: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.match(sentence, refusal(model))


@pytest.mark.field_case("Tune-A-Video 19")
def test_a_file_instead_of_a_folder(checkpoints: Checkpoints) -> None:
    path = checkpoints.folder() / WEIGHTS
    assert refusal(path) == f"{path} is a file; give the folder that holds config.json and model.safetensors"


def test_a_checkpoint_of_scenic_is_to_be_converted_first(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(b"\x81\xa6params\x80")
    assert refusal(path) == f"{path} is a file; if scenic wrote it, make a folder of it first: vivit convert scenic"


def test_a_revision_of_what_is_not_on_the_hub(checkpoints: Checkpoints) -> None:
    folder = checkpoints.folder()
    said = refusal(folder, revision="v2")
    assert said == f"{folder} is a local folder; revision=v2 applies to hub ids only"
    assert "revision=v2" in refusal("demo", revision="v2")


# --- folders that are not checkpoints, and what to give instead ----------------------------------


def test_a_trainers_folder_names_its_last_checkpoint(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (90, 500):
        checkpoints.copy(tmp_path / f"checkpoint-{step}")
    for name in ("checkpoint-1000", "checkpoint-best"):
        (tmp_path / name).mkdir()
    said = refusal(tmp_path)
    assert said == (
        f"{tmp_path} has no config.json, but 2 checkpoints in it; give the one to export, such as the last: "
        f"{tmp_path / 'checkpoint-500'}"
    )


@pytest.mark.parametrize("beside", [False, True])
def test_an_adapter_says_how_to_merge(checkpoints: Checkpoints, tmp_path: Path, beside: bool) -> None:
    folder = tmp_path / "lora"
    if beside:
        checkpoints.copy(folder)
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "google/vivit-b", "peft_type": "LORA"}')
    said = refusal(folder)
    assert re.search(r"holds an adapter .* its base model \(google/vivit-b\) .*merge_and_unload\(\)\.save_pre", said)
    assert said.endswith("if it is merged into these weights already, remove adapter_config.json") is beside
    (folder / "adapter_config.json").write_text("{")
    assert "load its base model as for the training" in refusal(folder)


def test_an_adapter_inside_of_the_weights(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "lora")
    query = "base_model.model.vivit.encoder.layer.0.attention.attention.query"
    state = {f"{query}.lora_A.default.weight": torch.zeros(2, 32), f"{query}.base_layer.weight": torch.zeros(32, 32)}
    save_file({**load_file(folder / WEIGHTS), **state}, folder / WEIGHTS)
    assert re.search(
        r"holds 2 weights of an adapter, the first is .*base_layer\.weight; merge it first", refusal(folder)
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "zero_to_fp32.py",
            "no model.safetensors, but zero_to_fp32.py, which is DeepSpeed's; run `python zero_to_fp32",
        ),
        ("pytorch_model_fsdp_0", "which is FSDP's; run `accelerate merge-weights"),
        ("flax_model.msgpack", "which is Flax's"),
        ("vivit.safetensors", "has no weights; .*; if vivit.safetensors holds them, give it that name"),
    ],
)
def test_weights_in_another_form(checkpoints: Checkpoints, tmp_path: Path, name: str, sentence: str) -> None:
    folder = checkpoints.copy(tmp_path / "training")
    (folder / WEIGHTS).rename(folder / name)
    assert re.search(sentence, refusal(folder))


@pytest.mark.field_case("modelexpress 217")
def test_a_folder_of_the_hubs_cache_names_its_snapshot(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = tmp_path / "models--owner--name"
    checkpoint = checkpoints.copy(folder / "snapshots" / "0a1b2c")
    assert refusal(folder) == f"{folder} has no config.json; give the snapshot to export: {checkpoint}"


@pytest.mark.field_case("transformers 27923")
def test_weights_that_git_lfs_has_not_fetched(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "clone")
    weights = folder / "model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 355\n")
    assert refusal(folder) == f"{weights} is a pointer of Git LFS, not the weights themselves; run git lfs pull"
