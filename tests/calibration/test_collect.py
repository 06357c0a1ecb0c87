"""What is observed is what the tensors hold; a run can be interrupted, continued, and does not grow."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from checkpoints import Checkpoints
from safetensors.numpy import load_file

from vivit_export.bundle import MODEL
from vivit_export.bundle.tensors import save_tensors
from vivit_export.calibration import cache as cache_module
from vivit_export.calibration import collect as collect_module
from vivit_export.calibration.cache import Observations, default_cache, load_observations, save_observations
from vivit_export.calibration.clips import find_calibration_clips
from vivit_export.calibration.collect import add, collect, observe
from vivit_export.calibration.options import CalibrationOptions
from vivit_export.contract import Contract
from vivit_export.errors import CalibrationError, ClipError, OutputError
from vivit_export.export.calibrate import calibration_graph
from vivit_export.export.graph.build import rewrite_graph, save_graph
from vivit_export.precision import Precision
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession

pytestmark = pytest.mark.needs_onnxruntime

CropsFile = Callable[..., Path]
TOKENS = 17  # of a clip of the tiny checkpoints
KEY = {"model": "m" * 64, "weights": "w" * 64, "contract": "c" * 64, "clips": "d" * 64}


class Run:
    """A tiny model ready to be calibrated, two clips at a time."""

    def __init__(self, checkpoints: Checkpoints, folder: Path, contract: Contract, data: Path) -> None:
        checkpoint = checkpoints.load(num_hidden_layers=2)
        model = rewrite_graph(checkpoint, ("logits",), Precision.INT8).model
        self.layers = calibration_graph(checkpoint, model)
        self.tensors = [group.tensor for group in self.layers]
        self.model = model
        self.path = folder / MODEL
        self.cache = folder / "kept" / "cache.safetensors"
        self.data = data
        self.contract = contract
        self.counted: list[int] = []
        save_graph(model, folder)

    def __call__(self, **options: Any) -> Observations:
        clips = find_calibration_clips(self.data, self.contract, **options)
        return collect(
            self.path, self.tensors, clips, tokens=TOKENS, cache=self.cache, key=KEY, count=self.counted.append
        )

    def values(self, crops: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        """What ONNX Runtime finds in the tensors, attention as in the graph."""
        copy = self.model.clone()
        named = {v.name: v for node in copy.graph for v in node.outputs}
        copy.graph.outputs[:] = [named[name] for name in self.tensors]
        folder = self.path.parent / "plain"
        folder.mkdir(exist_ok=True)
        ir.save(copy, folder / MODEL)
        return OnnxRuntimeSession(folder / MODEL).run(crops)


@pytest.fixture
def run(
    checkpoints: Checkpoints,
    tmp_path: Path,
    contract: Contract,
    crops_file: CropsFile,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    monkeypatch.setattr(collect_module, "_TOKENS_PER_CALL", 2 * TOKENS)
    return Run(checkpoints, tmp_path, contract, crops_file(33))


def test_the_layers_are_the_encoders(run: Run) -> None:
    assert [group.name for group in run.layers] == [
        f"layers.{i}.{name}" for i in (0, 1) for name in ("attention.qkv", "attention.o_proj", "mlp.fc1", "mlp.fc2")
    ]
    assert [group.smoothing for group in run.layers[:4]] == ["free", "none", "free", "mul"]
    assert [len(group.weights) for group in run.layers[:4]] == [3, 1, 1, 1]


def test_observations_are_those_of_the_tensors(run: Run) -> None:
    state = run()
    values = run.values(load_file(run.data)["frames"])
    for name in run.tensors:
        seen, flat = state.tensors[name], values[name].reshape(-1, values[name].shape[-1])
        assert seen.num_rows == len(flat)
        assert seen.histogram.counts.sum() == flat.size
        assert seen.histogram.nonfinite == 0
        np.testing.assert_allclose(seen.channel_max, np.abs(flat).max(axis=0), rtol=1e-4)
        assert seen.histogram.largest == seen.channel_max.max()
        np.testing.assert_allclose(seen.channel_mean, flat.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(
            np.quantile(np.abs(flat), 0.5), _quantile(seen.histogram.counts, 0.5), rtol=0.02, atol=1e-6
        )


def _quantile(counts: npt.NDArray[np.int64], share: float) -> float:
    i = np.searchsorted(np.cumsum(counts), share * counts.sum())
    return float((np.array([i], np.uint32) << 16).view(np.float32)[0])


def test_kept_rows_are_rows_of_the_tensors_with_each_class_token(run: Run) -> None:
    state = run()
    crops = load_file(run.data)["frames"]
    values = run.values(crops)
    for name in run.tensors:
        rows, flat = state.tensors[name].rows, values[name].reshape(-1, values[name].shape[-1])
        distance = np.abs(rows[:, None] - flat[None]).max(axis=2)
        assert distance.min(axis=1).max() < 1e-4
        first = np.abs(rows[:, None] - values[name][None, :, 0]).max(axis=2).min(axis=1)
        assert (first < 1e-4).sum() >= len(crops)


def test_memory_does_not_grow_with_clips(run: Run, crops_file: CropsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_module, "ROWS", 32)

    def size(state: Observations) -> int:
        return sum(
            t.histogram.counts.nbytes + t.channel_max.nbytes + t.channel_sum.nbytes + t.rows.nbytes
            for t in state.tensors.values()
        )

    few = size(run())
    run.cache.unlink()
    run.data = crops_file(66, name="more")
    assert size(run()) == few


def test_every_clip_is_counted_once(run: Run, crops_file: CropsFile) -> None:
    def change(crops: npt.NDArray[np.uint8]) -> None:
        crops[3:5] = 7

    run.data = crops_file(35, change, name="some")
    run()
    assert sum(run.counted) == 35
    assert len(run.counted) > 15
    run.counted.clear()
    run()
    assert run.counted == [35]  # all from the cache


# --- resuming ----------------------------------------------------------------------------------


def assert_same(a: Observations, b: Observations) -> None:
    assert (a.done, a.set_aside) == (b.done, b.set_aside)
    for name, one in a.tensors.items():
        other = b.tensors[name]
        assert one.histogram.largest == other.histogram.largest
        assert one.num_rows == other.num_rows
        for left, right in (
            (one.histogram.counts, other.histogram.counts),
            (one.channel_max, other.channel_max),
            (one.channel_sum, other.channel_sum),
            (one.rows, other.rows),
        ):
            np.testing.assert_array_equal(left, right)


def interrupt_after(calls: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> list[int]:
    """Let the session raise at the call after so many; the list counts them."""
    made: list[int] = []
    original = OnnxRuntimeSession.run

    def stopping(self: OnnxRuntimeSession, batch: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        made.append(len(batch))
        if len(made) == calls + 1:
            raise error
        return original(self, batch)

    monkeypatch.setattr(OnnxRuntimeSession, "run", stopping)
    return made


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_continues_and_ends_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    whole = run()
    run.cache.unlink()
    with monkeypatch.context() as patch:
        interrupt_after(7, patch, error)
        with pytest.raises(error):
            run()
    kept = load_observations(run.cache, KEY)
    assert kept is not None and len(kept.done) == 14
    with monkeypatch.context() as patch:
        made = interrupt_after(1000, patch, error)
        assert_same(run(), whole)
    assert sum(made) == 33 - 14


def test_a_finished_run_is_not_repeated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run()
    monkeypatch.setattr(collect_module, "OnnxRuntimeSession", None)
    assert_same(run(), whole)
    assert [p.name for p in run.cache.parent.iterdir()] == [run.cache.name]


def test_set_aside_clips_are_remembered(run: Run, crops_file: CropsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(crops: npt.NDArray[np.uint8]) -> None:
        crops[:3] = 9

    run.data = crops_file(36, change, name="some")
    whole = run()
    assert len(whole.set_aside) == 3
    run.cache.unlink()
    with monkeypatch.context() as patch:
        interrupt_after(12, patch, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert_same(run(), whole)
    assert_same(run(), whole)


@pytest.mark.parametrize("part", KEY)
def test_a_cache_of_something_else_is_refused_and_kept(run: Run, part: str) -> None:
    save_observations(run.cache, {**KEY, part: "x"}, Observations())
    before = run.cache.read_bytes()
    with pytest.raises(CalibrationError, match=rf"holds a calibration of another {part}; name another file"):
        run()
    assert run.cache.read_bytes() == before


def test_a_damaged_cache_is_refused(run: Run) -> None:
    run()
    run.cache.write_bytes(run.cache.read_bytes()[:-100])
    with pytest.raises(CalibrationError, match="is not a calibration cache, or is damaged"):
        run()
    run.cache.write_bytes(run.data.read_bytes())
    with pytest.raises(CalibrationError, match="is not a calibration cache, or is damaged"):
        run()


def test_each_model_and_data_has_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = {default_cache({**KEY, part: "x" * 64}) for part in KEY} | {default_cache(KEY)}
    assert len(paths) == len(KEY) + 1
    assert all(path.is_relative_to(tmp_path / "vivit-export") for path in paths)


def test_the_sequences_of_a_clip_are_one_clip() -> None:
    """Of two clips with three sequences each: the rows that are kept, and the name of a damaged one, are a clip's."""
    whole = np.random.default_rng(0).normal(size=(2, 12, 4)).astype(np.float32)
    forms = (whole, whole.reshape(6, 4, 4))
    found = [observe({"a": values}, ["a"], ["first", "second"], 5, 0)["a"] for values in forms]
    assert len(found[0].rows) == 10
    np.testing.assert_array_equal(found[0].rows, found[1].rows)
    np.testing.assert_array_equal(found[0].histogram.counts, found[1].histogram.counts)
    whole[0, 11, 0] = np.nan
    with pytest.raises(CalibrationError, match="on the clip first"):
        observe({"a": whole.reshape(6, 4, 4)}, ["a"], ["first", "second"], 5, 0)


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_names_layer_and_clip_and_changes_nothing(value: float) -> None:
    batch = np.ones((2, 3, 4), np.float32)
    damaged = batch.copy()
    damaged[1, 2, 3] = value
    with pytest.raises(CalibrationError, match="b has NaN or infinite values on the clip second; a range cannot be"):
        observe({"a": batch, "b": damaged}, ["a", "b"], ["first", "second"], 1, 0)


