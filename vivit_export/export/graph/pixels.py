"""Put the pixel pipeline before the graph, so that a bundle takes uint8 crops or frames.

An 8-bit pixel has 256 values per channel, so the processor's rescale, offset and normalize are a
table. In the graph they are a few float32 ops if these reproduce the table bit for bit (see
`vivit_export.runtime.clips.pixels.levels`), and otherwise a Gather on the table itself. Frames of
a camera's size are resized in the graph as Pillow does it; see `vivit_export.export.graph.resize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vivit_export.contract import Preprocess
from vivit_export.export.graph.resize import SPLIT_BITS, axis_weights, split_weights
from vivit_export.export.graph.rewrites.nodes import TypedTape, new_constant
from vivit_export.export.graph.rewrites.patch_embedding import CHANNELS_LAST
from vivit_export.runtime.clips.pixels.axes import Axis
from vivit_export.runtime.clips.pixels.levels import Step, exact_steps
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor

Float32 = npt.NDArray[np.float32]

_CENTERED = [Step("Sub", np.full(3, 128, np.float32)), Step("Mul", np.full(3, 1 / 64, np.float32))]


def prepend_pixels(
    model: ir.Model, preprocessor: Preprocessor, frame_size: tuple[int, int] | None = None, *, folded: bool = False
) -> str:
    """Replace the input ``pixel_values`` with uint8 ``frames`` (batch, T, h, w, 3).

    Args:
        model: changed in place.
        preprocessor: the pipeline to add.
        frame_size: (height, width) of the frames, which are resized and cropped in the graph; None
            for crops, which already are H x W.
        folded: the graph takes ``(level - 128) / 64``; see `rewrites.fold_pixels`.

    Returns:
        ``folded``, ``arithmetic`` or ``table``: the form that was used. All are exact.

    Raises:
        ClipError: the pipeline does not turn frames of that size into H x W.
        UsageError: they shrink by more than the graph can do exactly.
    """
    clip, graph = preprocessor.clip, model.graph
    pixels = graph.inputs[0]
    assert pixels.shape is not None
    height, width = frame_size or (clip.height, clip.width)
    chain = _Chain(graph, pixels.shape[0], clip.num_frames, height, width)
    layout = _channels_last_reader(pixels)
    channel_shape: tuple[int, ...] = (3,)
    if frame_size is not None or layout is None:
        chain.add("Cast", to=ir.DataType.FLOAT)
        chain.add("Transpose", perm=(0, 1, 4, 2, 3))
        channel_shape, layout = (3, 1, 1), None
    if frame_size is not None:
        _resize(chain, preprocessor)
    if layout is not None or pixels.dtype != ir.DataType.FLOAT:
        chain.add("Cast", to=pixels.dtype)
    form = _normalize(chain, preprocessor, folded, channel_shape, pixels.dtype)
    chain.replace(pixels, layout)
    return form


def _normalize(
    chain: _Chain, preprocessor: Preprocessor, folded: bool, channel_shape: tuple[int, ...], dtype: ir.DataType | None
) -> str:
    """Add the arithmetic that turns levels into the graph's input."""
    steps = _CENTERED if folded else exact_steps(preprocessor.preprocess, preprocessor.table)
    if steps is None:
        _look_up(chain, preprocessor.table, channel_shape)
        return "table"
    assert dtype is not None
    for step in steps:
        operand = step.operand
        scalar = bool(np.all(operand == operand[0]))
        shaped = operand[0].reshape(()) if scalar else operand.reshape(channel_shape)
        chain.add(step.op, shaped.astype(dtype.numpy()))
    return "folded" if folded else "arithmetic"


def _channels_last_reader(pixels: ir.Value) -> ir.Node | None:
    """Return the transpose to (batch, T, H, W, 3) if it is the only reader of the graph's input."""
    readers = [use.node for use in pixels.uses()]
    if len(readers) != 1 or readers[0].op_type != "Transpose":
        return None
    return readers[0] if tuple(readers[0].attributes["perm"].as_ints()) == CHANNELS_LAST else None


