"""Train the demo checkpoint: a 0.6-million-parameter ViViT that names the motion of a clip.

Clips are rendered fresh for every step, so no clip is seen twice and there is no data set to
store. On one machine with one set of library versions, the same ``--seed`` and ``--steps``
produce the same weights bit for bit: clip seeds follow from the step, the number of threads is
fixed, and rendering ahead in a worker changes when a clip is made, not its contents.

    python tools/train_demo.py --out vivit_export/demo/checkpoint
    python tools/train_demo.py --factorised --out DIR

The second trains a factorised encoder on the same clips.
"""

from __future__ import annotations

import json
import math
import platform
import time
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch.utils.data import DataLoader, Dataset
from transformers import VivitConfig, VivitForVideoClassification, VivitImageProcessor

from vivit_export.demo.motion import LABELS, OPPOSITE, render_clip
from vivit_export.families.networks.vivit_factorised_modeling import (
    VivitFactorisedConfig,
    VivitFactorisedForVideoClassification,
)

NUM_FRAMES = 8
RESIZED = 72
CROP = 64
BATCH = 32
PEAK_LR = 1e-3
WEIGHT_DECAY = 0.05
WARMUP_STEPS = 100
THREADS = 2
HELD_OUT_CLIPS = 2000

TRAINING_SEEDS_FROM = 2**32
"""Training clips use seeds from here up; everything below is held out."""

Clips = npt.NDArray[np.uint8]
Model: TypeAlias = "VivitForVideoClassification | VivitFactorisedForVideoClassification"


class MotionBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Item ``step`` is the batch of that step; a pure function of (seed, step).

    Each clip comes with itself played backward under the opposite label: the two differ
    in nothing but the order of the frames, which is the only thing worth learning.
    """

    def __init__(self, seed: int, steps: int) -> None:
        self.first = TRAINING_SEEDS_FROM * (1 + seed)
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return pixel values float32 (B, T, 3, H, W) and class numbers int64 (B,)."""
        if not 0 <= step < self.steps:
            raise IndexError(step)
        clips, labels = [], []
        for i in range(step * BATCH // 2, (step + 1) * BATCH // 2):
            label = LABELS[2 * (i % 4)]
            clip = render_small(label, self.first + i)
            clips += [clip, clip[::-1]]
            labels += [LABELS.index(label), LABELS.index(OPPOSITE[label])]
        return to_pixel_values(np.stack(clips)), torch.tensor(labels)


def render_small(label: str, seed: int) -> Clips:
    """Render uint8 (T, 64, 64, 3): what resizing to 72 and cropping leaves of a larger clip."""
    clip = render_clip(label, seed=seed, num_frames=NUM_FRAMES, height=RESIZED, width=RESIZED)
    edge = (RESIZED - CROP) // 2
    return clip[:, edge : edge + CROP, edge : edge + CROP]


def to_pixel_values(clips: Clips) -> torch.Tensor:
    """Map uint8 (B, T, H, W, 3) to float32 (B, T, 3, H, W) in [-3, 1], as the processor does."""
    pixels = torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 1, 4, 2, 3).float()
    return ((pixels / 127.5 - 1.0) - 0.5) / 0.5


def make_processor() -> VivitImageProcessor:
    """Return the processor of the checkpoint; fields not named here keep the class's defaults."""
    return VivitImageProcessor(size={"shortest_edge": RESIZED}, crop_size={"height": CROP, "width": CROP})


def make_model(factorised: bool = False) -> Model:
    """Return the untrained network; the caller seeds torch."""
    fields: dict[str, Any] = {
        "image_size": CROP,
        "num_frames": NUM_FRAMES,
        "tubelet_size": [2, 8, 8],
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 256,
        "hidden_act": "gelu_fast",
        "qkv_bias": True,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: i for i, label in enumerate(LABELS)},
    }
    if not factorised:
        return VivitForVideoClassification(VivitConfig(**fields))
    depths = {"num_hidden_layers": 2, "temporal_num_hidden_layers": 2}
    return VivitFactorisedForVideoClassification(VivitFactorisedConfig(**{**fields, **depths}))


def train(model: Model, seed: int, steps: int) -> None:
    """Train ``model`` in place with AdamW, linear warm-up and cosine decay to zero."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    batches = DataLoader(MotionBatches(seed, steps), batch_size=None, num_workers=1, prefetch_factor=4)
    began, seen_loss, seen_right = time.monotonic(), 0.0, 0
    model.train()
    for step, (pixel_values, labels) in enumerate(batches, start=1):
        logits = model(pixel_values=pixel_values).logits
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seen_loss += loss.item()
        seen_right += int((logits.argmax(-1) == labels).sum())
        if step % 50 == 0 or step == steps:
            window = step % 50 or 50
            accuracy = seen_right / (window * BATCH)
            minutes = (time.monotonic() - began) / 60
            click.echo(
                f"step {step}/{steps}  loss {seen_loss / window:.4f}  top-1 {accuracy:.3f}  {minutes:.1f} min", err=True
            )
            seen_loss, seen_right = 0.0, 0


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the factor on the peak learning rate at ``step`` of ``steps``, in [0, 1]."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 + 0.5 * math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS))


@torch.inference_mode()
def evaluate(model: Model, num_clips: int) -> dict[str, float]:
    """Return accuracy and logit margins on clips of seeds 0 to ``num_clips``, none trained on.

    The margin is the logit of the true label less the largest of the others; negative where
    the model is wrong.
    """
    model.train(False)
    margins = []
    for first in range(0, num_clips, 100):
        seeds = range(first, min(first + 100, num_clips))
        clips = np.stack([render_small(LABELS[seed % len(LABELS)], seed) for seed in seeds])
        logits = model(pixel_values=to_pixel_values(clips)).logits
        truth = torch.tensor([seed % len(LABELS) for seed in seeds])[:, None]
        others = logits.scatter(1, truth, -torch.inf).amax(dim=1)
        margins.append(logits.gather(1, truth)[:, 0] - others)
    margin = torch.cat(margins)
    return {
        "accuracy": round((margin > 0).float().mean().item(), 5),
        "margin_min": round(margin.min().item(), 3),
        "margin_1_percent": round(margin.quantile(0.01).item(), 3),
        "margin_median": round(margin.median().item(), 3),
    }


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("vivit_export/demo/checkpoint"),
    show_default=True,
    help="Folder to write the checkpoint to.",
)
@click.option("--steps", type=click.IntRange(min=1), default=1500, show_default=True, help="Batches of 32 clips.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Weights and clips follow.")
@click.option("--factorised", is_flag=True, help="Train a factorised encoder.")
def main(out: Path, steps: int, seed: int, factorised: bool) -> None:
    """Train the demo checkpoint on the CPU and measure it on clips it never saw."""
    torch.set_num_threads(THREADS)  # sums depend on how they are split
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    model = make_model(factorised)
    # Its config says what the logits mean; transformers' own loss would write it there.
    model.config.problem_type = "single_label_classification"
    train(model, seed, steps)
    held_out = evaluate(model, HELD_OUT_CLIPS)
    click.echo(f"held out: {held_out}", err=True)
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes files only their owner can read
    make_processor().save_pretrained(out)
    record = {
        "seed": seed,
        "steps": steps,
        "batch": BATCH,
        "held_out": {"clips": HELD_OUT_CLIPS, **held_out},
        "versions": {
            "numpy": np.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    click.echo(f"wrote {out}", err=True)


if __name__ == "__main__":
    main()
