"""The renderer: reproducible, reversible, and moving on screen as the labels say."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pytest

from vivit_export.demo.motion import LABELS, OPPOSITE, render_clip

SIDE = 96
SEEDS = range(12)
Image = npt.NDArray[np.float64]


def middle_frames(label: str, seed: int) -> tuple[Image, Image]:
    """Two gray frames (96, 96), 3/16 of the clip apart, around its middle."""
    clip = render_clip(label, seed=seed, num_frames=16, height=SIDE, width=SIDE)
    return clip[6].mean(axis=2), clip[9].mean(axis=2)


def sample(image: Image, y: Image, x: Image) -> Image:
    """Look ``image`` up at fractional rows ``y`` and columns ``x``, bilinearly."""
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - y0, x - x0
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    bottom = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy)


def warp(image: Image, *, zoom: float = 1.0, counter_clockwise: float = 0.0) -> Image:
    """The central 64x64 of ``image`` after magnifying and turning it (degrees) about its middle."""
    a = np.deg2rad(counter_clockwise)
    y, x = np.mgrid[-31.5:32, -31.5:32] / zoom
    middle = (SIDE - 1) / 2
    return sample(image, middle + y * np.cos(a) + x * np.sin(a), middle + x * np.cos(a) - y * np.sin(a))


def mismatch(a: Image, b: Image) -> float:
    """The median, so that an occluder, which stands still, has no say."""
    return float(np.median(np.abs(a - b)))


def best(candidates: Iterable[float], move: Callable[[float], Image], target: Image) -> float:
    """The candidate for which ``move(candidate)`` looks most like ``target``."""
    return min(candidates, key=lambda c: mismatch(move(c), target))


def test_warp_turns_like_rot90() -> None:
    image = np.random.default_rng(0).uniform(size=(SIDE, SIDE))
    np.testing.assert_allclose(warp(image, counter_clockwise=90), warp(np.rot90(image)), atol=1e-9)


def test_labels_come_in_opposite_pairs() -> None:
    assert len(LABELS) == 8
    assert set(OPPOSITE) == set(LABELS)
    assert all(OPPOSITE[OPPOSITE[label]] == label != OPPOSITE[label] for label in LABELS)
    # The trainer relies on neighbors being opposites.
    assert all(OPPOSITE[a] == b for a, b in zip(LABELS[::2], LABELS[1::2], strict=True))


@pytest.mark.parametrize(("num_frames", "height", "width"), [(8, 64, 64), (5, 31, 47), (1, 40, 8)])
def test_shape_and_type(num_frames: int, height: int, width: int) -> None:
    clip = render_clip("up", seed=1, num_frames=num_frames, height=height, width=width)
    assert clip.shape == (num_frames, height, width, 3)
    assert clip.dtype == np.uint8
    assert clip.flags.c_contiguous


def test_same_seed_same_bytes_other_seed_other_clip() -> None:
    first, again, other = (render_clip("grow", seed=s, num_frames=4, height=32, width=32) for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 10


@pytest.mark.parametrize("label", LABELS)
def test_opposite_label_is_the_clip_played_backwards(label: str) -> None:
    clip = render_clip(label, seed=9, num_frames=8, height=48, width=64)
    opposite = render_clip(OPPOSITE[label], seed=9, num_frames=8, height=48, width=64)
    np.testing.assert_array_equal(clip[::-1], opposite)
    assert np.abs(clip[0].astype(int) - clip[-1]).mean() > 10


@pytest.mark.parametrize(("label", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_slides_go_where_they_say(label: str, axis: int, sign: int) -> None:
    for seed in SEEDS:
        before, after = middle_frames(label, seed)
        shifts = [(dy, dx) for dy in range(-13, 14) for dx in range(-13, 14)]
        block = before[14:82, 14:82]
        errors = [mismatch(after[14 + dy : 82 + dy, 14 + dx : 82 + dx], block) for dy, dx in shifts]
        found = shifts[int(np.argmin(errors))]
        assert found[axis] * sign >= 3, f"{seed=} moved by {found}"
        assert abs(found[1 - axis]) <= 2, f"{seed=} moved by {found}"


@pytest.mark.parametrize(("label", "sign"), [("grow", 1), ("shrink", -1)])
def test_zooms_go_where_they_say(label: str, sign: int) -> None:
    for seed in SEEDS:
        before, after = middle_frames(label, seed)
        found = best(np.linspace(0.8, 1.25, 46), lambda zoom: warp(before, zoom=zoom), warp(after))  # noqa: B023
        assert (found - 1) * sign > 0.03, f"{seed=} was magnified by {found}"


@pytest.mark.parametrize(("label", "sign"), [("turn_left", 1), ("turn_right", -1)])
def test_turns_go_where_they_say(label: str, sign: int) -> None:
    for seed in SEEDS:
        before, after = middle_frames(label, seed)
        found = best(np.arange(-20.0, 21), lambda a: warp(before, counter_clockwise=a), warp(after))  # noqa: B023
        assert found * sign > 3, f"{seed=} turned by {found} degrees counter-clockwise"


def test_motion_does_not_depend_on_size_aspect_or_frame_count() -> None:
    # Noise is drawn anew for each shape: up to 4 levels of deviation, hence the tolerance.
    for label in LABELS[::2]:
        small = render_clip(label, seed=3, num_frames=8, height=48, width=48).astype(float)
        dense = render_clip(label, seed=3, num_frames=24, height=48, width=48).astype(float)
        wide = render_clip(label, seed=3, num_frames=8, height=96, width=160).astype(float)
        assert np.abs(small - dense[1::3]).mean() < 5
        square = wide[:, :, 32:128].reshape(8, 48, 2, 48, 2, 3).mean(axis=(2, 4))
        assert np.abs(small - square).mean() < 5


def test_pixels_use_the_range_without_saturating() -> None:
    clips = np.stack([render_clip("left", seed=s, num_frames=2, height=48, width=48) for s in range(50)])
    assert 100 < clips.mean() < 155
    assert clips.std() > 30
    assert np.isin(clips, (0, 255)).mean() < 0.05


def test_unknown_label_and_empty_clip_are_refused() -> None:
    with pytest.raises(ValueError, match="one of left, right"):
        render_clip("sideways", seed=0, num_frames=8, height=64, width=64)
    with pytest.raises(ValueError, match="height=0"):
        render_clip("left", seed=0, num_frames=8, height=0, width=64)
