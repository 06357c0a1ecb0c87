"""What is refused about a checkpoint before torch is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from checkpoints import Checkpoints, edit_config
from transformers import VivitConfig, VivitForVideoClassification

import vivit_export as ve
from vivit_export.errors import CheckpointError, UsageError
from vivit_export.export.checkpoint.preview import name_of, preview_checkpoint


@pytest.fixture
def folder(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return checkpoints.copy(tmp_path / "checkpoint")


def test_a_checkpoint_passes(folder: Path) -> None:
    preview_checkpoint(str(folder))
    preview_checkpoint("demo")


def test_of_a_model_on_the_hub_only_the_json_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, bool]] = []

    def download(model: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((model, revision, any("safetensors" in pattern for pattern in allow_patterns)))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (folder / "model.safetensors").unlink()
    preview_checkpoint("owner/name", revision="main")
    assert asked == [("owner/name", "main", False)]
    edit_config(folder, model_type="bert")
    with pytest.raises(CheckpointError, match="is a bert checkpoint"):
        preview_checkpoint("owner/name")


@pytest.mark.parametrize("model", ["two words", "x" * 300, "owner/na:me", "no-such-model"])
def test_what_cannot_be_a_model_is_refused_without_torch(model: str, tmp_path: Path) -> None:
    code = f"""
    import sys
    sys.modules["torch"] = sys.modules["transformers"] = None  # any import of them now fails
    from vivit_export.cli import vivit
    vivit(["export", "--target", "onnx", "-o", "out", {model!r}])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "is neither a folder nor a valid hub id" in done.stderr or "cannot reach the hub" in done.stderr


DAMAGE: dict[str, Callable[[Path], object]] = {
    "is a bert checkpoint": lambda folder: edit_config(folder, model_type="bert"),
    "has no config.json": lambda folder: (folder / "config.json").unlink(),
    "cannot be read as JSON": lambda folder: (folder / "config.json").write_text("{"),
    "hidden_size=100 does not divide": lambda folder: edit_config(folder, hidden_size=100, num_attention_heads=3),
    r"layer_norm_eps must be a finite number, 0 or more, got -1e-06": lambda folder: edit_config(
        folder, layer_norm_eps=-1e-6
    ),
    "layer_norm_eps must be a finite number, 0 or more, got nan": lambda folder: edit_config(
        folder, layer_norm_eps=float("nan")
    ),
    "layer_norm_eps must be a finite number, 0 or more, got '1'": lambda folder: edit_config(
        folder, layer_norm_eps="1"
    ),
    "has no preprocessor_config.json": lambda folder: (folder / "preprocessor_config.json").unlink(),
    "has no weights": lambda folder: (folder / "model.safetensors").unlink(),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_what_its_files_show_is_refused(folder: Path, said: str) -> None:
    DAMAGE[said](folder)
    with pytest.raises(CheckpointError, match=said):
        preview_checkpoint(str(folder))


@pytest.mark.parametrize("verb", [["export", "--target", "onnx"], ["calibrate", "--calibration-data", "."]])
def test_the_command_line_refuses_it_without_torch(tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    code = f"""
    import sys
    sys.modules["torch"] = sys.modules["transformers"] = None  # any import of them now fails
    from vivit_export.cli import vivit
    vivit([*{verb!r}, {str(tmp_path)!r}])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    families = "vivit, vivit_factorised, videomae, timesformer, vjepa2"
    said = f"error: {tmp_path} is a bert checkpoint; vivit-export takes model_type {families}\n"
    assert (done.returncode, done.stderr) == (3, said)


def test_a_name_may_be_a_path(folder: Path) -> None:
    assert name_of(folder) == str(folder)
    assert name_of("owner/name") == "owner/name"


def test_a_network_in_memory_is_refused_in_a_sentence(tmp_path: Path) -> None:
    network = VivitForVideoClassification(VivitConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(UsageError) as e:
        name_of(network)
    assert str(e.value) == (
        "model must be a folder or a hub id, got a VivitForVideoClassification in memory; write it with "
        "model.save_pretrained(folder), its processor too, and give the folder"
    )
    for use in (ve.export_model, ve.calibrate):
        with pytest.raises(UsageError, match=r"^model is in memory, so processor is needed too"):
            use(network, tmp_path / "out")
    with pytest.raises(UsageError, match="model must be a path, got dict; give a string or a Path"):
        name_of({})
    assert not (tmp_path / "out").exists()
