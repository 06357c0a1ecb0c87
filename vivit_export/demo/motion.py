"""Synthetic clips whose label is their motion, which no single frame shows.

A clip is a stationary random texture, a sum of plane waves, seen through a moving camera.
An affine motion maps a plane wave to a plane wave, so every frame is evaluated in closed
form, at any size, without resampling. Labels come in pairs, and the second of a pair is
the first played backward: only the order of the frames distinguishes them.

numpy only: neither torch nor a video library is needed here.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["LABELS", "OPPOSITE", "render_clip"]

Kind = Literal["horizontal", "vertical", "zoom", "turn"]
Float = npt.NDArray[np.float32]

LABELS = ("left", "right", "up", "down", "grow", "shrink", "turn_left", "turn_right")

OPPOSITE = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "grow": "shrink",
    "shrink": "grow",
    "turn_left": "turn_right",
    "turn_right": "turn_left",
}
"""The label of each clip played backward."""

# label -> (kind of motion, whether that film is played backward)
_FILMS: dict[str, tuple[Kind, bool]] = {
    "right": ("horizontal", False),
    "left": ("horizontal", True),
    "down": ("vertical", False),
    "up": ("vertical", True),
    "grow": ("zoom", False),
    "shrink": ("zoom", True),
    "turn_left": ("turn", False),
    "turn_right": ("turn", True),
}

# The fastest detail must move less than half a wave per frame of an 8-frame clip, or its
# direction is lost. Worst cases at 3 cycles x 1.16 (base) x 1.41 (zoom) = 4.9 cycles per
# short side: slide 0.6 / 8 * 4.9 = 0.37; turn, in the corner of the crop, 0.48.
_NUM_WAVES = 8
_CYCLES = (1.0, 3.0)
_BASE_ZOOM_LOG = 0.15
_SLIDE = (0.25, 0.6)
_ZOOM = (1.4, 2.0)
_TURN_DEGREES = (30.0, 75.0)


@dataclass(frozen=True, slots=True)
class _Texture:
    """Plane waves ``mix * cos(2 pi frequency . u + phase)``, summed.

    Attributes:
        frequency: float32 (waves, 2), x and y, in cycles per short side.
        phase: float32 (waves,), radians.
        mix: float32 (3, waves), amplitude in R, G, B; each channel sums to unit variance.
    """

    frequency: Float
    phase: Float
    mix: Float


@dataclass(frozen=True, slots=True)
class _Path:
    """Camera path, in terms of time s in (-0.5, 0.5).

    Attributes:
        shift: (x, y) travel over the whole clip, in short sides; y points down.
        zoom: (at s = 0, change over the clip) of the natural log of the magnification.
        turn: clockwise turn over the whole clip, radians.
    """

    shift: tuple[float, float]
    zoom: tuple[float, float]
    turn: float


def render_clip(label: str, *, seed: int, num_frames: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Render one clip of a moving texture.

    Motion is uniform in time and measured in short sides of the frame: the same seed shows
    the same motion at every size, aspect ratio and frame count. With the same seed, the
    opposite label is this clip with its frames reversed, bit for bit.

    Args:
        label: one of `LABELS`, as seen on screen; ``turn_left`` is counter-clockwise.
        seed: not negative; decides everything but the label.
        num_frames: frames that the whole motion is spread over.
        height: rows of a frame, in pixels.
        width: columns of a frame, in pixels.

    Returns:
        uint8 (num_frames, height, width, 3), RGB.

    Raises:
        ValueError: the label is unknown, or a size is not positive.
    """
    if label not in _FILMS:
        raise ValueError(f"label must be one of {', '.join(LABELS)}, got {label!r}")
    if min(num_frames, height, width) < 1:
        raise ValueError(f"a clip needs at least 1 frame of 1x1, got {num_frames=} {height=} {width=}")
    kind, backwards = _FILMS[label]
    rng = np.random.default_rng(operator.index(seed))
    texture, path = _draw_texture(rng), _draw_path(rng, kind)
    x, y = _coordinates(height, width)
    times = ((np.arange(num_frames, dtype=np.float32) + 0.5) / num_frames - 0.5).astype(np.float32)
    frames = _render_texture(texture, path, times, x, y)
    frames *= rng.uniform(30, 52)
    frames += rng.uniform(105, 150)
    _add_occluders(rng, frames, x, y)
    frames += np.float32(rng.uniform(0, 4)) * rng.standard_normal(frames.shape, dtype=np.float32)
    pixels = np.clip(np.rint(frames, out=frames), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels[::-1]) if backwards else pixels