@pytest.mark.parametrize("split", [(1, 6), (3, 4), (1, 1, 5), (2, 2, 3)])
def test_batches_observed_apart_add_up_to_the_whole(split: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_module, "ROWS", 9)
    whole_numbers = np.random.default_rng(0).integers(-99, 99, (7, 70, 4)).astype(np.float32)
    names = [str(n) for n in range(7)]
    whole, parts, before = Observations(), Observations(), 0
    add(whole, observe({"a": whole_numbers}, ["a"], names, 2, 0))
    for size in split:
        part = slice(before, before + size)
        add(parts, observe({"a": whole_numbers[part]}, ["a"], names[part], 2, before))
        before += size
    assert parts.tensors["a"].num_rows == 490
    np.testing.assert_array_equal(parts.tensors["a"].channel_sum, whole_numbers.sum(axis=(0, 1)))
    whole.tensors["a"].rows = whole.tensors["a"].rows[:9]
    assert_same(parts, whole)


def test_a_place_that_cannot_be_written_is_found_out_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.cache.parent.write_text("a file")
    monkeypatch.setattr(collect_module, "OnnxRuntimeSession", None)
    with pytest.raises(OutputError, match=r"the calibration cache .* was not written: it cannot be written"):
        run()


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, link_to_a_device])
def test_a_cache_never_replaces_what_is_no_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    cache = tmp_path / "cache"
    make(cache)
    kind = cache.lstat().st_mode
    with pytest.raises(CalibrationError, match="cache is not a file, so it is not a calibration cache; name another"):
        load_observations(cache, KEY)
    writes: list[Callable[[], object]] = [
        partial(save_observations, cache, KEY, Observations()),
        partial(CalibrationOptions((tmp_path,), cache=cache).require_data, "x"),
    ]
    for write in writes:
        with pytest.raises(OutputError, match=r"cache is a .*, not a file that can be replaced; choose another name"):
            write()
    assert cache.lstat().st_mode == kind


