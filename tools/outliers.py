"""Give a ViViT checkpoint the outlier channels and large biases that training leaves, without changing its function.

    python tools/make_checkpoint.py /tmp/vivit-b
    python tools/outliers.py /tmp/vivit-b /tmp/vivit-b-outliers

Random weights have neither, so a graph that is safe on them proves little: outlier channels round badly in
fp16 and use up the range of INT8 (LLM.int8, arXiv:2208.07339; SmoothQuant, arXiv:2211.10438). Here they are
made from symmetries of the network, whose blocks may be a factorised encoder's too. Logits before and after
are therefore equal in real arithmetic, and drift is measured against a known truth. Per block:

- *inputs of Q, K, V and of fc1*: gamma and beta of a LayerNorm channel times ``factor``, the next
  weights' columns divided by it;
- *input of the output projection*: rows of W_v and b_v times ``factor``, columns of W_o divided by it;
- *input of fc2*: an activation lets no factor through, so hidden units are added in pairs. Both
  compute ``activation(factor (w x + b))`` for an existing unit's w and b, and fc2 takes one with a
  column c and the other with -c. ``intermediate_size`` grows by two per channel;
- *biases*: softmax does not see the bias of K; what is added to the bias of V or to a LayerNorm's beta
  is taken off the bias behind it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import torch
from transformers import AutoModelForVideoClassification
from transformers.models.vivit.modeling_vivit import VivitLayer

from vivit_export import demo
from vivit_export.families.networks.vivit_factorised_modeling import register


@torch.no_grad()
def add_outliers(model: torch.nn.Module, *, factor: float = 30.0, num_channels: int = 8, seed: int = 0) -> None:
    """Make the inputs of every Linear of the encoder large in a few channels, in place.

    Args:
        model: of transformers' ViViT layers, of any dtype; its config follows ``intermediate_size``.
        factor: how much larger those channels become; a power of two makes the change exact in floating point too.
        num_channels: channels per Linear, the same in all blocks as in trained networks.
        seed: of the choice of channels.
    """
    generator = torch.Generator().manual_seed(seed)
    config: Any = model.config
    chosen = torch.randperm(config.hidden_size, generator=generator)[:num_channels]
    units = torch.randperm(config.intermediate_size, generator=generator)[:num_channels]
    for layer in _layers(model):
        attention = layer.attention
        for norm, linears in (
            (layer.layernorm_before, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (layer.layernorm_after, (layer.mlp.fc1,)),
        ):
            _scale(norm.weight, norm.bias, linears, chosen, factor)
        _scale(attention.v_proj.weight, attention.v_proj.bias, (attention.o_proj,), chosen, factor)
        add_cancelling_units(layer.mlp, units, factor)
    config.intermediate_size += 2 * num_channels


@torch.no_grad()
def add_large_biases(model: torch.nn.Module, *, size: float = 4.0, seed: int = 0) -> None:
    """Make K's bias, V's bias and LayerNorm's betas large, in place; the biases behind the last two make up for it.

    Args:
        model: a transformers ViViT of any dtype.
        size: standard deviation of what is added.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return size * torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    for layer in _layers(model):
        attention = layer.attention
        queries_keys_values = (attention.q_proj, attention.k_proj, attention.v_proj)
        if attention.k_proj.bias is not None:
            attention.k_proj.bias += noise(attention.k_proj.bias)
            _shift(attention.v_proj.bias, noise(attention.v_proj.bias), (attention.o_proj,))
            _shift(layer.layernorm_before.bias, noise(layer.layernorm_before.bias), queries_keys_values)
        _shift(layer.layernorm_after.bias, noise(layer.layernorm_after.bias), (layer.mlp.fc1,))


def _layers(model: torch.nn.Module) -> Iterator[Any]:
    yield from (module for module in model.modules() if isinstance(module, VivitLayer))


def _scale(
    weight: torch.Tensor, bias: torch.Tensor | None, readers: Iterable[Any], channels: torch.Tensor, factor: float
) -> None:
    """Multiply channels of what ``weight`` and ``bias`` put out, and divide the weights that read them."""
    weight[channels] *= factor
    if bias is not None:
        bias[channels] *= factor
    for linear in readers:
        linear.weight[:, channels] /= factor


def _shift(bias: torch.Tensor, by: torch.Tensor, readers: Iterable[Any]) -> None:
    """Add to a bias, and take off what that adds behind each Linear that reads it."""
    bias += by
    for linear in readers:
        linear.bias -= (linear.weight.double() @ by.double()).to(linear.bias)


def add_cancelling_units(mlp: Any, units: torch.Tensor, factor: float) -> None:
    """Add two units of the MLP for each of some, ``factor`` as large, that cancel in fc2; in place."""
    fc1, fc2 = mlp.fc1, mlp.fc2
    rows, offsets, columns = factor * fc1.weight[units], factor * fc1.bias[units], fc2.weight[:, units]
    fc1.weight = torch.nn.Parameter(torch.cat([fc1.weight, rows, rows]))
    fc1.bias = torch.nn.Parameter(torch.cat([fc1.bias, offsets, offsets]))
    fc2.weight = torch.nn.Parameter(torch.cat([fc2.weight, columns, -columns], dim=1))
    fc1.out_features = fc2.in_features = len(fc1.bias)


@click.command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--factor", default=30.0, show_default=True, help="How much larger the outlier channels become.")
@click.option("--channels", default=8, show_default=True, help="Outlier channels per Linear.")
@click.option("--biases", default=4.0, show_default=True, help="Standard deviation of the biases that are added.")
@click.option("--seed", default=0, show_default=True)
def main(source: str, out: Path, factor: float, channels: int, biases: float, seed: int) -> None:
    """Write checkpoint folder SOURCE (or "demo"), with outliers, to OUT."""
    folder = demo.checkpoint_path() if source == "demo" else Path(source)
    register()
    model = AutoModelForVideoClassification.from_pretrained(folder).eval()
    add_large_biases(model, size=biases, seed=seed)
    add_outliers(model, factor=factor, num_channels=channels, seed=seed)
    model.save_pretrained(out)
    shutil.copy(folder / "preprocessor_config.json", out)
    print(f"wrote {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
