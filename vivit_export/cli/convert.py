"""The commands that turn a checkpoint of another form into a folder that an export takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivit_export.cli.command import Command, Group
from vivit_export.cli.options import force_option, output_options
from vivit_export.cli.show import show_json, show_text
from vivit_export.cli.values import FILE, PATH, number_range

if TYPE_CHECKING:
    from vivit_export.progress import Silent


@click.group(cls=Group)
def convert() -> None:
    """Convert a checkpoint of another form into a folder to export."""


@convert.command(
    "scenic", cls=Command, examples=("vivit convert scenic checkpoint -o vivit-b-fe --labels kinetics400.txt",)
)
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Folder to write.")
@click.option("--labels", type=FILE, help="File with the label of each logit: one per line, or JSON.")
@click.option("--num-frames", type=int, metavar="T", help="Frames of a clip, if the checkpoint does not say them.")
@click.option(
    "--classes",
    callback=number_range,
    metavar="FIRST-LAST",
    help="Keep these logits alone: one head of several, such as 0-299.",
)
@force_option
@output_options
def convert_scenic(
    checkpoint: Path,
    output: Path,
    labels: Path | None,
    num_frames: int | None,
    classes: tuple[int, int] | None,
    force: bool,
    as_json: bool,
    progress: Silent,
) -> None:
    """Convert CHECKPOINT, a ViViT that Google's scenic trained, into a folder to export; needs neither JAX nor torch.

    The network is read from the file: joint attention, a factorised encoder, factorised self-attention or a factorised
    dot product (models 1 to 4 of the paper).
    """
    from vivit_export.export.convert import convert_scenic

    made = convert_scenic(
        checkpoint,
        output,
        labels=labels,
        num_frames=num_frames,
        classes=classes,
        force=force,
        progress=progress,
    )
    if as_json:
        show_json(made.to_json())
        return
    frames, height, width = made.clip
    show_text(
        f"{made.path}  {made.title}, {made.numbers / 1e6:.1f} M parameters\n"
        f"  clip       {frames} frames of {height} x {width} pixels\n"
        f"  output     {len(made.labels)} logits: {_few(made.labels)}\n"
        f"  next       vivit-export {made.path}"
    )


def _few(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:3]) + (", …" if len(labels) > 3 else "")
