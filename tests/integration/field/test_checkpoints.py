"""Checkpoints of the field cases (docs/field-cases.md), as others save them: the same results, or a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers
from checkpoints import Checkpoints, assert_as_hugging_face, edit_config, normal_pixels, refusal
from linked_bundles import link
from safetensors.torch import load_file, save_file

from vivit_export.export.checkpoint.load import load_checkpoint
from vivit_export.runtime import Preprocessor

WEIGHTS = "model.safetensors"


def without_a_format(folder: Path) -> Path:
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)  # no metadata at all
    return folder


def not_contiguous_when_saved(folder: Path) -> Path:
    network = transformers.VivitForVideoClassification.from_pretrained(folder)
    weight = network.classifier.weight
    weight.data = weight.data.T.contiguous().T
    assert not weight.is_contiguous()
    network.save_pretrained(folder)
    return folder


def beside_what_a_trainer_leaves(folder: Path) -> Path:
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "README.md"):
        (folder / name).write_bytes(b"not to be read")
    (folder / "trainer_state.json").write_text('{"global_step": 500}')
    return folder


def in_the_hubs_cache(folder: Path) -> Path:
    return link(folder, folder.with_name("hub"), "hub cache")


SAVED: dict[str, Callable[[Path], Path]] = {
    "mlx 743": without_a_format,
    "transformers 32422": not_contiguous_when_saved,
    "PPLLaVA 2": beside_what_a_trainer_leaves,
    "spark-dashboard 113": in_the_hubs_cache,
}


@pytest.mark.parametrize(
    "change", [pytest.param(change, id=case, marks=pytest.mark.field_case(case)) for case, change in SAVED.items()]
)
def test_the_results_are_those_of_the_original(
    checkpoints: Checkpoints, tmp_path: Path, change: Callable[[Path], Path]
) -> None:
    original = checkpoints.load()
    loaded = load_checkpoint(str(change(checkpoints.copy(tmp_path / "checkpoint"))))
    pixels = normal_pixels(original, 2)
    found, expected = loaded.run_eager(pixels), original.run_eager(pixels)
    for name, array in expected.items():
        # Where memory lies decides which kernels PyTorch takes, and so the last bit.
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6 * float(np.ptp(array)))
    assert_as_hugging_face(found, checkpoints.folder(), pixels)


@pytest.mark.field_case("candle 1888")
def test_layernorm_in_tensorflows_words(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "checkpoint")
    words = {"layernorm.weight": "layernorm.gamma", "layernorm.bias": "layernorm.beta"}
    state = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        ending = next((word for word in words if name.endswith(f"vivit.{word}")), None)
        state[name.removesuffix(ending) + words[ending] if ending else name] = tensor
    assert any(name.endswith("gamma") for name in state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    assert re.search(r"lacks 2 of the model's weights, .* they would be random", refusal(folder))


@pytest.mark.field_case("mae_st 8")
def test_a_tubelet_that_is_not_that_of_the_weights(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "checkpoint")
    edit_config(folder, tubelet_size=[1, 8, 8])
    assert "has shape [32, 3, 2, 8, 8] but config.json implies [32, 3, 1, 8, 8]" in refusal(folder)


@pytest.mark.field_case("vjepa2 73")
def test_a_short_edge_that_is_the_crop(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoints.copy(tmp_path / "checkpoint")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    processor |= {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    frames = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), dtype=np.uint8)
    theirs = transformers.VivitImageProcessor.from_pretrained(folder)(list(frames), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(Preprocessor.from_pretrained(folder)(frames), theirs)


@pytest.mark.field_case("optimum 2380", "mteb 5094")
@pytest.mark.parametrize("kind", ["bert", "vivit_like", "x3d"])
def test_a_model_of_no_family_is_named(checkpoints: Checkpoints, tmp_path: Path, kind: str) -> None:
    folder = checkpoints.copy(tmp_path / "checkpoint")
    edit_config(folder, model_type=kind)
    assert f"is a {kind} checkpoint; vivit-export takes model_type vivit, " in refusal(folder)
