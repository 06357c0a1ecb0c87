"""Make a checkpoint with seeded random weights, for benchmarks and tests: ViViT or another family.

The default is the full-size ViViT-B/16x2 of Hugging Face (``VivitConfig`` defaults, 400 labels,
355 MB), which cannot be downloaded without access to the hub and is too large to commit::

    python tools/make_checkpoint.py /tmp/vivit-b

Weights are drawn so that every term of the network matters: biases, class token, position
embeddings and LayerNorm affines are random too (a fresh model has them at 0 and 1, which would
hide a dropped bias), and the head is scaled so that logits spread over several units.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import click
import torch
import transformers
from transformers import VivitConfig, VivitForVideoClassification, VivitImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

OTHERS = {
    "vivit_factorised": "VivitFactorised",
    "videomae": "VideoMAE",
    "timesformer": "Timesformer",
    "vjepa2": "VJEPA2",
}
"""Families besides ViViT: name of each, and how the names of its classes begin in transformers."""


@torch.no_grad()
def randomize(model: torch.nn.Module, seed: int) -> None:
    """Draw all parameters in place, in the order of their sorted names."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.copy_(1 + 0.1 * noise)
        elif parameter.ndim >= 2 and name.endswith("weight"):
            fan_in = parameter[0].numel()
            gain = 4.0 if name.startswith("classifier") else 1.0
            parameter.copy_(gain * noise * fan_in**-0.5)
        else:
            parameter.copy_(0.1 * noise)


def make(out: Path, seed: int = 0, **overrides: object) -> None:
    """Write config, safetensors and processor JSON of a random ViViT to ``out``.

    Args:
        out: folder to write, in Hugging Face form.
        seed: of the weights.
        **overrides: fields of ``VivitConfig``; ``num_labels`` defaults to 400.
    """
    config = VivitConfig(**{"num_labels": 400, **overrides})
    model = VivitForVideoClassification(config).eval()
    randomize(model, seed)
    model.save_pretrained(out)
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    VivitImageProcessor(
        size={"shortest_edge": max(height, width) * 8 // 7}, crop_size={"height": height, "width": width}
    ).save_pretrained(out)


def make_other(family: str, out: Path, seed: int = 0, **overrides: object) -> None:
    """Write a random checkpoint of one of `OTHERS`, in the same form; see `make`.

    Args:
        family: its name.
        out: folder to write.
        seed: of the weights.
        **overrides: fields of its config; ``num_labels`` defaults to 400.
    """
    classes: ModuleType = transformers
    if family == "vivit_factorised":
        import vivit_export.families.networks.vivit_factorised_modeling as classes  # needs transformers 5
    config = getattr(classes, f"{OTHERS[family]}Config")(**{"num_labels": 400, **overrides})
    model = getattr(classes, f"{OTHERS[family]}ForVideoClassification")(config).eval()
    randomize(model, seed)
    model.save_pretrained(out)
    if family == "vjepa2":
        write_video_processor(out, config.crop_size)
        return
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    transformers.VideoMAEImageProcessorPil(
        size={"shortest_edge": max(height, width)}, crop_size={"height": height, "width": width}
    ).save_pretrained(out)


def write_video_processor(out: Path, crop: int) -> None:
    """Write what ``VJEPA2VideoProcessor.save_pretrained`` would: the class needs torchvision."""
    fields = {
        "video_processor_type": "VJEPA2VideoProcessor",
        "crop_size": {"height": crop, "width": crop},
        "size": {"shortest_edge": crop * 256 // 224},
        "do_center_crop": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(IMAGENET_DEFAULT_MEAN),
        "image_std": list(IMAGENET_DEFAULT_STD),
        "resample": 2,
        "rescale_factor": 1 / 255,
    }
    (out / "video_preprocessor_config.json").write_text(json.dumps(fields, indent=2), encoding="utf-8")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
@click.option("--layers", type=int, default=None, help="Blocks; default: as the family's config has it.")
@click.option("--frames", type=int, default=None, help="Frames of a clip; default: as the family's config has it.")
@click.option("--family", type=click.Choice(["vivit", *OTHERS]), default="vivit", show_default=True)
def main(out: Path, seed: int, layers: int | None, frames: int | None, family: str) -> None:
    """Write a random checkpoint to OUT: ViViT-B/16x2, or another family in the size of its config's defaults."""
    given = {"num_hidden_layers": layers, "frames_per_clip" if family == "vjepa2" else "num_frames": frames}
    fields = {name: value for name, value in given.items() if value is not None}
    if family == "vivit":
        make(out, seed, **fields)
    else:
        make_other(family, out, seed, **fields)
    print(f"wrote {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
