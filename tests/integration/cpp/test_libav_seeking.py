"""Frames that C++ seeks are those of a full decode, which Python's own are compared with, too."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from cpp_project import Cpp, Libav, Request, hashes_of, run
from encoded_videos import NUM_FRAMES, ZOO, decode_all
from videos import make_video, remux

from vivit_export.errors import VivitExportError
from vivit_export.runtime.clips.video.frames import read_sampled
from vivit_export.runtime.clips.video.reading import Reading

pytestmark = pytest.mark.needs_onnxruntime

READS = 3  # of each video, besides all of it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


def made(name: str, folder: Path) -> Path:
    (video,) = (video for video in ZOO if video.name == name)
    return video.make(folder)


def in_python(path: Path, numbers: list[int] | None = None, decode: str = "auto") -> Request:
    """What the test program should answer."""
    notes: list[str] = []
    reading = Reading(decode, note=lambda _path, why: notes.append(why))  # type: ignore[arg-type]
    try:
        frames = read_sampled(path, np.arange if numbers is None else lambda _: np.array(numbers), reading=reading)
    except VivitExportError as e:
        return {"notes": notes, "error": str(e)}
    return {"notes": notes, "shape": list(frames.shape), "frames": hashes_of(frames)}


def test_chosen_frames_are_those_of_a_full_decode(libav: Libav, folder: Path) -> None:
    """With FFmpeg 7.1, which interpolates the halved chroma of 10 bits in another way than Python's FFmpeg 8."""
    rng, requests = np.random.default_rng(14), list[Request]()
    paths = [video.make(folder) for video in ZOO]
    for path in paths:
        requests.append({"path": str(path), "decode": "full", "threads": 1})
        for i in range(READS):
            numbers = rng.integers(0, NUM_FRAMES, rng.integers(1, 13)).tolist()
            requests.append({"path": str(path), "indices": numbers, "by_number": i == 0, "threads": i})
    answers = libav.ask(requests)
    sought = 0
    for video, path in zip(ZOO, paths, strict=True):
        frames = answers.pop(0)["frames"]
        assert len(set(frames)) == NUM_FRAMES, path
        assert "10bit" in path.name or frames == hashes_of(decode_all(path)), path
        for request in [request for request in requests if request["path"] == str(path)][1:]:
            answer = answers.pop(0)
            assert answer["frames"] == [frames[number] for number in request["indices"]], request
            assert answer["notes"] == in_python(path, request["indices"])["notes"], request
            assert answer.get("num_frames", NUM_FRAMES) == NUM_FRAMES, request
            assert answer.get("size", [64, 80]) == [64, 80], request
            assert video.seeks or not request["by_number"] or answer["notes"] or "refresh" in path.name
            sought += not answer["notes"]
    assert sought >= 80 * READS


@pytest.mark.parametrize("name", ["h264-short.mp4", "h264-pyramid.mkv", "hevc-open.mov", "mpeg4-2.mp4"])
def test_damage_on_the_way_passes_only_where_a_full_decode_passes_it(
    libav: Libav, folder: Path, tmp_path: Path, name: str
) -> None:
    """A packet is lost: each frame, note and sentence is Python's."""
    source = made(name, folder)
    paths = [remux(source, tmp_path / f"{lost}-{name}", blanking(lost)) for lost in (1, 2, 5, 8)]
    cases = [(path, number, decode) for path in paths for number in (0, 2, 7, 11, 30) for decode in ("auto", "full")]
    answers = libav.ask([{"path": str(path), "indices": [number], "decode": decode} for path, number, decode in cases])
    refused = 0
    for (path, number, decode), answer in zip(cases, answers, strict=True):
        assert answer == in_python(path, [number], decode), (path, number, decode)
        refused += "error" in answer
    assert refused


def blanking(number: int) -> Callable[[int, bytes], bytes]:
    return lambda index, data: b"\0" * len(data) if index == number else data


def test_only_what_is_needed_is_decoded(libav: Libav, tmp_path: Path) -> None:
    """Damage in other groups of pictures is not seen, unless all is decoded; nor is it before the wanted frames."""
    source = make_video(tmp_path / "a.mp4", codec_options={"g": "10", "bf": "0"})
    path = remux(source, tmp_path / "b.mp4", lambda index, data: data[: len(data) // 2] if index in (3, 27) else data)
    requests: list[Request] = [{"path": str(path), "indices": [12, 19, 35]}]
    requests += [{**requests[0], "decode": "full"}, {**requests[0], "indices": [3]}]
    sought, full, damaged = libav.ask(requests)
    frames = decode_all(source)
    assert sought["frames"] == hashes_of(frames[number] for number in (12, 19, 35))
    assert not sought["notes"]
    assert full == in_python(path, [12, 19, 35], "full")
    assert "damaged" in full["error"]
    assert damaged == in_python(path, [3])
    assert damaged["notes"]


def test_what_cannot_be_sought_is_decoded_in_full(libav: Libav, tmp_path: Path) -> None:
    """A lost key frame, and packets of one time."""
    source = make_video(tmp_path / "a.mkv", codec_options={"g": "10", "bf": "0"})
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    lost = remux(source, tmp_path / "lost.mkv", lambda index, data: packets[11] if index == 10 else data)
    twice = tmp_path / "twice.mkv"
    with av.open(str(source)) as old, av.open(str(twice), "w") as new:
        stream, latest = new.add_stream_from_template(old.streams.video[0]), None
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            if number == 20:
                packet.pts = packet.dts = latest
            latest, packet.stream = packet.pts, stream
            new.mux(packet)
    for path, numbers in ((lost, [15]), (twice, [3])):
        (answer,) = libav.ask([{"path": str(path), "indices": numbers}])
        assert answer == in_python(path, numbers)
        assert answer["notes"]


def test_a_frame_that_is_not_there(libav: Libav, folder: Path) -> None:
    path = made("vp8-8.webm", folder)
    answers = libav.ask([{"path": str(path), "indices": [number]} for number in (-1, NUM_FRAMES)])
    for answer, number in zip(answers, (-1, NUM_FRAMES), strict=True):
        assert answer["error"] == f"{path} has {NUM_FRAMES} frames, numbered from 0: there is no frame {number}"


def test_vivit_run_says_what_it_decodes_in_full(cpp: Cpp, libav: Libav, folder: Path) -> None:
    path = made("vp8-8.webm", folder)
    for words, said in (((), f"note: {path} is decoded in full: its codec may hide frames\n"), (("full",), "")):
        command: list[str | Path] = [libav.vivit_run, cpp.bundle, path, "--repeat", "2"]
        command += ["--decode", *words] if words else []
        done = subprocess.run(command, capture_output=True, text=True, env=libav.env, timeout=60, check=True)
        assert done.stderr == said
        assert done.stdout.startswith(f"{path}: {NUM_FRAMES} frames of 80x64, on ")
    sought = made("h264-short.mp4", folder)
    as_needed, full = (
        run(libav.vivit_run, cpp.bundle, sought, "--decode", decode, "--repeat", "1", env=libav.env).splitlines()[:6]
        for decode in ("auto", "full")
    )
    assert as_needed == full
