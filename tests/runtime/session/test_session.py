"""What every engine owes its caller, on the engines that run everywhere."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles import Bundles, need, random_crops
from PIL import Image

import vivit_export as ve
from vivit_export.bundle import Bundle
from vivit_export.errors import ClipError, EnvironmentFault, UsageError
from vivit_export.runtime import Preprocessor
from vivit_export.runtime.session.session import Session

# fp32: rounding alone. Low precision: the weights' own rounding, as measured, doubled.
LIMITS = {"fp32": 1e-5, "fp16": 2.5e-3, "bf16": 2e-2}


@pytest.fixture(params=["onnxruntime-cpu", "openvino"])
def engine(request: pytest.FixtureRequest) -> str:
    need(request.param.removesuffix("-cpu"))
    return str(request.param)


@pytest.mark.parametrize("attention", ["fused-op", "pattern"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_results_are_those_of_eager(bundles: Bundles, engine: str, precision: str, attention: str) -> None:
    bundle = bundles.demo(precision=precision, attention=attention)
    expected = bundles.golden
    with ve.open_session(bundle, prefer=engine) as session:
        results = session.run(expected["frames"])
        assert session.engine == engine
        assert "fp32" in session.details
        assert (precision in session.details) == (precision != "fp32" or "fp32" in session.details)
    for name in ("logits", "embedding"):
        assert results[name].dtype == np.float32
        np.testing.assert_allclose(results[name], expected[name], rtol=0, atol=LIMITS[precision])


def test_frames_of_a_camera_go_in_as_they_are(bundles: Bundles, engine: str) -> None:
    bundle = bundles.demo()
    frames = np.random.default_rng(0).integers(0, 256, (8, 90, 120, 3), dtype=np.uint8)
    crops = Preprocessor.from_bundle(bundle.path).crops(frames)
    with ve.open_session(bundle.path, prefer=engine) as session:
        result = session(frames)
        same = session(list(frames)), session([Image.fromarray(frame) for frame in frames])
        assert result.logits is not None
        assert result.embedding is not None
        np.testing.assert_array_equal(result.logits, session.infer(crops[None])[0])
        for other in same:
            np.testing.assert_array_equal(other.logits, result.logits)
        assert result.logits.shape == (8,)
        assert result.embedding.shape == (128,)


def test_pixels_bundles_take_crops_and_pixels(bundles: Bundles, engine: str) -> None:
    bundle = bundles.demo(input_mode="pixels")
    expected = bundles.golden
    pixels = Preprocessor.from_bundle(bundle.path).to_pixels(expected["frames"])
    with ve.open_session(bundle, prefer=engine) as session:
        logits = session.infer(expected["frames"])
        np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(session.infer(pixels), logits)
        frames = np.random.default_rng(0).integers(0, 256, (8, 90, 120, 3), dtype=np.uint8)
        alone = session.infer(Preprocessor.from_bundle(bundle.path)(frames))
        np.testing.assert_array_equal(session(frames).logits, alone[0])


def test_frames_bundles_resize_in_the_graph(bundles: Bundles, engine: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (8, 90, 120, 3), dtype=np.uint8)
    bundle = bundles.demo(input_mode="frames", frame_size=(90, 120))
    with ve.open_session(bundle, prefer=engine) as session, ve.open_session(bundles.demo(), prefer=engine) as crops:
        logits, expected = session(frames).logits, crops(frames).logits
        assert logits is not None and expected is not None
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(session.infer(frames[None].repeat(3, 0))[2], logits, rtol=0, atol=1e-5)
        with pytest.raises(ClipError, match=r"takes uint8 frames \(8, 90, 120, 3\)"):
            session(frames[:, :80])


def test_an_embedding_alone(bundles: Bundles, engine: str) -> None:
    bundle = bundles.demo(outputs=("embedding",))
    with ve.open_session(bundle, prefer=engine) as session:
        result = session(random_crops(bundle, 1)[0])
        assert result.logits is None
        assert result.embedding is not None
        assert list(session.run(random_crops(bundle, 2))) == ["embedding"]
        with pytest.raises(UsageError, match="no logits"):
            session.infer(random_crops(bundle, 1))
        with pytest.raises(UsageError, match="no logits"):
            result.top()


# --- batches -----------------------------------------------------------------------------------


@pytest.mark.field_case("rf-detr 949")
def test_batches_of_any_size(bundles: Bundles, engine: str) -> None:
    bundle = bundles.demo()
    with ve.open_session(bundle, prefer=engine) as session:
        largest = session.batches[1]
        assert 1 < largest < 40
        clips = random_crops(bundle, 2 * largest + 3)
        logits = session.infer(clips)
        assert logits.shape == (2 * largest + 3, 8)
        for i in (0, largest - 1, largest, 2 * largest + 2):
            np.testing.assert_allclose(session.infer(clips[i : i + 1])[0], logits[i], rtol=0, atol=1e-5)


class Recording:
    """A back end that takes 2 to 4 clips and returns their first pixel."""

    name, details, batches = "recording", "a recording", (2, 4)

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.closed = False
        self.gate: threading.Event | None = None

    def run(self, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        self.sizes.append(len(batch))
        if self.gate is not None:
            self.gate.wait(10)
        assert not self.closed
        return {"logits": np.repeat(batch[:, :1, 0, 0, 0], 8, axis=1).astype(np.float32)}

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("count", "sizes"), [(1, [2]), (2, [2]), (4, [4]), (5, [4, 2]), (8, [4, 4]), (11, [4, 4, 3])])
def test_parts_that_the_engine_takes(bundles: Bundles, count: int, sizes: list[int]) -> None:
    bundle, backend = bundles.demo(), Recording()
    clips = random_crops(bundle, count)
    logits = Session(bundle.contract, backend, {}).infer(clips)
    assert backend.sizes == sizes
    np.testing.assert_array_equal(logits[:, 0], clips[:, 0, 0, 0, 0].astype(np.float32))


# --- refusals ----------------------------------------------------------------------------------


@pytest.fixture
def session(bundles: Bundles) -> Session:
    return Session(bundles.demo().contract, Recording(), {})


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (np.zeros((1, 8, 64, 64, 3), np.float32), r"uint8 \(B, 8, 64, 64, 3\), got float32 \(1, 8, 64, 64, 3\)"),
        (np.zeros((1, 8, 64, 64, 3), np.int64), "got int64"),
        (np.zeros((8, 64, 64, 3), np.uint8), r"got uint8 \(8, 64, 64, 3\)"),
        (np.zeros((1, 8, 3, 64, 64), np.uint8), r"got uint8 \(1, 8, 3, 64, 64\)"),
        (np.zeros((1, 9, 64, 64, 3), np.uint8), r"got uint8 \(1, 9, 64, 64, 3\)"),
        (np.zeros((0, 8, 64, 64, 3), np.uint8), "there are no clips"),
        (np.uint8(3), r"got uint8 \(\)"),
        ([np.zeros((8, 64, 64, 3), np.uint8)], "got list"),
    ],
)
def test_what_is_not_a_batch_is_refused(session: Session, clips: Any, message: str) -> None:
    with pytest.raises(ClipError, match=message):
        session.infer(clips)


def test_a_frames_bundle_says_its_size(bundles: Bundles) -> None:
    contract = bundles.demo().contract.to_json()
    contract["io"].update(mode="frames", frame_size=[90, 120])
    contract["io"]["inputs"][0]["shape"] = ["batch", 8, 90, 120, 3]
    session = Session(ve.Contract.from_json(contract), Recording(), {})
    frames = np.zeros((8, 90, 120, 3), np.uint8)
    frames[0, 0, 0] = 7
    assert session(frames).logits is not None
    np.testing.assert_array_equal(session(list(frames)).logits, np.full(8, 7, np.float32))
    for wrong in (frames[:, :, :100], list(frames[:7]), [*frames[:7], frames[7, :80]], frames.astype(np.float32), "x"):
        with pytest.raises(ClipError, match=r"takes uint8 frames \(8, 90, 120, 3\), got .*--input crops"):
            session(wrong)  # type: ignore[arg-type]


@pytest.mark.field_case("onnxruntime 18632")
def test_a_closed_session_says_so(bundles: Bundles, engine: str) -> None:
    bundle = bundles.demo()
    with ve.open_session(bundle, prefer=engine) as session:
        assert "closed" not in repr(session)
    session.close()
    assert "closed" in repr(session)
    with pytest.raises(UsageError, match="the session is closed"):
        session.infer(random_crops(bundle, 1))


@pytest.mark.field_case("onnxruntime 643", "onnxruntime 7846")
def test_a_session_stays_in_its_process(bundles: Bundles, engine: str) -> None:
    with ve.open_session(bundles.demo(), prefer=engine) as session:
        for duplicate in (pickle.dumps, copy.deepcopy):
            with pytest.raises(UsageError, match=r"belongs to this process .* with open_session"):
                duplicate(session)


def test_closing_frees_the_graph(bundles: Bundles, engine: str) -> None:
    """Though the closed session is kept."""
    bundle = bundles.demo()
    with ve.open_session(bundle, prefer=engine) as session:
        session.infer(random_crops(bundle, 1))
        (graph,) = (
            weakref.ref(value)
            for name, value in vars(session._backend).items()
            if name in ("_model", "_session")  # OpenVINO's, ONNX Runtime's
        )
        assert graph() is not None
    gc.collect()
    assert graph() is None


def test_closing_waits_for_calls_in_progress(bundles: Bundles) -> None:
    backend = Recording()
    backend.gate = threading.Event()
    session = Session(bundles.demo().contract, backend, {})
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(session.infer, random_crops(bundles.demo(), 3))
        while not backend.sizes:
            pass
        closing = pool.submit(session.close)
        while "closed" not in repr(session):
            pass
        with pytest.raises(UsageError, match="the session is closed"):
            session.infer(random_crops(bundles.demo(), 1))
        assert not closing.done()
        backend.gate.set()
        assert call.result(10).shape == (3, 8)
        closing.result(10)
    assert backend.closed


def test_a_failure_inside_the_engine_is_one_sentence(bundles: Bundles, engine: str) -> None:
    with ve.open_session(bundles.demo(), prefer=engine) as session:
        with pytest.raises(EnvironmentFault, match="failed on a batch of 1: "):
            session._backend.run(np.zeros((1, 8, 32, 32, 3), np.uint8))
        assert session.infer(random_crops(bundles.demo(), 1)).shape == (1, 8)


# --- threads -----------------------------------------------------------------------------------


@pytest.mark.field_case("onnxruntime 10786")
def test_two_sessions_in_eight_threads_give_the_bits_of_one(bundles: Bundles, engine: str) -> None:
    bundle = bundles.demo()
    clips = [random_crops(bundle, 1 + i % 3, seed=i) for i in range(10)]
    sessions = [ve.open_session(bundle, prefer=engine) for _ in range(2)]
    alone = [sessions[0].run(batch) for batch in clips]
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(sessions[i % 2].run, clips[i % 10]) for i in range(200)]
        for i, job in enumerate(jobs):
            for name, array in job.result(60).items():
                np.testing.assert_array_equal(array, alone[i % 10][name])
    for session in sessions:
        session.close()


def test_results_belong_to_the_caller(bundles: Bundles, engine: str) -> None:
    bundle = bundles.demo()
    clips = random_crops(bundle, 1)
    clips.setflags(write=False)
    with ve.open_session(bundle, prefer=engine) as session:
        first = session.infer(clips)
        kept = first.copy()
        session.infer(random_crops(bundle, 1, seed=1))
        np.testing.assert_array_equal(first, kept)
        first[:] = 0
        np.testing.assert_array_equal(session.infer(clips), kept)
        every_other = random_crops(bundle, 4)[::2]
        np.testing.assert_array_equal(session.infer(every_other), session.infer(every_other.copy()))


# --- predictions -------------------------------------------------------------------------------


def test_the_demo_clips_are_recognized(bundles: Bundles) -> None:
    from vivit_export import demo

    bundle: Bundle = bundles.demo()
    with ve.open_session(bundle) as session:
        for name, label in demo.clip_labels().items():
            frames = ve.runtime.read_clip(demo.clips_path() / name, session.contract)
            assert session(frames).top(1)[0][0] == label


# --- clip after clip ---------------------------------------------------------------------------


def cameras(count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Clips of several frame sizes."""
    for number in range(count):
        size = [(90, 120), (64, 64), (70, 300)][number % 3]
        yield np.random.default_rng(number).integers(0, 256, (8, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["crops", "pixels"])
@pytest.mark.parametrize("batch", [None, 1, 5])
def test_an_iterator_gives_what_clip_by_clip_gives(bundles: Bundles, mode: str, batch: int | None) -> None:
    with ve.open_session(bundles.demo(input_mode=mode), prefer="onnxruntime-cpu") as session:
        results = session.run(cameras(11), batch=batch)
        for clip, result in zip(cameras(11), results, strict=True):
            alone = session(clip)
            assert result.logits is not None and alone.logits is not None
            np.testing.assert_allclose(result.logits, alone.logits, rtol=0, atol=1e-5)
            np.testing.assert_allclose(result.embedding, alone.embedding, rtol=0, atol=1e-5)  # type: ignore[arg-type]
        assert list(session.run(cameras(0))) == []


def test_an_iterator_of_whole_frames(bundles: Bundles) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (5, 8, 90, 120, 3), dtype=np.uint8)
    bundle = bundles.demo(input_mode="frames", frame_size=(90, 120))
    with ve.open_session(bundle, prefer="onnxruntime-cpu") as session:
        found = [result.logits for result in session.run(list(clip) for clip in clips)]
        np.testing.assert_allclose(np.stack(found), session.infer(clips), rtol=0, atol=1e-5)  # type: ignore[arg-type]


def test_a_clip_that_does_not_fit_ends_an_iterator_in_its_place(bundles: Bundles) -> None:
    def clips() -> Iterator[npt.NDArray[np.uint8]]:
        yield from cameras(3)
        yield np.zeros((7, 90, 120, 3), np.uint8)
        yield from cameras(3)

    with ve.open_session(bundles.demo(), prefer="onnxruntime-cpu") as session:
        results = session.run(clips(), batch=2)
        assert len([next(results) for _ in range(3)]) == 3
        with pytest.raises(ClipError, match="the clip has 7 frames but the model takes 8"):
            next(results)


def test_the_options_of_an_iterator(bundles: Bundles) -> None:
    bundle = bundles.demo()
    with ve.open_session(bundle, prefer="onnxruntime-cpu") as session:
        with pytest.raises(UsageError, match=r"^batch=0 must be at least 1$"):
            session.run(cameras(1), batch=0)
        with pytest.raises(UsageError, match=r"^readers=-1 must be at least 1$"):
            session.run(cameras(1), readers=-1)
        with pytest.raises(UsageError, match=r"^batch=2 is for an iterator of clips; an array is one batch$"):
            session.run(random_crops(bundle, 2), batch=2)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="the session is closed"):
        next(session.run(cameras(1)))
