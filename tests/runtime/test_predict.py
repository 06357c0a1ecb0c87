"""Predicting many videos: order, batches across videos, views, windows, and videos that cannot be used."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles import Bundles, need
from videos import make_video

import vivit_export as ve
from vivit_export.contract import Contract
from vivit_export.demo import clip_labels, clips_path
from vivit_export.errors import ClipError, EnvironmentFault, UsageError
from vivit_export.runtime import (
    Preprocessor,
    VideoFault,
    VideoPrediction,
    WindowRule,
    average_views,
    find_clips,
    predict_videos,
    read_clip,
    read_views,
    read_windows,
)
from vivit_export.runtime.clips import views
from vivit_export.runtime.clips.sampling import choose_sampling
from vivit_export.runtime.clips.video.reading import Reading
from vivit_export.runtime.predict import (
    adapt_contract,
    error_of,
    window_rule,
)
from vivit_export.runtime.session.session import Session

CLIPS = find_clips(clips_path())


@pytest.fixture(scope="module")
def session(bundles: Bundles) -> Iterator[Session]:
    need("onnxruntime")
    with ve.open_session(bundles.demo(), prefer="onnxruntime-cpu") as opened:
        yield opened


def predictions(results: Iterator[VideoPrediction | VideoFault]) -> list[VideoPrediction]:
    found = list(results)
    assert all(isinstance(result, VideoPrediction) for result in found)
    return [result for result in found if isinstance(result, VideoPrediction)]


def logits_of(result: VideoPrediction) -> npt.NDArray[np.float32]:
    assert result.prediction.logits is not None
    return result.prediction.logits


class Spy:
    """A session's back end that takes so many clips at once and remembers how many it was given."""

    def __init__(self, session: Session, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        run = session._backend.run

        def counted(batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
            self.sizes.append(len(batch))
            return run(batch)

        monkeypatch.setattr(session._backend, "run", counted)
        monkeypatch.setattr(session, "batches", (1, largest))


def test_every_demo_clip_is_recognized_in_order(session: Session) -> None:
    results = predictions(predict_videos(session, CLIPS))
    assert [result.path for result in results] == CLIPS
    assert {r.path.name: r.prediction.top(1)[0][0] for r in results} == clip_labels()


def test_a_video_alone_gives_what_frame_by_frame_gives(session: Session) -> None:
    (result,) = predictions(predict_videos(session, CLIPS[:1]))
    alone = session(read_clip(CLIPS[0], session.contract))
    np.testing.assert_array_equal(logits_of(result), alone.logits)
    np.testing.assert_array_equal(result.prediction.embedding, alone.embedding)
    assert result.prediction.labels == session.contract.labels


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1] * 8), (3, [3, 3, 2]), (8, [8]), (20, [8])])
def test_batches_are_filled_across_videos(
    session: Session, monkeypatch: pytest.MonkeyPatch, largest: int, sizes: list[int]
) -> None:
    expected = [logits_of(r) for r in predictions(predict_videos(session, CLIPS))]
    spy = Spy(session, largest, monkeypatch)
    results = predictions(predict_videos(session, CLIPS))
    assert spy.sizes == sizes
    assert [result.path for result in results] == CLIPS
    for result, logits in zip(results, expected, strict=True):
        np.testing.assert_allclose(logits_of(result), logits, rtol=0, atol=2e-6)


