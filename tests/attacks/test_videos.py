"""Hostile videos, read by Python, and as bytes by the front of Triton: one sentence, at once, and no other file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from attacked import SMALL, within_limits
from hostile_videos import VIDEOS, film, png

from vivit_export.bundle import read_bundle
from vivit_export.contract import Contract
from vivit_export.deploy.triton.front import read_video
from vivit_export.errors import ClipError, InputError
from vivit_export.limits import MOST_PIXELS, PIXELS_VARIABLE, most_pixels
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor
from vivit_export.runtime.clips.video.frames import read_sampled
from vivit_export.runtime.clips.views import read_views


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, write in VIDEOS.items():
        write(folder / name)
    return folder


@pytest.fixture(scope="module")
def contract() -> Contract:
    return read_bundle(SMALL).contract


@pytest.mark.parametrize("name", VIDEOS)
def test_python_refuses_it(videos: Path, contract: Contract, name: str) -> None:
    with within_limits(), pytest.raises(ClipError) as refused:
        read_views(videos / name, contract)
    assert str(refused.value).startswith(f"{videos / name} ")
    assert "root:" not in str(refused.value)


@pytest.mark.parametrize("name", VIDEOS)
def test_tritons_front_refuses_its_bytes(videos: Path, contract: Contract, name: str) -> None:
    with within_limits(), pytest.raises(ClipError) as refused:
        read_video((videos / name).read_bytes(), contract)
    assert "/proc/" not in str(refused.value) and "root:" not in str(refused.value)


def test_the_limit_is_stated_and_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "a.mov", [png(96, 96)] * 3, (96, 96))
    assert read_sampled(tmp_path / "a.mov", np.arange).shape == (3, 96, 96, 3)
    monkeypatch.setenv(PIXELS_VARIABLE, "9215")
    with pytest.raises(ClipError, match=rf"more than 9215 pixels; if you trust it, set {PIXELS_VARIABLE} to how many"):
        read_sampled(tmp_path / "a.mov", np.arange)
    monkeypatch.setenv(PIXELS_VARIABLE, "9216")
    assert read_sampled(tmp_path / "a.mov", np.arange).shape == (3, 96, 96, 3)
    for nonsense in ("", "-1", "1e9", "unlimited", "9" * 30, "²"):
        monkeypatch.setenv(PIXELS_VARIABLE, nonsense)
        assert most_pixels() == MOST_PIXELS >= 7680 * 4320


@pytest.mark.parametrize("size", [(2, 16384), (16384, 2), (1, 4096)])
def test_a_thread_of_pixels_is_not_resized_into_a_sea(contract: Contract, size: tuple[int, int]) -> None:
    wide = dataclasses.replace(contract.preprocess, shortest_edge=256, size=None)
    preprocessor = Preprocessor(contract.clip, wide)
    frames = np.zeros((contract.clip.num_frames, *size, 3), np.uint8)
    with within_limits(), pytest.raises(InputError, match="crop the video to a usual aspect ratio"):
        preprocessor.crops(frames)