def test_a_linked_cache_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("cache")
    for _ in range(2):
        save_observations(tmp_path / "link", KEY, Observations())
        assert load_observations(tmp_path / "cache", KEY) == Observations()
    assert (tmp_path / "link").is_symlink()


def test_a_disk_that_fills_keeps_what_was_saved(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run()
    run.cache.unlink()
    monkeypatch.setattr(collect_module, "_SECONDS_BETWEEN_SAVES", -1)
    saved: list[int] = []

    def filling(*arguments: Any, **options: Any) -> None:
        saved.append(1)
        if len(saved) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_tensors(*arguments, **options)

    monkeypatch.setattr(cache_module, "save_tensors", filling)
    with pytest.raises(OutputError, match=r"the disk is full; free some space and run again; 6 of 33 clips are kept"):
        run()
    assert [p.name for p in run.cache.parent.iterdir()] == [run.cache.name]
    assert_same(run(), whole)


def test_too_few_clips_in_a_finished_cache_are_refused_again(
    run: Run, crops_file: CropsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(crops: npt.NDArray[np.uint8]) -> None:
        crops[0] = 7

    run.data = crops_file(32, change, name="few")
    for _ in range(2):
        with pytest.raises(ClipError, match=r"31 usable calibration clips .* are too few"):
            run()
        monkeypatch.setattr(collect_module, "OnnxRuntimeSession", OnnxRuntimeSession)