@pytest.mark.parametrize("windows", [None, WindowRule(0.8)])
def test_several_requests_are_under_way_at_once_and_come_back_in_order(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, windows: WindowRule | None
) -> None:
    paths = [CLIPS[0], tmp_path / "none.mp4", *CLIPS[1:]]
    expected = list(predict_videos(session, paths, windows=windows))
    run, meeting = session._backend.run, threading.Barrier(2)

    def met(batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        assert len(batch) == 1
        with suppress(threading.BrokenBarrierError):  # an odd one at the end has nobody to meet
            meeting.wait(timeout=20 if not met_once else 0.01)
            met_once.append(True)
        return run(batch)

    met_once: list[bool] = []
    monkeypatch.setattr(session._backend, "run", met)
    results = list(predict_videos(session, paths, windows=windows, in_flight=3))
    assert met_once
    assert [result.path for result in results] == [result.path for result in expected]
    for result, other in zip(results, expected, strict=True):
        if isinstance(result, VideoPrediction) and isinstance(other, VideoPrediction):
            assert result.span_seconds == other.span_seconds
            np.testing.assert_allclose(logits_of(result), logits_of(other), rtol=0, atol=2e-6)
        else:
            assert isinstance(result, VideoFault) and isinstance(other, VideoFault)


def test_an_engine_that_fails_under_way_is_said(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        raise EnvironmentFault("the engine is gone")

    monkeypatch.setattr(session._backend, "run", fail)
    with pytest.raises(EnvironmentFault, match="the engine is gone"):
        list(predict_videos(session, CLIPS, in_flight=3))


@pytest.mark.parametrize("readers", [1, 3, 40])
def test_any_number_of_readers_gives_the_same_and_reads_a_bounded_number_ahead(
    session: Session, monkeypatch: pytest.MonkeyPatch, readers: int
) -> None:
    begun: list[Path] = []
    original = views.read_views_to

    def counted(rows: npt.NDArray[Any], path: Path, *arguments: Any, **named: Any) -> None:
        begun.append(path)
        original(rows, path, *arguments, **named)

    monkeypatch.setattr("vivit_export.runtime.clips.processes.read_views_to", counted)
    paths = CLIPS * 3
    results = predict_videos(session, paths, readers=readers)
    labels = []
    for number, result in enumerate(results):
        assert isinstance(result, VideoPrediction)
        labels.append(result.prediction.top(1)[0][0])
        ahead = len(begun) - number
        assert ahead <= 2 * min(readers, len(paths)) + 2 * session.batches[1]
    assert len(begun) == len(paths)
    assert labels == [result.prediction.top(1)[0][0] for result in predictions(predict_videos(session, paths))]


def test_a_video_decoded_in_full_is_told(session: Session, tmp_path: Path) -> None:
    notes: list[tuple[Path, str]] = []
    reading = Reading(note=lambda path, why: notes.append((path, why)))
    avi = make_video(tmp_path / "a.avi")
    assert len(predictions(predict_videos(session, [CLIPS[0], avi], reading=reading))) == 2
    assert notes == [(avi, "seeking in avi files is not exact")]
    full = dataclasses.replace(reading, decode="full")
    assert len(predictions(predict_videos(session, [avi], reading=full))) == 1
    assert len(notes) == 1


def test_views_are_averaged(session: Session) -> None:
    contract = adapt_contract(session.contract, stride=2, views=(4, 3))
    results = predictions(predict_videos(session, CLIPS[:3], contract=contract))
    for result, path in zip(results, CLIPS[:3], strict=True):
        each = session.infer(read_views(path, contract))
        assert each.shape == (12, 8)
        np.testing.assert_allclose(logits_of(result), average_views(each), rtol=0, atol=2e-6)


def test_windows_come_in_order_of_time(session: Session) -> None:
    rule = WindowRule(0.8, 0.4)
    results = predictions(predict_videos(session, CLIPS[:2], windows=rule))
    expected = [(p, w) for p in CLIPS[:2] for w in read_windows(p, session.contract, window=0.8, hop=0.4)]
    assert len(results) == len(expected) > 4
    for result, (path, window) in zip(results, expected, strict=True):
        assert (result.path, result.span_seconds) == (path, (window.start_seconds, window.end_seconds))
        np.testing.assert_allclose(logits_of(result), session.infer(window.frames[None])[0], rtol=0, atol=2e-6)
        facts = result.to_json(1)
        assert facts["start_seconds"] == window.start_seconds and facts["end_seconds"] == window.end_seconds


@pytest.mark.parametrize("largest", [1, 4])
def test_what_cannot_be_used_keeps_its_place(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, largest: int
) -> None:
    Spy(session, largest, monkeypatch)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    paths = [text, CLIPS[0], tmp_path / "none.mp4", CLIPS[1], text]
    results = list(predict_videos(session, paths))
    assert [result.path for result in results] == paths
    assert [isinstance(result, VideoFault) for result in results] == [True, False, True, False, True]
    good = [result for result in results if isinstance(result, VideoPrediction)]
    assert [result.prediction.top(1)[0][0] for result in good] == ["down", "grow"]
    assert "is a text file; give a video file" in str(results[0].error)  # type: ignore[union-attr]
    assert "does not exist" in str(results[2].error)  # type: ignore[union-attr]


@pytest.mark.field_case("kinetics 16", "decord 162")
def test_of_many_videos_each_broken_one_has_its_sentence_and_the_others_their_result(
    session: Session, tmp_path: Path
) -> None:
    broken = {}
    for number, (data, said) in enumerate(
        [
            (CLIPS[0].read_bytes()[:3000], "is cut short"),
            (b"\0" * 5000, "cannot be read as a video"),
            (b"", "is empty; give a video file"),
        ]
    ):
        path = tmp_path / f"broken-{number}.mp4"
        path.write_bytes(data)
        broken[path] = said
    paths = CLIPS * 25
    for place, path in zip((0, 77, 202), broken, strict=True):
        paths.insert(place, path)
    results = list(predict_videos(session, paths, readers=3))
    assert [result.path for result in results] == paths
    for result in results:
        if isinstance(result, VideoFault):
            assert str(result.error).startswith(f"{result.path} ") and broken[result.path] in str(result.error)
        else:
            assert result.prediction.top(1)[0][0] == clip_labels()[result.path.name]
    assert sum(isinstance(result, VideoFault) for result in results) == 3


def test_a_window_video_that_cannot_be_used_does_not_stop_the_others(session: Session, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    results = list(predict_videos(session, [text, CLIPS[0]], windows=WindowRule(1.0)))
    assert isinstance(results[0], VideoFault)
    assert {result.path for result in results[1:]} == {CLIPS[0]}


@pytest.mark.parametrize("form", [str, Path])
@pytest.mark.parametrize("windows", [None, WindowRule(0.8)])
def test_one_path_is_one_video(session: Session, form: type, windows: WindowRule | None) -> None:
    results = predictions(predict_videos(session, form(CLIPS[0]), windows=windows))
    assert {result.path for result in results} == {CLIPS[0]}
    assert len(results) == 1 or windows


def test_what_is_no_path_is_refused_at_once(session: Session) -> None:
    with CLIPS[0].open("rb") as file, pytest.raises(UsageError, match=r"^paths must be a path, got _io.BufferedReader"):
        list(predict_videos(session, [CLIPS[0], file]))  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"^paths must be a path, got int; give a string or a Path$"):
        list(predict_videos(session, 7))  # type: ignore[arg-type]


def test_no_videos_give_nothing(session: Session) -> None:
    assert list(predict_videos(session, [])) == []


def test_impossible_views_stop_at_once(session: Session) -> None:
    preprocess = dataclasses.replace(
        session.contract.preprocess, do_center_crop=False, size=(64, 64), shortest_edge=None
    )
    contract = adapt_contract(dataclasses.replace(session.contract, preprocess=preprocess), views=(1, 3))
    with pytest.raises(UsageError, match="3 spatial views need a crop to move"):
        list(predict_videos(session, CLIPS, contract=contract))


def test_a_bundle_that_resizes_takes_videos_of_its_size_alone(bundles: Bundles) -> None:
    need("onnxruntime")
    bundle = bundles.demo(input_mode="frames", frame_size=(240, 320))
    fits = clips_path() / "left_320x240_25fps.mp4"
    with ve.open_session(bundle, prefer="onnxruntime-cpu") as opened:
        good, fault = predict_videos(opened, [fits, clips_path() / "up_240x426_30fps.mp4"])
        assert isinstance(good, VideoPrediction)
        crops = Preprocessor.from_bundle(bundle.path).crops(read_clip(fits, opened.contract))
        plain = ve.open_session(bundles.demo(), prefer="onnxruntime-cpu").infer(crops[None])[0]
        np.testing.assert_allclose(logits_of(good), plain, rtol=0, atol=2e-6)
    assert isinstance(fault, VideoFault)
    assert "is 240x426 but this bundle takes frames of 320x240" in str(fault.error)


# --- what is asked for -------------------------------------------------------------------------


def demo_contract(bundles: Bundles) -> Contract:
    return bundles.demo().contract


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"stride": 3}, ("stride", 3, "refuse", (1, 1))),
        ({"sampling": "center"}, ("center", 1, "refuse", (1, 1))),
        ({"sampling": "stride"}, ("stride", 1, "refuse", (1, 1))),
        ({"short": "loop"}, ("uniform", 1, "loop", (1, 1))),
        ({"stride": 2, "views": (4, 3)}, ("stride", 2, "refuse", (4, 3))),
        ({"views": (1, 3)}, ("uniform", 1, "refuse", (1, 3))),
        ({}, ("uniform", 1, "refuse", (1, 1))),
    ],
)
def test_sampling_is_changed_as_asked(bundles: Bundles, asked: dict[str, Any], expected: tuple[Any, ...]) -> None:
    clip = choose_sampling(demo_contract(bundles).clip, **asked)
    assert (clip.sampling, clip.stride, clip.short, clip.views) == expected


