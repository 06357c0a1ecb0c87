"""Give a checkpoint of any family the outlier channels and large biases that training leaves; its function stays.

    python tools/make_checkpoint.py /tmp/vivit-b
    python tools/outliers.py /tmp/vivit-b /tmp/vivit-b-outliers

Random weights have neither, so a graph that is safe on them proves little: outlier channels round badly in
fp16 and use up the range of INT8 (LLM.int8, arXiv:2208.07339; SmoothQuant, arXiv:2211.10438). Here they are
made from symmetries of the network. Logits before and after are therefore equal in real arithmetic, and drift is
measured against a known truth. Per block:

- *inputs of Q, K, V and of fc1*: gamma and beta of a LayerNorm channel times ``factor``, the next
  weights' columns divided by it;
- *input of the output projection*: rows of W_v and b_v times ``factor``, columns of W_o divided by it;
- *input of fc2*: an activation lets no factor through, so hidden units are added in pairs. Both
  compute ``activation(factor (w x + b))`` for an existing unit's w and b, and fc2 takes one with a
  column c and the other with -c. ``intermediate_size`` grows by two per channel (but not in V-JEPA 2's pooler,
  whose MLPs have a fixed width);
- *biases*: softmax does not see the bias of K (unless K is rotated, as V-JEPA 2's is); what is added to the bias of V
  or to a LayerNorm's beta is taken off the bias behind it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from transformers import AutoModelForVideoClassification

from vivit_export import demo
from vivit_export.families.networks.vivit_factorised_modeling import register


@dataclass(frozen=True)
class _Attention:
    """A LayerNorm, the Linears that read it, the bias of K, weight and bias of V, and the Linear after attention.

    The biases are None if there are none; that of K also if it is rotated.
    """

    norm: Any
    readers: tuple[Any, ...]
    key_bias: torch.Tensor | None
    value: tuple[torch.Tensor, torch.Tensor | None]
    output: Any


@dataclass(frozen=True)
class _Mlp:
    """A LayerNorm and the two Linears after it; whether the first may become wider."""

    norm: Any
    fc1: Any
    fc2: Any
    grows: bool = True


@dataclass(frozen=True)
class _Block:
    """The attentions of a block, in order, and its MLP."""

    attentions: tuple[_Attention, ...]
    mlp: _Mlp


@torch.no_grad()
def add_outliers(model: torch.nn.Module, *, factor: float = 30.0, num_channels: int = 8, seed: int = 0) -> None:
    """Make the inputs of every Linear of the encoder large in a few channels, in place.

    Args:
        model: of any family, of any dtype; its config follows the width of its MLPs.
        factor: how much larger those channels become; a power of two makes the change exact in floating point too.
        num_channels: channels per Linear, the same in all blocks as in trained networks.
        seed: of the choice of channels.
    """
    generator = torch.Generator().manual_seed(seed)
    config: Any = model.config
    width = next(block.mlp.fc1.out_features for block in _blocks(model))
    chosen = torch.randperm(config.hidden_size, generator=generator)[:num_channels]
    units = torch.randperm(width, generator=generator)[:num_channels]
    for block in _blocks(model):
        for attention in block.attentions:
            _scale(attention.norm.weight, attention.norm.bias, attention.readers, chosen, factor)
            _scale(*attention.value, (attention.output,), chosen, factor)
        mlp = block.mlp
        _scale(mlp.norm.weight, mlp.norm.bias, (mlp.fc1,), chosen, factor)
        if mlp.grows:
            add_cancelling_units(mlp, units, factor)
    if hasattr(config, "intermediate_size"):
        config.intermediate_size += 2 * num_channels
    else:
        config.mlp_ratio = (width + 2 * num_channels) / config.hidden_size


@torch.no_grad()
def add_large_biases(model: torch.nn.Module, *, size: float = 4.0, seed: int = 0) -> None:
    """Make K's bias, V's bias and LayerNorm's betas large, in place; the biases behind the last two make up for it.

    Args:
        model: of any family, of any dtype.
        size: standard deviation of what is added.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return size * torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    for block in _blocks(model):
        for attention in block.attentions:
            key_bias, value_bias = attention.key_bias, attention.value[1]
            if key_bias is not None:
                key_bias += noise(key_bias)
            if value_bias is not None:
                _shift(value_bias, noise(value_bias), (attention.output,))
            if all(reader.bias is not None for reader in attention.readers):
                _shift(attention.norm.bias, noise(attention.norm.bias), attention.readers)
        _shift(block.mlp.norm.bias, noise(block.mlp.norm.bias), (block.mlp.fc1,))


