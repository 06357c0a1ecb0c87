"""Finding the files of a checkpoint: a folder, a hub id, or one sentence that says why neither."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkpoints import Checkpoints, refusal

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


def test_a_file_instead_of_a_folder(checkpoints: Checkpoints) -> None:
    path = checkpoints.folder() / WEIGHTS
    assert refusal(path) == f"{path} is a file; give the folder that holds config.json and model.safetensors"


def test_a_revision_of_what_is_not_on_the_hub(checkpoints: Checkpoints) -> None:
    folder = checkpoints.folder()
    said = refusal(folder, revision="v2")
    assert said == f"{folder} is a local folder; revision=v2 applies to hub ids only"
    assert "revision=v2" in refusal("demo", revision="v2")
