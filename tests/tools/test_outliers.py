"""Outlier checkpoints compute the same function, and their Linears do see outliers."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import family_checkpoints
import pytest
import torch
from checkpoints import Checkpoints, normal_pixels, outliers
from click.testing import CliRunner
from transformers import AutoModelForVideoClassification, VivitForVideoClassification, VivitModel

from vivit_export.families.networks.vivit_factorised_modeling import register

LINEARS = ("attention.q_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2")
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"num_hidden_layers": 2},
    "no-qkv-bias": {"qkv_bias": False},
    "relu": {"hidden_act": "relu"},
    "gelu": {"hidden_act": "gelu"},
}

add_outliers = partial(outliers.add_outliers, num_channels=2)
add_large_biases = outliers.add_large_biases


def load(folder: Path) -> Any:
    return VivitForVideoClassification.from_pretrained(folder, dtype=torch.float64).eval()


@torch.inference_mode()
def logits_and_peaks(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and the largest magnitude that each channel of a Linear's input takes."""
    peaks: dict[str, torch.Tensor] = {}

    def note(name: str, _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        peaks[name] = inputs[0].abs().flatten(0, -2).amax(0)

    for i, layer in enumerate(model.vivit.layers):
        for name in LINEARS:
            layer.get_submodule(name).register_forward_pre_hook(partial(note, f"{i}.{name}"))
    return model(pixels).logits, peaks


@pytest.mark.parametrize("change", [add_outliers, add_large_biases], ids=["outliers", "biases"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_function_is_unchanged(checkpoints: Checkpoints, network: str, change: Callable[[Any], None]) -> None:
    folder = checkpoints.folder(**NETWORKS[network])
    pixels = torch.from_numpy(normal_pixels(checkpoints.load(**NETWORKS[network]), 2)).double()
    before, changed = load(folder), load(folder)
    change(changed)
    expected, peaks = logits_and_peaks(before, pixels)
    got, new_peaks = logits_and_peaks(changed, pixels)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    assert all(new_peaks[name].max() > 2 * peaks[name].max() for name in peaks if "fc1" in name), "nothing was changed"


@pytest.mark.parametrize("change", [add_outliers, add_large_biases], ids=["outliers", "biases"])
@pytest.mark.parametrize("case", family_checkpoints.CASES)
def test_the_function_of_every_family_is_unchanged(case: str, change: Callable[[Any], None]) -> None:
    register()
    load_one = partial(AutoModelForVideoClassification.from_pretrained, family_checkpoints.folder(case))
    before, changed = load_one(dtype=torch.float64).eval(), load_one(dtype=torch.float64).eval()
    pixels = torch.from_numpy(normal_pixels(family_checkpoints.loaded(case), 2)).double()
    change(changed)
    with torch.inference_mode():
        torch.testing.assert_close(changed(pixels).logits, before(pixels).logits, rtol=0, atol=1e-9)
    weights = zip(before.parameters(), changed.parameters(), strict=True)
    new = sum(a.shape != b.shape or not torch.equal(a, b) for a, b in weights)
    assert new >= 2 * family_checkpoints.loaded(case).anatomy.num_blocks


def test_few_channels_of_every_linear_are_large(checkpoints: Checkpoints) -> None:
    fields = NETWORKS["plain"]
    pixels = torch.from_numpy(normal_pixels(checkpoints.load(**fields), 2)).double()
    before, changed = load(checkpoints.folder(**fields)), load(checkpoints.folder(**fields))
    add_outliers(changed)
    _, peaks = logits_and_peaks(before, pixels)
    _, new_peaks = logits_and_peaks(changed, pixels)
    for name, old in peaks.items():
        new = new_peaks[name]
        if "fc2" in name:
            units, added = new[: len(old)], new[len(old) :]
            torch.testing.assert_close(units, old)
            # The activation lets through what is positive: x30 there, in pairs.
            torch.testing.assert_close(added[:2], added[2:])
            assert added.max() > 10 * old.median()
        else:
            ratio = new / old
            expected = torch.where(ratio > 10, 30.0, 1.0).to(ratio)
            torch.testing.assert_close(ratio, expected, rtol=1e-9, atol=0)
            assert (expected > 1).sum() == 2, name


def test_a_power_of_two_is_exact_in_float32_too(checkpoints: Checkpoints) -> None:
    model = VivitForVideoClassification.from_pretrained(checkpoints.folder()).eval()
    before = model.vivit.layers[0].attention.q_proj.weight.detach().clone()
    add_outliers(model, factor=32.0)
    ratio = before / model.vivit.layers[0].attention.q_proj.weight
    assert set(ratio.detach().flatten().tolist()) == {1.0, 32.0}


def test_a_model_without_head_is_taken_too(checkpoints: Checkpoints) -> None:
    model = VivitModel.from_pretrained(checkpoints.folder(headless=True)).eval()
    width = model.config.intermediate_size
    add_outliers(model)
    assert model.config.intermediate_size == model.layers[0].mlp.fc1.out_features == width + 4


def test_the_tool_writes_a_checkpoint_that_loads(checkpoints: Checkpoints, tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = checkpoints.folder()
    done = CliRunner().invoke(outliers.main, [str(source), str(out), "--channels", "4"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads((out / "config.json").read_text())["intermediate_size"] == 48 + 8
    pixels = torch.from_numpy(normal_pixels(checkpoints.load(), 2)).double()
    # Written in float32: betas of 4 and weights of x30 leave so much of it.
    torch.testing.assert_close(load(out)(pixels).logits, load(source)(pixels).logits, rtol=0, atol=2e-5)
