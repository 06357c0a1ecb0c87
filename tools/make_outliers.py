"""Give a ViViT checkpoint outlier channels, as large transformers grow them, without changing its function.

    python tools/make_outliers.py vivit_export/demo/checkpoint /tmp/demo-outliers

In front of each Linear of the encoder a few channels become 30 times as large:

- Q, K, V and fc1: the LayerNorm's weight and bias grow, the Linears' columns shrink;
- the output projection: rows of V grow, columns of the output projection shrink;
- fc2: nothing commutes with a GELU, so channels are added in pairs of equals, whose large values fc2 adds
  and subtracts again.

The float32 logits stay the same up to rounding. A range per tensor now has few steps left for the other
channels: what a quantiser makes of that is what ``benchmarks/quantization.py`` measures.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

FACTOR = 30.0
_CHANNELS = 4  # that grow in front of each Linear; for fc2, pairs that are added
_WEIGHTS = "model.safetensors"

State = dict[str, npt.NDArray[np.float32]]


def add_outliers(source: Path, out: Path, seed: int = 0, factor: float = FACTOR) -> None:
    """Write a checkpoint with outliers.

    Args:
        source: checkpoint folder with ``model.safetensors``; not modified.
        out: folder to write.
        seed: of the choice of channels.
        factor: how much larger they become.
    """
    config = json.loads((source / "config.json").read_text())
    state = load_file(source / _WEIGHTS)
    rng = np.random.default_rng(seed)
    for i in range(config["num_hidden_layers"]):
        _grow(state, f"vivit.encoder.layer.{i}", rng, np.float32(factor))
    config["intermediate_size"] += 2 * _CHANNELS
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(source / "preprocessor_config.json", out / "preprocessor_config.json")
    save_file({name: np.ascontiguousarray(a) for name, a in state.items()}, out / _WEIGHTS, metadata={"format": "pt"})


def _grow(state: State, layer: str, rng: np.random.Generator, factor: np.float32) -> None:
    """Change one encoder layer in place; weights of Linears are (out, in)."""
    hidden = len(state[f"{layer}.layernorm_before.weight"])
    attention = f"{layer}.attention.attention"
    projections = [f"{attention}.{name}.weight" for name in ("query", "key", "value")]
    for norm, linears in (("before", projections), ("after", [f"{layer}.intermediate.dense.weight"])):
        chosen = rng.choice(hidden, _CHANNELS, replace=False)
        for name in ("weight", "bias"):
            state[f"{layer}.layernorm_{norm}.{name}"][chosen] *= factor
        for name in linears:
            state[name][:, chosen] /= factor
    chosen = rng.choice(hidden, _CHANNELS, replace=False)
    for name in ("weight", "bias"):
        state[f"{attention}.value.{name}"][chosen] *= factor
    state[f"{layer}.attention.output.dense.weight"][:, chosen] /= factor
    _add_pairs(state, layer, rng, factor)


def _add_pairs(state: State, layer: str, rng: np.random.Generator, factor: np.float32) -> None:
    first, second = f"{layer}.intermediate.dense", f"{layer}.output.dense"
    chosen = rng.choice(len(state[f"{first}.bias"]), _CHANNELS, replace=False)
    rows = factor * np.repeat(state[f"{first}.weight"][chosen], 2, axis=0)
    columns = np.repeat(state[f"{second}.weight"][:, chosen], 2, axis=1)
    columns[:, 1::2] *= -1
    state[f"{first}.weight"] = np.concatenate([state[f"{first}.weight"], rows])
    state[f"{first}.bias"] = np.concatenate(
        [state[f"{first}.bias"], factor * np.repeat(state[f"{first}.bias"][chosen], 2)]
    )
    state[f"{second}.weight"] = np.concatenate([state[f"{second}.weight"], columns], axis=1)


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
@click.option("--factor", default=FACTOR, show_default=True)
def main(source: Path, out: Path, seed: int, factor: float) -> None:
    """Write SOURCE with outlier channels to OUT."""
    add_outliers(source, out, seed, factor)
    print(f"wrote {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