def _draw_texture(rng: np.random.Generator) -> _Texture:
    # One direction per sector: were all waves parallel, motion along them would be invisible.
    angle = np.pi * (np.arange(_NUM_WAVES) + rng.uniform(size=_NUM_WAVES)) / _NUM_WAVES
    cycles = np.exp(rng.uniform(np.log(_CYCLES[0]), np.log(_CYCLES[1]), size=_NUM_WAVES))
    phase = rng.uniform(0, 2 * np.pi, size=_NUM_WAVES)
    mix = rng.standard_normal((3, _NUM_WAVES))
    mix /= np.sqrt(np.square(mix).sum(axis=1, keepdims=True) / 2)
    frequency = cycles[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _Texture(frequency.astype(np.float32), phase.astype(np.float32), mix.astype(np.float32))


def _draw_path(rng: np.random.Generator, kind: Kind) -> _Path:
    """Draw a path; every kind draws the same numbers, so the seed means the same for all."""
    slide = rng.uniform(*_SLIDE)
    zoom = rng.uniform(np.log(_ZOOM[0]), np.log(_ZOOM[1]))
    turn = np.deg2rad(rng.uniform(*_TURN_DEGREES))
    # Every clip drifts a little in every way; the dominant motion is the label.
    drift = rng.uniform(0, 0.05) * np.exp(1j * rng.uniform(0, 2 * np.pi))
    drift_zoom, drift_turn = rng.uniform(-0.04, 0.04), np.deg2rad(rng.uniform(-4, 4))
    # A clip that does not zoom is frozen at a random moment of one that does, so that the
    # scale of the texture says little about the kind of motion.
    base = rng.uniform(-_BASE_ZOOM_LOG, _BASE_ZOOM_LOG)
    frozen = zoom * rng.uniform(-0.5, 0.5)
    return _Path(
        shift=(drift.real + slide * (kind == "horizontal"), drift.imag + slide * (kind == "vertical")),
        zoom=(base, zoom) if kind == "zoom" else (base + frozen, drift_zoom),
        turn=-turn if kind == "turn" else drift_turn,
    )


def _coordinates(height: int, width: int) -> tuple[Float, Float]:
    """Return pixel centers in short sides from the middle of the frame: x (width,), y (height,)."""
    short = min(height, width)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / short
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / short
    return x.astype(np.float32), y.astype(np.float32)


def _render_texture(texture: _Texture, path: _Path, times: Float, x: Float, y: Float) -> Float:
    """Evaluate the moving texture: float32 (T, H, W, 3), zero mean and unit variance."""
    angle = path.turn * times
    gain = 2 * np.pi / np.exp(path.zoom[0] + path.zoom[1] * times)
    fx, fy = texture.frequency.T
    kx = gain[:, None] * (np.outer(np.cos(angle), fx) - np.outer(np.sin(angle), fy))  # (T, waves)
    ky = gain[:, None] * (np.outer(np.sin(angle), fx) + np.outer(np.cos(angle), fy))
    phase = texture.phase - (kx * path.shift[0] + ky * path.shift[1]) * times[:, None]
    # cos(a + b) = cos a cos b - sin a sin b turns each frame into one small matrix product.
    across = kx[:, :, None] * x + phase[:, :, None]  # (T, waves, W)
    along = ky[:, None, :] * y[:, None]  # (T, H, waves)
    basis = np.concatenate([np.cos(across), -np.sin(across)], axis=1).astype(np.float32)
    rows = np.concatenate([np.cos(along), np.sin(along)], axis=2).astype(np.float32)
    frames = np.empty((len(times), len(y), len(x), 3), dtype=np.float32)
    for channel, mix in enumerate(texture.mix):
        frames[..., channel] = (rows * np.tile(mix, 2)) @ basis
    return frames


def _add_occluders(rng: np.random.Generator, frames: Float, x: Float, y: Float) -> None:
    """Blend up to two soft discs over ``frames`` (T, H, W, 3), in place; they stand still."""
    for _ in range(rng.integers(0, 3)):
        cx, cy = rng.uniform(-0.45, 0.45, size=2).astype(np.float32)
        radius, softness = np.float32(rng.uniform(0.05, 0.13)), np.float32(0.02)
        color = rng.uniform(30, 225, size=3).astype(np.float32)
        distance = np.hypot(x - cx, (y - cy)[:, None])
        cover = 0.5 - 0.5 * np.tanh((distance - radius) / (2 * softness))[:, :, None]
        frames += cover * (color - frames)
