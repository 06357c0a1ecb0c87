"""Frames that are sought equal those of a full decode, bit for bit; and where that is uncertain, nothing is sought."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from encoded_videos import NUM_FRAMES, ZOO, Encoded, decode_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from videos import contract, make_video, remux, seek_pictures

from vivit_export.contract import Clip
from vivit_export.errors import ClipError
from vivit_export.runtime import read_clip
from vivit_export.runtime.clips.video import seek
from vivit_export.runtime.clips.video.container import OpenedVideo, open_video
from vivit_export.runtime.clips.video.frames import place_sampled, read_sampled
from vivit_export.runtime.clips.video.index import VideoIndex, read_index
from vivit_export.runtime.clips.video.reading import AS_NEEDED, Reading
from vivit_export.runtime.clips.video.seek import CannotSeekError, plan_groups, seek_frames
from vivit_export.runtime.clips.windows import read_windows

FULL = Reading("full")
chosen = st.lists(st.integers(0, NUM_FRAMES - 1), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


def noting(notes: list[str]) -> Reading:
    return Reading(note=lambda _path, why: notes.append(why))


@pytest.mark.parametrize("video", ZOO, ids=lambda video: video.name)
def test_chosen_frames_are_those_of_a_full_decode(video: Encoded, folder: Path) -> None:
    path = video.make(folder)
    expected = decode_all(path)
    assert len(expected) == NUM_FRAMES
    sought = []

    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(chosen)
    def check(numbers: list[int]) -> None:
        notes: list[str] = []
        frames = read_sampled(path, lambda num_frames: np.array(numbers), reading=noting(notes))
        np.testing.assert_array_equal(frames, [expected[number] for number in numbers])
        sought.append(not notes)

    check()
    assert any(sought) if video.seeks else not all(sought)
    everything = read_sampled(path, lambda num_frames: np.arange(num_frames), reading=FULL)
    np.testing.assert_array_equal(everything, expected)


def test_the_zoo_is_large() -> None:
    assert len(ZOO) >= 150
    assert sum(video.seeks for video in ZOO) >= 80


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.mp4", codec_options={"g": "10", "bf": "0"})
    index = read_index(path)
    assert [(group.key, list(group.wanted.values())) for group in plan_groups(index, [0, 3, 12, 39])] == [
        (index.keys[0], [0, 3]),
        (index.keys[1], [12]),
        (index.keys[3], [39]),
    ]
    decoded: list[int] = []
    monkeypatch.setattr(seek, "stop_if_dropped", lambda: decoded.append(1))
    assert [number for number, _ in seek_pictures(index, [12])] == [12]
    assert len(decoded) < 10  # 10, 11, 12, and a few that the decoder's threads are ahead


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_groups_that_are_decoded_at_once_give_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    path = make_video(tmp_path / "a.mp4", codec_options={"g": "5", "bf": "2"})
    index, wanted = read_index(path), [0, 1, 3, 11, 16, 17, 18, 19, 24, 30, 39]
    opened = list[Path]()

    def opening(path: Path) -> AbstractContextManager[OpenedVideo]:
        opened.append(path)
        return open_video(path)

    monkeypatch.setattr(seek, "open_video", opening)
    found, expected = list(seek_pictures(index, wanted, threads)), decode_all(path)
    assert [number for number, _ in found] == wanted
    for number, frame in found:
        np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), expected[number])
    assert 1 <= len(opened) <= min(threads, 6)  # groups


def test_a_doubt_comes_after_the_frames_before_it(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", codec_options={"g": "10", "bf": "0"})
    path = remux(source, tmp_path / "b.mp4", blanking(22))
    frames, found = seek_pictures(read_index(path), [3, 12, 25, 36], 4), list[int]()
    with pytest.raises(CannotSeekError):
        found.extend(number for number, _ in frames)
    assert found == [3, 12]


def test_decoders_at_once_are_bounded_by_their_pictures(tmp_path: Path) -> None:
    index = read_index(make_video(tmp_path / "a.mp4", codec_options={"g": "5"}))
    few, every = np.full(8, 1), np.full(8, 250)

    def decoders(pixels: int, sizes: Any, item_bytes: int, threads: int = 16) -> int:
        return seek._num_decoders(dataclasses.replace(index, pixels=pixels), sizes, item_bytes, threads)

    assert [decoders(10**5, few, 3 * 10**5, threads) for threads in (1, 3, 100)] == [1, 3, 8]
    assert [decoders(pixels, few, 3 * pixels) for pixels in (1280 * 720, 1920 * 1080, 3840 * 2160)] == [8, 8, 2]
    crop = 3 * 224 * 224  # windows keep crops, however large the video is
    assert [decoders(pixels, every, crop) for pixels in (340 * 256, 1280 * 720, 3840 * 2160)] == [4, 4, 2]


def test_windows_are_cropped_where_groups_are_decoded(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", size=(320, 240), codec_options={"g": "5", "bf": "2"})
    rule: dict[str, Any] = {"window": 9, "hop": 4, "unit": "frames"}
    expected = list(read_windows(path, contract(3), reading=FULL, **rule))
    for threads in (1, 2, 5):
        notes: list[str] = []
        reading = Reading(threads=threads, note=lambda _path, why: notes.append(why))  # noqa: B023
        got = list(read_windows(path, contract(3), reading=reading, **rule))
        np.testing.assert_array_equal([window.frames for window in got], [window.frames for window in expected])
        assert not notes


def test_a_change_of_size_between_decoders_is_refused_in_its_place(tmp_path: Path) -> None:
    """Each decoder may see one size alone."""
    options = {"g": "5", "bf": "0"}
    parts = [make_video(tmp_path / f"{width}.ts", 10, size=(width, 48), codec_options=options) for width in (64, 80)]
    joined, path = tmp_path / "joined.ts", tmp_path / "both.mkv"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(joined)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.pts = packet.dts = 3600 * number
            packet.stream = stream
            new.mux(packet)
    for threads in (1, 2, 4):
        places = list[int]()
        reading = Reading(threads=threads, note=lambda _path, why: pytest.fail(why))
        with pytest.raises(ClipError, match=r"both\.mkv changes its frame size from 64x48 to 80x48 \(width x height\)"):
            place_sampled(path, lambda _: np.array([0, 3, 7, 12, 17]), lambda _, at: places.extend(at), reading)  # noqa: B023
        assert places == [0, 1, 2], threads


@pytest.mark.parametrize("sampling", ["uniform", "center", "head", "stride"])
def test_each_way_to_draw_a_clip(tmp_path: Path, sampling: str) -> None:
    path = make_video(tmp_path / "a.mkv", codec_options={"g": "7", "bf": "2"})
    rule = contract(5, Clip(5, 32, 32, (1, 16, 16), sampling))  # type: ignore[arg-type]
    notes: list[str] = []
    np.testing.assert_array_equal(read_clip(path, rule, noting(notes)), read_clip(path, rule, FULL))
    assert not notes


@pytest.mark.parametrize("name", ["h264-open.mkv", "h264-refresh.mp4", "hevc-pyramid.mov", "vp8-8.webm", "mpeg4-2.ts"])
def test_windows_too(folder: Path, name: str) -> None:
    (video,) = (video for video in ZOO if video.name == name)
    path, notes = video.make(folder), list[str]()
    rule = {"window": 9, "hop": 4, "unit": "frames"}
    got, expected = (
        list(read_windows(path, contract(3), reading=reading, **rule))  # type: ignore[arg-type]
        for reading in (noting(notes), FULL)
    )
    assert [window.start_seconds for window in got] == [window.start_seconds for window in expected]
    np.testing.assert_array_equal([window.frames for window in got], [window.frames for window in expected])
    assert not notes if video.seeks else notes


def test_what_was_sought_before_a_doubt_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.mp4", codec_options={"g": "10"})

    def doubtful(index: VideoIndex, wanted: list[int], *rest: Any) -> Iterator[Any]:
        yield from seek_frames(index, wanted[:2], *rest)
        raise CannotSeekError("enough")

    monkeypatch.setattr("vivit_export.runtime.clips.video.frames.seek_frames", doubtful)
    notes: list[str] = []
    frames = read_sampled(path, lambda _: np.array([1, 12, 25, 38, 25]), reading=noting(notes))
    assert notes == ["enough"]
    expected = decode_all(path)
    np.testing.assert_array_equal(frames, [expected[number] for number in (1, 12, 25, 38, 25)])


def edited(path: Path, times: dict[int, int | None]) -> Path:
    """A copy with other times of some packets."""
    out = path.with_name(f"edited{path.suffix}")
    with av.open(str(path)) as old, av.open(str(out), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            packet.pts = packet.dts = times.get(number, packet.pts)
            packet.stream = stream
            new.mux(packet)
    return out


def test_repeated_times_are_not_sought(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", codec_options={"g": "10", "bf": "0"})
    with av.open(str(path)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    path = edited(path, {20: times[19]})
    with pytest.raises(CannotSeekError, match="several frames with one time"):
        plan_groups(read_index(path), [3])


def test_a_lost_key_frame_is_noticed(tmp_path: Path) -> None:
    """The packet is marked as a key frame, and holds none."""
    source = make_video(tmp_path / "a.mp4", codec_options={"g": "10", "bf": "0"})
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    path = remux(source, tmp_path / "b.mp4", lambda index, data: packets[11] if index == 10 else data)
    with pytest.raises(CannotSeekError):
        list(seek_pictures(read_index(path), [15]))


def test_a_seek_that_lands_behind_is_noticed(tmp_path: Path) -> None:
    index = read_index(make_video(tmp_path / "a.mp4", codec_options={"g": "10", "bf": "0"}))
    index.keys[:] = [index.keys[0] - 1000]
    with pytest.raises(CannotSeekError, match=r"a seek to the tick -\d+ ends at \d+"):
        list(seek_pictures(index, [25]))


@pytest.mark.parametrize("name", ["h264-short.mp4", "h264-pyramid.mkv", "hevc-open.mov", "mpeg4-2.mp4"])
def test_damage_on_the_way_passes_only_where_a_full_decode_passes_it(folder: Path, tmp_path: Path, name: str) -> None:
    """A packet is lost: the frame does not need it, the video is refused, or its decoder notices nothing at all."""
    (video,) = (video for video in ZOO if video.name == name)
    source = video.make(folder)
    expected, refused = decode_all(source), 0
    for lost in (1, 2, 3, 5, 8):
        path = remux(source, tmp_path / f"{lost}-{name}", blanking(lost))
        for number in (0, 1, 2, 4, 7, 9, 11, 30):
            frames = []
            for reading in (AS_NEEDED, FULL):
                try:
                    frames.append(read_sampled(path, lambda _: np.array([number]), reading=reading)[0])  # noqa: B023
                except ClipError:
                    frames.append(None)
            found, full = frames
            refused += found is None
            if found is not None:
                np.testing.assert_array_equal(found, expected[number] if full is None else full)
    assert refused


def blanking(number: int) -> Callable[[int, bytes], bytes]:
    return lambda index, data: b"\0" * len(data) if index == number else data


_TAKES_ONE = """
import sys
from pathlib import Path

import numpy as np

from vivit_export.runtime.clips.video.frames import place_sampled
from vivit_export.runtime.clips.video.reading import Reading

def put(image, places):
    raise ValueError("enough")

for _ in range(20):
    try:
        place_sampled(Path(sys.argv[1]), lambda count: np.arange(0, count, 7), put, Reading(threads=4))
    except ValueError as error:  # whose traceback keeps what was under way
        kept = error
print("all is well")
"""


def test_decoders_end_before_their_videos_are_closed(tmp_path: Path) -> None:
    """What takes the frames fails while others are decoded: a closed video would crash the process."""
    path = make_video(tmp_path / "a.mp4", size=(1280, 720), codec_options={"g": "5", "bf": "2"})
    done = subprocess.run([sys.executable, "-c", _TAKES_ONE, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stderr
