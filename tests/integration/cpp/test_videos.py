"""Sampling, and the videos that need no decoder, beside the Python runtime."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cpp_project import Cpp, Request, write_y4m

from vivit_export.contract import Clip
from vivit_export.errors import VivitExportError
from vivit_export.runtime.clips.sampling import clip_indices, view_indices
from vivit_export.runtime.clips.video.frames import read_sampled

pytestmark = pytest.mark.needs_onnxruntime


def test_the_same_frames_are_sampled(cpp: Cpp) -> None:
    rules = [
        Clip(frames, 8, 8, (1, 8, 8), sampling, stride, short, (views, 1))  # type: ignore[arg-type]
        for frames in (1, 4, 7)
        for sampling, stride, views in (
            *(("uniform", 1, 1), ("center", 1, 1), ("head", 1, 1)),
            *(("stride", 1, 1), ("stride", 3, 1), ("stride", 2, 4)),
        )
        for short in ("refuse", "repeat", "loop")
    ]
    requests: list[Request] = [
        {"do": "sample", "clip": asdict(rule), "frames": n} for rule in rules for n in (0, 1, 3, 7, 16, 19, 300)
    ]
    rules_by_request = [rule for rule in rules for _ in range(7)]
    for request, rule, answer in zip(requests, rules_by_request, cpp.ask(requests), strict=True):
        try:
            expected: Any = {
                "clip": clip_indices(request["frames"], rule).tolist(),
                "views": view_indices(request["frames"], rule).reshape(-1).tolist(),
            }
        except VivitExportError as e:
            expected = {"error": str(e), "code": e.exit_code}
        assert answer == expected, request


def ask_video(cpp: Cpp, out: Path, requests: list[Request]) -> list[npt.NDArray[np.uint8]]:
    """The frames that the probe read, for each request."""
    out.unlink(missing_ok=True)
    answers = cpp.ask([{"do": "video", "out": str(out), **request} for request in requests], "avx2")
    data, frames = np.fromfile(out, np.uint8), []
    for request, answer in zip(requests, answers, strict=True):
        shape = (len(request["indices"]), answer["height"], answer["width"], 3)
        frames.append(data[: np.prod(shape)].reshape(shape))
        data = data[np.prod(shape) :]
    assert not data.size
    return frames


def test_frames_are_read_in_any_order(cpp: Cpp, tmp_path: Path) -> None:
    expected, indices = np.load(cpp.video), [3, 3, 0, 44, 20]
    size = list(expected.shape[1:3])
    requests = [
        {"path": str(cpp.video), "indices": indices},
        {"path": str(cpp.video.with_suffix(".rgb")), "indices": indices, "size": size},
    ]
    for frames in ask_video(cpp, tmp_path / "out", requests):
        np.testing.assert_array_equal(frames, expected[indices])


@pytest.mark.parametrize("header", ["", " XCOLORRANGE=FULL"])
@pytest.mark.parametrize("space", ["420jpeg", "420mpeg2", "420paldv", "422", "mono"])
def test_y4m_becomes_the_rgb_that_pyav_gives(cpp: Cpp, tmp_path: Path, space: str, header: str) -> None:
    path = tmp_path / "noise.y4m"
    write_y4m(path, 66, 50, space, 7, header)
    (frames,) = ask_video(cpp, tmp_path / "out", [{"path": str(path), "indices": [0, 1, 2]}])
    np.testing.assert_array_equal(frames, read_sampled(path, lambda count: np.arange(count)))


def test_what_is_no_video_is_refused(cpp: Cpp, tmp_path: Path) -> None:
    (tmp_path / "text.y4m").write_text("hello\n")
    (tmp_path / "text.npy").write_text("hello, this is not an array\n")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "clip.avi").write_bytes(b"RIFF")
    (tmp_path / "bad.y4m").write_text("YUV4MPEG2 W0 H16\n")
    (tmp_path / "lost.y4m").write_text("YUV4MPEG2 W2 H2 C444\nFRAME\n123456789012FRUME\n")
    np.save(tmp_path / "float.npy", np.zeros((2, 8, 8, 3), np.float32))
    np.save(tmp_path / "gray.npy", np.zeros((2, 8, 8), np.uint8))
    np.save(tmp_path / "order.npy", np.asfortranarray(np.zeros((2, 8, 8, 3), np.uint8)))
    write_y4m(tmp_path / "deep.y4m", 16, 16, "420p10", 1)
    write_y4m(tmp_path / "cut.y4m", 16, 16, "420", 1)
    os.truncate(tmp_path / "cut.y4m", 1000)
    (tmp_path / "cut.npy").write_bytes(cpp.video.read_bytes()[:-1])
    cases: list[tuple[str, str]] = [
        ("text.y4m", "cannot be read as a video (no YUV4MPEG2 header)"),
        ("text.npy", "cannot be read as a video (no NumPy file)"),
        ("empty.npy", "cannot be read as a video (no NumPy file)"),
        ("clip.avi", "is neither .npy nor .y4m"),
        ("bad.y4m", "its header states a size of W0"),
        ("lost.y4m", "a frame does not begin where it should"),
        ("float.npy", "holds an array of type '<f4' and shape (2, 8, 8, 3); frames must be a uint8 array"),
        ("gray.npy", "shape (2, 8, 8); frames must be"),
        ("order.npy", "in C order"),
        ("deep.y4m", "has the pixel format 420p10"),
        ("cut.y4m", "is cut short"),
        ("cut.npy", "is cut short"),
        ("nothing.npy", "does not exist; give a video file"),
        (".", "is a folder; give one video file"),
    ]
    requests = [{"do": "video", "path": str(tmp_path / name), "out": "", "indices": [0]} for name, _ in cases]
    requests.append({**requests[0], "path": str(cpp.video.with_suffix(".rgb")), "size": [426, 241]})
    cases.append(("up.rgb", "bytes, which are not whole rgb24 frames of 241x426 (width x height, 307998 bytes each)"))
    for (name, part), answer in zip(cases, cpp.ask(requests, "avx2"), strict=True):
        assert part in answer["error"], name
        assert answer["code"] == 3
