"""Sliding windows: where they lie, what they hold, and how little memory they take."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videos import (
    contract,
    frame_numbers,
    make_picture_video,
    make_video,
    make_vp8_with_hidden_frames,
    moving_picture,
    patch_box,
    remux,
    repeat_video,
)

from vivit_export.contract import Clip, Contract
from vivit_export.errors import ClipError, UsageError
from vivit_export.runtime import Preprocessor, Window, clip_indices, read_clip, read_windows
from vivit_export.runtime.clips.video.index import Timeline, read_index, timeline_of
from vivit_export.runtime.clips.windows import Span, plan_windows

# --- where they lie ----------------------------------------------------------------------------------


def even(num_frames: int, fps: float = 25) -> Timeline:
    return Timeline(np.arange(num_frames) / fps, num_frames / fps)


def ranges(spans: list[Span]) -> list[tuple[int, int]]:
    return [(span.first_frame, span.end_frame) for span in spans]


def test_the_last_window_is_moved_to_fit() -> None:
    """The drawing of the docstring: L = 34, window 16, hop 10."""
    assert ranges(plan_windows(even(34), 16, 10, "frames")) == [(0, 16), (10, 26), (18, 34)]
    assert ranges(plan_windows(even(34), 16, 9, "frames")) == [(0, 16), (9, 25), (18, 34)]
    assert ranges(plan_windows(even(33), 16, 9, "frames")) == [(0, 16), (9, 25), (17, 33)]
    assert ranges(plan_windows(even(33), 16, 17, "frames")) == [(0, 16), (17, 33)]
    assert ranges(plan_windows(even(40), 16, 20, "frames")) == [(0, 16), (20, 36)]
    assert ranges(plan_windows(even(15), 16, 4, "frames")) == [(0, 15)]


@given(st.integers(1, 300), st.integers(1, 80), st.integers(1, 100), st.sampled_from([10, 24, 25, 29.97, 60]))
def test_seconds_and_frames_agree_at_an_even_rate(total: int, window: int, hop: int, fps: float) -> None:
    timeline = even(total, fps)
    by_frames = plan_windows(timeline, window, hop, "frames")
    by_seconds = plan_windows(timeline, window / fps, hop / fps, "seconds")
    assert ranges(by_seconds) == ranges(by_frames)
    for one, other in zip(by_frames, by_seconds, strict=True):
        assert abs(one.start_seconds - other.start_seconds) < 1e-6
        assert abs(one.end_seconds - other.end_seconds) < 1e-6


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    steps = draw(st.lists(st.floats(0.001, 2), min_size=1, max_size=60))
    ends = np.cumsum(steps)
    return Timeline(np.concatenate([[0.0], ends[:-1]]), float(ends[-1]))


@given(timelines(), st.floats(0.05, 10), st.floats(0.05, 10))
def test_windows_cover_any_video(timeline: Timeline, window: float, hop: float) -> None:
    spans = plan_windows(timeline, window, hop, "seconds")
    assert spans[0].start_seconds == 0
    for span in spans:
        assert 0 <= span.first_frame < span.end_frame <= len(timeline.starts)
        assert span.end_seconds - span.start_seconds <= window + 1e-9
    for one, after in itertools.pairwise(spans):
        assert 0 < after.start_seconds - one.start_seconds <= hop + 1e-6
        assert after.first_frame >= one.first_frame
    if hop <= window:
        assert abs(spans[-1].end_seconds - timeline.end_seconds) < 1e-5
        covered = {i for span in spans for i in range(span.first_frame, span.end_frame)}
        assert covered == set(range(len(timeline.starts)))


def test_a_window_in_which_nothing_changes_holds_the_frame_on_screen() -> None:
    slides = Timeline(np.array([0.0, 10.0, 30.0]), 35.0)
    assert ranges(plan_windows(slides, 5, 5, "seconds")) == [(0, 1)] * 2 + [(1, 2)] * 4 + [(2, 3)]


# --- what they hold ----------------------------------------------------------------------------------

RULES = {
    "uniform": {},
    "center": {"sampling": "center"},
    "head": {"sampling": "head"},
    "stride": {"sampling": "stride", "stride": 2},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("window", "hop"), [(16, 16), (16, 3), (13, 20), (40, 1), (60, 5)])
def test_each_window_is_a_clip_of_its_own(tmp_path: Path, rule: str, window: int, hop: int) -> None:
    path = make_picture_video(tmp_path / "film.mp4", [moving_picture(i, 64, 48) for i in range(40)])
    whole = contract(5, Clip(5, 32, 32, (1, 16, 16), **RULES[rule]))  # type: ignore[arg-type]
    crops = Preprocessor(Clip(40, 32, 32, (1, 16, 16)), whole.preprocess).crops(read_clip(path, contract(40)))
    windows = list(read_windows(path, whole, window=window, hop=hop, unit="frames"))
    spans = plan_windows(even(40), window, hop, "frames")
    assert len(windows) == len(spans)
    for got, span in zip(windows, spans, strict=True):
        assert (got.first_frame, got.end_frame) == (span.first_frame, span.end_frame)
        assert abs(got.start_seconds - span.start_seconds) < 1e-6
        indices = span.first_frame + clip_indices(span.end_frame - span.first_frame, whole.clip)
        np.testing.assert_array_equal(got.frames, crops[indices])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("even.mp4", {}),
        ("b-frames.mkv", {"codec_options": {"bf": "4"}}),
        ("broadcast.ts", {}),  # its clock does not begin at zero
        ("divx.avi", {"codec": "mpeg4", "codec_options": {"qmin": "1", "qmax": "2", "bf": "2"}}),  # states no times
        ("film.webm", {"codec": "libvpx-vp9"}),
        ("sound.mp4", {"audio_seconds": 3.0}),
    ],
)
def test_seconds_in_any_container(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    path = make_video(tmp_path / name, **options)
    windows = list(read_windows(path, whole_frames(4), window=0.4, hop=0.32))
    assert [frame_numbers(w.frames) for w in windows] == [[b + n for n in (0, 2, 5, 7)] for b in (0, 8, 16, 24, 30)]
    np.testing.assert_allclose([w.start_seconds for w in windows], [0, 0.32, 0.64, 0.96, 1.2], atol=0.021)


def whole_frames(num_frames: int, **rule: Any) -> Contract:
    """A contract of a model that resizes by itself."""
    return contract(num_frames, Clip(num_frames, 32, 32, (1, 16, 16), **rule), frame_size=(48, 64))


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
@pytest.mark.field_case("DALI 1775")
def test_seconds_at_a_variable_rate(tmp_path: Path, name: str) -> None:
    path = make_video(tmp_path / name, variable_rate=True)
    times = [(i * 40 + (i % 3) * 13) / 1000 for i in range(40)]
    timeline = timeline_of(read_index(path))
    np.testing.assert_allclose(timeline.starts, times, atol=1e-6)
    assert 1.58 < timeline.end_seconds < 1.7
    windows = list(read_windows(path, whole_frames(3), window=0.5, hop=0.25))
    for w in windows:
        inside = [i for i, t in enumerate(times) if w.start_seconds - 1e-6 <= t < w.end_seconds - 1e-6]
        assert (w.first_frame, w.end_frame) == (inside[0], inside[-1] + 1)
        assert frame_numbers(w.frames) == [inside[i * len(inside) // 3] for i in range(3)]


def test_hidden_vp8_frames_are_not_counted(tmp_path: Path) -> None:
    path, shown = make_vp8_with_hidden_frames(tmp_path)
    windows = list(read_windows(path, whole_frames(4), window=8, unit="frames"))
    assert [frame_numbers(w.frames) for w in windows] == [shown[b : b + 8 : 2] for b in (0, 8, 16, 24, 29)]


def test_edit_lists_hide_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "trimmed.mp4")
    patch_box(path, b"elst", 8, "Ii", 800, 12 * 512 + 1024)  # shown: 20 frames from the 12th on
    windows = list(read_windows(path, whole_frames(4), window=0.4))
    assert [frame_numbers(w.frames) for w in windows] == [[12, 14, 17, 19], [22, 24, 27, 29]]
    assert [(w.start_seconds, w.end_seconds) for w in windows] == [(0, 0.4), (0.4, pytest.approx(0.8, abs=1e-6))]


def test_damage_is_found_at_the_end(tmp_path: Path) -> None:
    """The windows before it are good; the iterator ends with the sentence, not with fewer windows."""
    path = make_video(tmp_path / "worn.mp4", codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    data = bytearray(path.read_bytes())
    for position, size in packets[30:35]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    windows = read_windows(path, whole_frames(4), window=10, unit="frames")
    assert frame_numbers(next(windows).frames) == [0, 2, 5, 7]
    with pytest.raises(ClipError, match=r"worn\.mp4 (is damaged|cannot be read as a video)"):
        list(windows)


def test_a_recording_that_starts_between_key_frames(tmp_path: Path) -> None:
    source = make_video(tmp_path / "all.ts", codec_options={"g": "12", "bf": "0"})
    path = remux(source, tmp_path / "joined-late.ts", lambda index, data: None if index < 5 else data)
    windows = list(read_windows(path, whole_frames(7), window=14, unit="frames"))
    assert [frame_numbers(w.frames) for w in windows] == [list(range(12, 26, 2)), list(range(26, 40, 2))]


def test_a_short_video_is_one_window(tmp_path: Path) -> None:
    path = make_video(tmp_path / "short.mp4", 6)
    with pytest.raises(ClipError, match=r"short\.mp4: the window from 0\.00 s to 0\.24 s has 6 frames but the model"):
        read_windows(path, contract(8), window=10)
    (window,) = read_windows(path, whole_frames(8, short="loop"), window=10)
    assert frame_numbers(window.frames) == [0, 1, 2, 3, 4, 5, 0, 1]


def test_a_window_says_what_it_is(tmp_path: Path) -> None:
    window = next(read_windows(make_video(tmp_path / "film.mp4"), contract(4), window=0.8))
    assert isinstance(window, Window)
    assert repr(window) == "Window(0.000 s to 0.800 s, frames 0 to 20, (4, 32, 32, 3))"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": 0}, r"^window=0 must be a number of seconds, 0\.001 or more"),
        ({"window": 1e-9}, r"^window=1e-09 must be a number of seconds, 0\.001 or more"),
        ({"window": 1, "hop": 1e-7}, r"^hop=1e-07 must be a number of seconds, 0\.001 or more"),
        ({"window": 1, "hop": -1}, "^hop=-1 must be a number of seconds"),
        ({"window": float("inf")}, "^window=inf must be a number of seconds"),
        ({"window": float("nan")}, "^window=nan must be a number of seconds"),
        ({"window": 8, "hop": 2.5, "unit": "frames"}, r"^hop=2\.5f must be a whole number of frames, 1 or more"),
        ({"window": 0, "unit": "frames"}, "^window=0f must be a whole number of frames, 1 or more"),
        ({"window": float("inf"), "unit": "frames"}, "^window=inff must be a whole number of frames"),
        ({"window": "1"}, "^window='1' must be a number of seconds; leave quotes and units out"),
        ({"window": 8, "hop": "4f", "unit": "frames"}, "^hop='4f' must be a number of frames; leave quotes and"),
        ({"window": 8, "unit": "hours"}, "^unit='hours' is not one of seconds, frames"),
    ],
)
def test_other_lengths_are_refused_at_once(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_windows(tmp_path / "gone.mp4", contract(4), **options)


def test_files_that_are_no_videos_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="does not exist"):
        read_windows(tmp_path / "gone.mp4", contract(4), window=1)
    (tmp_path / "labels.txt").write_text("left\nright\n" * 200)
    with pytest.raises(ClipError, match="is a text file"):
        read_windows(tmp_path / "labels.txt", contract(4), window=1)


# --- memory ------------------------------------------------------------------------------------------


@pytest.mark.field_case("decord 157")
def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """1080p, four windows open at a time: the peak soon after the start and at the end is the same.

    What an hour adds: the times of its 90 000 frames (6 MB) and the spans of its windows (0.5 MB).
    """
    pictures = [moving_picture(i, 1920, 1080) for i in range(2)]
    source = make_picture_video(
        tmp_path / "gop.mp4", (pictures[i // 5] for i in range(10)), codec_options={"bf": "0", "preset": "ultrafast"}
    )
    path = repeat_video(source, tmp_path / "long.mp4", 32)
    code = f"""
        from pathlib import Path
        from vivit_export.contract import IO, Clip, Contract, Preprocess, Tensor
        from vivit_export.runtime import read_windows
        clip = Clip(16, 224, 224, (2, 16, 16))
        io = IO("crops", (Tensor("frames", "uint8", ("batch", 16, 224, 224, 3)),), ())
        contract = Contract(clip, Preprocess(shortest_edge=256), io)
        for number, window in enumerate(read_windows({str(path)!r}, contract, window=64, hop=16, unit="frames")):
            if number in (2, 16):
                # Not getrusage, whose peak begins with that of the parent process.
                print(next(v for v in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in v).split()[1])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    early, late = (int(kib) / 1024 for kib in done.stdout.split())
    assert late < 250  # MB, with the interpreter, NumPy, Pillow and FFmpeg; 320 such frames are 2 GB
    assert late - early < 30
