"""`read_clip` on videos made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from videos import contract, frame_numbers, make_video, make_vp8_with_hidden_frames, patch_box, remux

from vivit_export.errors import ClipError
from vivit_export.runtime import read_clip

FAST_START = {"movflags": "faststart"}


def read_numbers(path: Path, num_frames: int) -> list[int]:
    return frame_numbers(read_clip(path, contract(num_frames)))


def uniform(total: int, num_frames: int) -> list[int]:
    return [i * total // num_frames for i in range(num_frames)]


FORMATS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "b-frames.mp4": {"codec_options": {"bf": "4"}},
    "long-gop.mkv": {"codec_options": {"g": "250"}},
    "broadcast.ts": {},
    "divx.avi": {"codec": "mpeg4", "codec_options": {"qmin": "1", "qmax": "2", "bf": "2"}},
    "program.mpg": {"codec": "mpeg2video", "codec_options": {"qmin": "1", "qmax": "2"}},
    "vfr.mp4": {"variable_rate": True},
    "vfr.mkv": {"variable_rate": True},
    "odd444.mp4": {"pix_fmt": "yuv444p", "size": (65, 49)},
    "ten-bit.mp4": {"pix_fmt": "yuv420p10le"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "with-audio.mp4": {"audio_seconds": 3.0},
    "with-audio.mkv": {"audio_seconds": 0.5},
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("num_frames", [1, 7, 40])
def test_samples_uniformly_in_presentation_order(tmp_path: Path, name: str, num_frames: int) -> None:
    path = make_video(tmp_path / name, **FORMATS[name])
    clip = read_clip(path, contract(num_frames))
    width, height = FORMATS[name].get("size", (64, 48))
    assert clip.shape == (num_frames, height, width, 3)
    assert clip.dtype == np.uint8 and clip.flags.c_contiguous
    assert frame_numbers(clip) == uniform(40, num_frames)


def test_sampling_covers_the_video() -> None:
    for total in range(8, 200, 7):
        chosen = uniform(total, 8)
        assert chosen[0] == 0
        assert total - 1 - total // 8 <= chosen[-1] < total
        assert len(set(chosen)) == 8


def test_colors_are_rgb_by_the_declared_matrix(tmp_path: Path) -> None:
    path, red = tmp_path / "red.mp4", np.full((48, 64, 3), (200, 30, 10), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv444p", {"qp": "1"}
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        container.mux(stream.encode())
    assert np.abs(read_clip(path, contract(4)).astype(int) - red).max() <= 3


@pytest.mark.field_case("decord 373", "decord 375")
def test_edit_lists_hide_frames(tmp_path: Path) -> None:
    """A trimmed clip keeps all packets; the edit list says which are shown."""
    path = make_video(tmp_path / "trimmed.mp4")
    patch_box(path, b"elst", 8, "I", 800)  # shown: 800 ms of 1600
    assert read_numbers(path, 20) == list(range(20))
    patch_box(path, b"elst", 8, "Ii", 800, 12 * 512 + 1024)  # from frame 12 on
    assert read_numbers(path, 10) == [12 + n for n in uniform(20, 10)]


def test_hidden_vp8_frames_are_not_counted(tmp_path: Path) -> None:
    path, shown = make_vp8_with_hidden_frames(tmp_path)
    assert read_numbers(path, 37) == shown
    assert read_numbers(path, 6) == [shown[n] for n in uniform(37, 6)]
    with pytest.raises(ClipError, match="has 37 frames but the model takes 38"):
        read_clip(path, contract(38))


def test_a_recording_that_starts_between_key_frames(tmp_path: Path) -> None:
    source = make_video(tmp_path / "all.ts", codec_options={"g": "12", "bf": "0"})
    path = remux(source, tmp_path / "joined-late.ts", lambda index, data: None if index < 5 else data)
    assert read_numbers(path, 28) == list(range(12, 40))


@pytest.mark.field_case("CO2A 3")
def test_a_video_that_is_too_short(tmp_path: Path) -> None:
    path = make_video(tmp_path / "short.mp4", 12)
    with pytest.raises(
        ClipError, match=r"short\.mp4 has 12 frames but the model takes 13; give a longer one, or choose short="
    ):
        read_clip(path, contract(13))


def cut(path: Path, fraction: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("index-last.mp4", {}, "cannot be read as a video"),
        ("index-first.mp4", {"container_options": FAST_START}, "is cut short: its last data are incomplete"),
        ("sound-last.mp4", {"container_options": FAST_START, "audio_seconds": 2.0}, "is cut short"),
        ("film.mkv", {"codec_options": {"g": "10"}, "audio_seconds": 3.0}, "is cut short: its header states"),
        ("divx.avi", {"codec": "mpeg4"}, "is cut short"),
    ],
)
@pytest.mark.field_case("imageio 1005", "kinetics 3")
def test_truncated_files_are_refused(tmp_path: Path, name: str, options: dict[str, Any], sentence: str) -> None:
    path = cut(make_video(tmp_path / name, **options), 0.85 if name != "film.mkv" else 0.5)
    with pytest.raises(ClipError, match=sentence):
        read_clip(path, contract(4))


def test_a_cut_exactly_between_two_packets_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "half.mp4", container_options=FAST_START, codec_options={"bf": "0"})
    with av.open(str(path)) as container:
        end = [p.pos for p in container.demux(video=0) if p.size][20]
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ClipError, match=r"its header states 1\.6 s but the data end at 0\.8 s"):
        read_clip(path, contract(4))


@pytest.mark.field_case("opencv 17257")
def test_damaged_data_are_refused(tmp_path: Path) -> None:
    """Frames that an indexed container holds but that do not decode."""
    path = make_video(tmp_path / "worn.mp4", codec_options={"bf": "0", "g": "1"})
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    data = bytearray(path.read_bytes())
    for position, size in packets[10:20]:
        data[position + 4 : position + size] = b"\xff" * (size - 4)
    path.write_bytes(data)
    with pytest.raises(ClipError, match=r"worn\.mp4 (is damaged|cannot be read as a video)"):
        read_clip(path, contract(4))


@pytest.mark.field_case("torchcodec 312")
def test_a_change_of_size_is_refused(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{w}.ts", size=(w, 48)).read_bytes() for w in (64, 96)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    with pytest.raises(ClipError, match=r"changes its frame size from 64x48 to 96x48 \(width x height\)"):
        read_clip(path, contract(8))


def test_odd_names_are_paths_not_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:clip.mp4", "a b%03d.mp4", "-i.mp4"):
        make_video(tmp_path / "plain.mp4").rename(tmp_path / name)
        assert read_numbers(Path(name), 4) == uniform(40, 4)
        assert frame_numbers(read_clip(name, contract(4))) == uniform(40, 4)