def _blocks(model: torch.nn.Module) -> Iterator[_Block]:
    """Yield the blocks of a network in order, but none of V-JEPA 2's predictor, which never runs."""
    for name, layer in model.named_modules():
        kind = type(layer).__name__
        if kind in _KINDS and "predictor" not in name.split("."):
            yield _KINDS[kind](layer)


def _vivit(layer: Any) -> _Block:
    attention = layer.attention
    parts = _split(layer.layernorm_before, (attention.q_proj, attention.k_proj, attention.v_proj), attention.o_proj)
    return _Block((parts,), _Mlp(layer.layernorm_after, layer.mlp.fc1, layer.mlp.fc2))


def _self_attention(layer: Any) -> _Block:
    parts = []
    for norm, attention in (
        (layer.temporal_layernorm, layer.temporal_attention),
        (layer.spatial_layernorm, layer.spatial_attention),
    ):
        parts.append(_split(norm, (attention.q_proj, attention.k_proj, attention.v_proj), attention.o_proj))
    return _Block(tuple(parts), _Mlp(layer.layernorm_after, layer.mlp.fc1, layer.mlp.fc2))


def _videomae(layer: Any) -> _Block:
    inner = layer.attention.attention
    parts = _split(layer.layernorm_before, (inner.query, inner.key, inner.value), layer.attention.output.dense)
    return _Block((parts,), _Mlp(layer.layernorm_after, layer.intermediate.dense, layer.output.dense))


def _timesformer(layer: Any) -> _Block:
    time, space = layer.temporal_attention, layer.attention
    parts = (
        _fused(layer.temporal_layernorm, time.attention.qkv, time.output.dense),
        _fused(layer.layernorm_before, space.attention.qkv, space.output.dense),
    )
    return _Block(parts, _Mlp(layer.layernorm_after, layer.intermediate.dense, layer.output.dense))


def _vjepa2(layer: Any) -> _Block:
    attention = layer.attention
    projections = (attention.query, attention.key, attention.value)
    parts = _split(layer.norm1, projections, attention.proj, rotated=True)
    return _Block((parts,), _Mlp(layer.norm2, layer.mlp.fc1, layer.mlp.fc2))


def _vjepa2_pooler(layer: Any) -> _Block:
    attention = layer.self_attn
    parts = _split(layer.layer_norm1, (attention.q_proj, attention.k_proj, attention.v_proj), attention.out_proj)
    return _Block((parts,), _Mlp(layer.layer_norm2, layer.mlp.fc1, layer.mlp.fc2, grows=False))


_KINDS: dict[str, Callable[[Any], _Block]] = {
    "VivitLayer": _vivit,
    "_DotProductLayer": _vivit,
    "_SelfAttentionLayer": _self_attention,
    "VideoMAELayer": _videomae,
    "TimesformerLayer": _timesformer,
    "VJEPA2Layer": _vjepa2,
    "VJEPA2PoolerSelfAttentionLayer": _vjepa2_pooler,
}


def _split(norm: Any, projections: tuple[Any, Any, Any], output: Any, *, rotated: bool = False) -> _Attention:
    _, key, value = projections
    return _Attention(norm, projections, None if rotated else key.bias, (value.weight, value.bias), output)


def _fused(norm: Any, qkv: Any, output: Any) -> _Attention:
    """Return the parts of an attention whose Q, K and V are one Linear; those of K and V are views."""
    _, key_bias, value_bias = (None,) * 3 if qkv.bias is None else qkv.bias.data.chunk(3)
    return _Attention(norm, (qkv,), key_bias, (qkv.weight.data.chunk(3)[2], value_bias), output)


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
    for processor in folder.glob("*preprocessor_config.json"):
        shutil.copy(processor, out)
    print(f"wrote {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
