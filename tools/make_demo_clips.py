"""Render the demo's H.264 clips: one per label, each of another size and frame rate.

The clip of class number i has seed ``FIRST_SEED + i``; seeds are taken as they come, not
picked. Encoding is single-threaded and writes no date, so the same libraries give the same
bytes.

    python tools/make_demo_clips.py --out vivit_export/demo/clips
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
import numpy.typing as npt

from vivit_export.demo.motion import LABELS, render_clip

FIRST_SEED = 3_000_000_000


@dataclass(frozen=True, slots=True)
class Format:
    """How one clip is encoded; sizes in pixels."""

    width: int
    height: int
    fps: Fraction
    seconds: float
    pixel_format: str = "yuv420p"


# One per label, in the order of LABELS: landscape, portrait, square, an odd size (which
# 4:2:0 cannot hold), high and fractional rates.
FORMATS = (
    Format(320, 240, Fraction(25), 2.0),
    Format(426, 240, Fraction(30), 2.0),
    Format(240, 426, Fraction(30), 1.5),
    Format(180, 320, Fraction(24), 2.0),
    Format(256, 256, Fraction(15), 2.5),
    Format(321, 243, Fraction(25), 1.6, "yuv444p"),
    Format(640, 360, Fraction(50), 1.5),
    Format(176, 144, Fraction(30000, 1001), 2.0),
)


def encode_clip(path: Path, frames: npt.NDArray[np.uint8], form: Format) -> None:
    """Write ``frames``, uint8 (T, H, W, 3) RGB, as H.264 in MP4."""
    # "bitexact" keeps the version of the muxer out of the file; x264 still names its own.
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=form.fps)
        stream.width, stream.height, stream.pix_fmt = form.width, form.height, form.pixel_format
        stream.codec_context.thread_count = 1
        # x264's mbtree reads uninitialized memory at widths that are not multiples of 128: other bytes each run.
        options = {"preset": "slow", "crf": "25", "flags": "+bitexact", "threads": "1", "x264-params": "mbtree=0"}
        stream.codec_context.options = options
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("vivit_export/demo/clips"),
    show_default=True,
    help="Folder to write the clips and labels.json to.",
)
def main(out: Path) -> None:
    """Render and encode the demo clips."""
    out.mkdir(parents=True, exist_ok=True)
    labels = {}
    for i, (label, form) in enumerate(zip(LABELS, FORMATS, strict=True)):
        num_frames = round(form.seconds * form.fps)
        name = f"{label}_{form.width}x{form.height}_{round(form.fps)}fps.mp4"
        frames = render_clip(label, seed=FIRST_SEED + i, num_frames=num_frames, height=form.height, width=form.width)
        encode_clip(out / name, frames, form)
        labels[name] = label
        click.echo(f"{name}  {num_frames} frames  {(out / name).stat().st_size} bytes", err=True)
    (out / "labels.json").write_text(json.dumps(labels, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