class _Chain:
    """A chain of ops from uint8 frames (batch, T, h, w, 3), built before a graph."""

    def __init__(self, graph: ir.Graph, batch: ir.SymbolicDim | int, num_frames: int, height: int, width: int) -> None:
        shape = ir.Shape([batch, num_frames, height, width, 3])
        self.source = ir.Value(name="frames", type=ir.TensorType(ir.DataType.UINT8), shape=shape)
        self.value = self.source
        self._tape = TypedTape()
        self._graph = graph
        self._names: dict[str, int] = {}

    def add(self, op: str, *operands: npt.NDArray[np.generic] | ir.Value, **attributes: Any) -> None:
        """Apply ``op`` to the chain's value and constants."""
        self.value = self.emit(op, [self.value, *operands], **attributes)[0]

    def emit(
        self,
        op: str,
        inputs: Sequence[npt.NDArray[np.generic] | ir.Value],
        outputs: int = 1,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Apply ``op`` to any inputs; arrays become constants."""
        self._names[op] = self._names.get(op, 0) + 1
        name = f"preprocess/{op}" + (f"_{self._names[op]}" if self._names[op] > 1 else "")
        values = [
            v if isinstance(v, ir.Value) else new_constant(self._graph, f"{name}.{i}", v) for i, v in enumerate(inputs)
        ]
        dtype = ir.DataType(attributes["to"]) if op == "Cast" else values[0].dtype
        assert dtype is not None
        return self._tape.add_many(op, values, name, dtype, outputs, **attributes)

    def replace(self, pixels: ir.Value, layout: ir.Node | None) -> None:
        """Put the chain before the graph, in place of its input ``pixels``, or of ``layout`` after that."""
        replaced = pixels if layout is None else layout.outputs[0]
        assert pixels.dtype is not None
        self.value.type = ir.TensorType(pixels.dtype)
        self.value.shape = pixels.shape if layout is None else self.source.shape
        ir.convenience.replace_all_uses_with(replaced, self.value)
        self._tape.insert_before(self._graph[0])
        if layout is not None:
            self._graph.remove(layout, safe=True)
        self._graph.inputs[0] = self.source


def _resize(chain: _Chain, preprocessor: Preprocessor) -> None:
    """Resize and crop: the crop is folded into the weights, which only produce the pixels it keeps."""
    clip = preprocessor.clip
    shape = chain.source.shape
    assert shape is not None
    rows, columns = preprocessor.axes(int(shape[2]), int(shape[3]))  # type: ignore[arg-type]
    passes = [(columns, False), (rows, True)]
    if preprocessor.vertical_first(rows, columns):
        passes.reverse()
    for axis, vertical in passes:
        _one_pass(chain, axis, vertical, preprocessor.preprocess)
    if (rows.kept, columns.kept) != (clip.height, clip.width):
        after = (rows.length - rows.pad - rows.kept, columns.length - columns.pad - columns.kept)
        pads = np.array([0, 0, 0, rows.pad, columns.pad, 0, 0, 0, *after], np.int64)
        chain.add("Pad", pads, np.array(0, np.float32))


def _one_pass(chain: _Chain, axis: Axis, vertical: bool, preprocess: Preprocess) -> None:
    resized = preprocess.do_resize and axis.source != axis.resized
    size = axis.resized if resized else axis.source
    weights = axis_weights(axis.source, size, preprocess.resample if resized else 0)[axis.start : axis.stop]
    used = np.flatnonzero(weights.any(axis=0))
    low, high = int(used[0]), int(used[-1]) + 1
    where = 3 if vertical else 4
    if (low, high) != (0, axis.source):
        chain.add("Slice", *(np.array([v], np.int64) for v in (low, high, where)))
    if not resized:
        return
    halves = split_weights(weights[:, low:high])
    left, right = (halves, chain.value) if vertical else (chain.value, np.ascontiguousarray(halves.T))
    (sums,) = chain.emit("MatMul", [left, right])
    sizes = np.array([axis.kept, axis.kept], np.int64)
    upper, lower = chain.emit("Split", [sums, sizes], outputs=2, axis=where)
    unit = np.array(2.0**-SPLIT_BITS, np.float32)
    chain.value = lower
    chain.add("Mul", unit)
    chain.add("Floor")
    chain.add("Add", upper)
    chain.add("Add", np.array(2.0 ** (SPLIT_BITS - 1), np.float32))
    chain.add("Mul", unit)
    chain.add("Floor")
    chain.add("Clip", np.array(0, np.float32), np.array(255, np.float32))


def _look_up(chain: _Chain, table: Float32, channel_shape: tuple[int, ...]) -> None:
    """``table[channel, level]`` as one Gather on the flat table."""
    chain.add("Cast", to=ir.DataType.INT32)
    chain.add("Add", np.array([0, 256, 512], np.int32).reshape(channel_shape))
    (chain.value,) = chain.emit("Gather", [table.reshape(-1), chain.value], axis=0)
