"""The paper's views: where their frames and crops come from, and the average over them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pixels import CLIP, DEFAULT, hf_processor, noise
from videos import contract, make_picture_video, make_video, moving_picture

from vivit_export.contract import Clip, Contract, Preprocess
from vivit_export.errors import ClipError, UsageError
from vivit_export.runtime import Preprocessor, average_views, read_clip, read_views
from vivit_export.runtime.clips.pixels.processor_config import installed_resize_order
from vivit_export.runtime.clips.sampling import view_indices

PRE = Preprocessor(CLIP, dataclasses.replace(DEFAULT, resize_order=installed_resize_order()))


def views_of(num_frames: int, stride: int, views: tuple[int, int], **rule: str) -> Contract:
    return contract(num_frames, Clip(num_frames, 32, 32, (1, 16, 16), "stride", stride, views=views, **rule))  # type: ignore[arg-type]


# --- where a crop lies -----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(40, 200), st.integers(40, 200), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_crop_is_cut_from_transformers_resized_frame(height: int, width: int, position: float) -> None:
    frames = noise(1, height, width, seed=height * width)
    whole = dataclasses.replace(
        PRE.preprocess, do_center_crop=False, do_rescale=False, offset=False, do_normalize=False
    )
    resized = hf_processor(whole)(list(frames), return_tensors="np")["pixel_values"][0, 0].transpose(1, 2, 0)
    rows, columns = (resized.shape[0] - 32) // 2, (resized.shape[1] - 40) // 2
    if resized.shape[0] >= resized.shape[1]:
        rows = {0.0: 0, 0.5: rows, 1.0: resized.shape[0] - 32}[position]
    else:
        columns = {0.0: 0, 0.5: columns, 1.0: resized.shape[1] - 40}[position]
    expected = resized[rows : rows + 32, columns : columns + 40]
    np.testing.assert_array_equal(PRE.crop(frames[0], position), expected)


@pytest.mark.parametrize("position", [0.0, 0.25, 0.5, 1.0])
def test_one_frame_is_cropped_as_in_a_clip(position: float) -> None:
    frames = noise(4, 60, 90)
    crops = PRE.crops(frames, position)
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(PRE.crop(frame, position), crops[i])
        np.testing.assert_array_equal(PRE.crop(Image.fromarray(frame), position), crops[i])
    if position == 0.5:
        np.testing.assert_array_equal(crops, PRE.crops(frames))


def test_nothing_moves_where_the_frame_is_padded() -> None:
    pre = Preprocessor(Clip(1, 64, 64, (1, 16, 16)), Preprocess(shortest_edge=20, crop_size=(64, 64)))
    frame = noise(1, 30, 40)[0]
    for position in (0.0, 1.0):
        np.testing.assert_array_equal(pre.crop(frame, position), pre.crop(frame))


@pytest.mark.parametrize("position", [-0.1, 1.1, float("nan")])
def test_a_position_outside_the_frame_is_refused(position: float) -> None:
    with pytest.raises(ValueError, match=r"from 0\.0 \(start\) to 1\.0 \(end\), got position = "):
        PRE.crop(noise(1, 60, 90)[0], position)


# --- whole videos ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (64, 64)], ids=["landscape", "portrait", "square"])
@pytest.mark.parametrize(("stride", "temporal", "num_frames"), [(2, 4, 4), (1, 3, 8), (5, 4, 4), (3, 1, 5)])
def test_views_are_temporal_windows_by_spatial_crops(
    tmp_path: Path, size: tuple[int, int], stride: int, temporal: int, num_frames: int
) -> None:
    path = make_picture_video(tmp_path / "film.mp4", [moving_picture(i, *size) for i in range(23)])
    rule = views_of(num_frames, stride, (temporal, 3))
    got = read_views(path, rule)
    assert got.shape == (temporal * 3, num_frames, 32, 32, 3)
    assert got.dtype == np.uint8 and got.flags.c_contiguous
    every_frame, pre = read_clip(path, contract(23)), Preprocessor(rule.clip, rule.preprocess)
    chosen = [every_frame[indices] for indices in view_indices(23, rule.clip)]
    expected = [pre.crops(frames, position) for frames in chosen for position in (0.0, 0.5, 1.0)]
    np.testing.assert_array_equal(got, expected)
    center = read_views(path, dataclasses.replace(rule, clip=dataclasses.replace(rule.clip, views=(temporal, 1))))
    np.testing.assert_array_equal(got[1::3], center)


@pytest.mark.parametrize("short", ["repeat", "loop"])
def test_one_view_is_the_clip(tmp_path: Path, short: str) -> None:
    path = make_video(tmp_path / "short.mp4", 6)
    rule = views_of(8, 2, (1, 1), short=short)
    clip = read_clip(path, rule)
    np.testing.assert_array_equal(read_views(path, rule)[0], Preprocessor(rule.clip, rule.preprocess).crops(clip))


def test_a_short_video_is_refused_by_name(tmp_path: Path) -> None:
    path = make_video(tmp_path / "short.mp4", 14)
    with pytest.raises(ClipError, match=r"short\.mp4 has 14 frames but the model takes 8, one in 2, out of 15;"):
        read_views(path, views_of(8, 2, (4, 3)))


def test_a_model_that_takes_whole_frames_gets_them(tmp_path: Path) -> None:
    path, rule = make_video(tmp_path / "film.mp4"), views_of(4, 2, (3, 1))
    whole = contract(4, rule.clip, frame_size=(48, 64))
    assert read_views(path, whole).shape == (3, 4, 48, 64, 3)
    three = dataclasses.replace(whole, clip=dataclasses.replace(rule.clip, views=(3, 3)))
    with pytest.raises(UsageError, match=r"3 spatial views .* takes whole frames; export with --input crops"):
        read_views(path, three)


def test_spatial_views_need_a_crop(tmp_path: Path) -> None:
    rule = dataclasses.replace(views_of(4, 2, (1, 3)), preprocess=Preprocess(size=(32, 32), do_center_crop=False))
    with pytest.raises(UsageError, match="3 spatial views need a crop to move, but this model does not crop"):
        read_views(make_video(tmp_path / "film.mp4"), rule)


# --- the average -------------------------------------------------------------------------------------


def test_average_views() -> None:
    logits = np.random.default_rng(0).normal(size=(12, 400)).astype(np.float32)
    got = average_views(logits)
    assert got.shape == (400,) and got.dtype == np.float32
    np.testing.assert_allclose(got, logits.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_array_equal(got, average_views(logits[::-1]))
    np.testing.assert_array_equal(average_views(logits[:1]), logits[0])


@pytest.mark.parametrize("shape", [(400,), (0, 400), (2, 3, 400)])
def test_average_views_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be an array \(V, num_labels\)"):
        average_views(np.zeros(shape, np.float32))
