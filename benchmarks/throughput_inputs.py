"""The videos that throughput.py reads: made once, and kept in a folder.

    python benchmarks/throughput_inputs.py /tmp/throughput

A 10-minute 720p and a 60 s 1080p file, and short ones of the size in which Kinetics is usually kept. All are H.264 from
x264 at 30 frames per second, with a key frame every 250 frames: a textured picture that moves, with noise, and an
object that crosses it. The 10 minutes are 8 groups of pictures, encoded once and repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
import numpy.typing as npt

FPS, GOP = 30, 250
KINETICS_SIZE, KINETICS_SECONDS = (340, 256), 10
_NOISES = 7


@dataclass(frozen=True, slots=True)
class Film:
    """A long video.

    Attributes:
        name: of its file.
        title: in results.
        size: (width, height).
        frames: encoded.
        repeats: how often these are repeated.
    """

    name: str
    title: str
    size: tuple[int, int]
    frames: int
    repeats: int = 1


LONG = Film("ten-minutes-720p.mp4", "10 min 720p", (1280, 720), 8 * GOP, 9)
LARGE = Film("minute-1080p.mp4", "60 s 1080p", (1920, 1080), 60 * FPS)


def make_film(folder: Path, film: Film) -> Path:
    """Return the path of a long video, made now if it is not there."""
    path = folder / film.name
    if not path.exists():
        once = path.with_suffix(".once.mp4")
        encode(once, film.size, film.frames, seed=0)
        part = path.with_suffix(".part.mp4")
        _repeat(once, part, film.repeats)
        once.unlink()
        part.rename(path)
    return path


def make_kinetics(folder: Path, different: int, *, seconds: int = KINETICS_SECONDS) -> list[Path]:
    """Return the paths of different short videos, made now where they are not there."""
    paths = [folder / f"kinetics-{number:03}.mp4" for number in range(different)]
    for number, path in enumerate(paths):
        if not path.exists():
            part = path.with_suffix(".part.mp4")
            encode(part, KINETICS_SIZE, seconds * FPS, seed=number)
            part.rename(path)
    return paths


def encode(path: Path, size: tuple[int, int], num_frames: int, *, seed: int) -> None:
    """Encode a video of moving texture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "veryfast", "g": str(GOP), "sc_threshold": "0", "crf": "23"}
        for picture in _pictures(size, num_frames, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _pictures(size: tuple[int, int], num_frames: int, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield uint8 (height, width, 3)."""
    random, (width, height) = np.random.default_rng(seed), size
    rows, columns = np.mgrid[:height, :width]
    slope = np.stack([columns * 160 // width, rows * 160 // height, (rows + columns) * 160 // (width + height)], -1)
    tiles = random.integers(0, 64, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    texture = (slope + tiles).astype(np.uint8)
    noises = random.integers(0, 12, (_NOISES, height, width, 1), dtype=np.uint8)
    edge = height // 6
    for number in range(num_frames):
        picture = np.roll(texture, (2 * number) % width, axis=1) + noises[number % _NOISES]
        left = (7 * number) % (width - edge)
        picture[height // 3 : height // 3 + edge, left : left + edge] = (number * 7 % 256, 200, 40)
        yield picture


def _repeat(once: Path, path: Path, repeats: int) -> None:
    """Write the packets of a video several times in a row, without decoding them."""
    with av.open(str(path), "w") as container:
        out = None
        for repeat in range(repeats):
            with av.open(str(once)) as source:
                video = source.streams.video[0]
                if out is None:
                    out = container.add_stream_from_template(video)
                assert video.time_base is not None
                later = int(repeat * Fraction(video.frames, FPS) / video.time_base)
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue  # the last one is empty
                    packet.dts, packet.pts, packet.stream = packet.dts + later, packet.pts + later, out
                    container.mux(packet)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--different", default=20, show_default=True, help="Short videos that differ.")
def main(folder: Path, different: int) -> None:
    """Make all videos in FOLDER that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*make_kinetics(folder, different), *(make_film(folder, film) for film in (LONG, LARGE))]:
        print(path)


if __name__ == "__main__":
    main()