def test_a_stride_of_the_bundle_goes_with_its_sampling(bundles: Bundles) -> None:
    strided = choose_sampling(demo_contract(bundles).clip, stride=4)
    assert choose_sampling(strided, sampling="uniform").stride == 1
    assert choose_sampling(strided, short="loop").stride == 4


@pytest.mark.parametrize(
    "asked", [{"sampling": "head", "stride": 2}, {"views": (2, 1)}, {"views": (1, 2)}, {"stride": 0}]
)
def test_sampling_that_does_not_go_together_is_refused(bundles: Bundles, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^clip (stride|views)="):
        choose_sampling(demo_contract(bundles).clip, **asked)


def test_numbers_beyond_any_video_are_refused(bundles: Bundles) -> None:
    clip = demo_contract(bundles).clip
    with pytest.raises(UsageError, match=r"^stride=1000001 must be at most 1000000$"):
        choose_sampling(clip, stride=1_000_001, short="loop")
    with pytest.raises(UsageError, match=r"^views=1001x1 must be at most 1000 temporal views$"):
        choose_sampling(clip, stride=1, views=(1001, 1))


def test_window_options_that_do_not_go_together_are_refused() -> None:
    assert window_rule(None, None) is None
    assert window_rule((2.0, "seconds"), None) == WindowRule(2.0)
    assert window_rule((8.0, "frames"), (4.0, "frames")) == WindowRule(8.0, 4.0, "frames")
    for arguments, said in (
        ((None, (1.0, "seconds")), "give window too"),
        (((1.0, "seconds"), (4.0, "frames")), "count both in one unit"),
        (((1.0, "seconds"), None, (4, 3)), "exclude each other"),
    ):
        with pytest.raises(UsageError, match=said):
            window_rule(*arguments)


def test_labels_of_a_file_are_taken_instead_of_the_bundles(bundles: Bundles, tmp_path: Path) -> None:
    names = [f"name {i}" for i in range(8)]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    assert list(adapt_contract(demo_contract(bundles), labels=tmp_path / "labels.txt").labels) == names


def test_one_fault_is_a_sentence_and_several_are_a_list() -> None:
    fault = VideoFault(Path("a.mp4"), ClipError("a.mp4 is empty"))
    assert str(error_of([fault], 1)) == "a.mp4 is empty"
    assert str(error_of([fault, fault], 5)).splitlines() == [
        "2 of 5 videos could not be used:",
        "  a.mp4 is empty",
        "  a.mp4 is empty",
    ]
