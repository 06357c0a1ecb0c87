"""The pixel value of each 8-bit level: a table, and the float32 operations that give the same bits.

Everything after the resize is a function of one 8-bit value per channel, so rescale, offset and normalize are a table
of 3 x 256 floats. A few operations on whole planes are twice as fast as looking each value up. But each of them
rounds, so they are used only where they give the table's bits for all 256 levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vivit_export.contract import Preprocess

Float32 = npt.NDArray[np.float32]
Op = Literal["Sub", "Mul", "Div"]

_FUNCTIONS: dict[Op, np.ufunc] = {"Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One float32 operation on levels.

    Attributes:
        op: ONNX's name of it.
        operand: float32 (3,), per channel R, G, B.
    """

    op: Op
    operand: Float32

    def apply(self, planes: Float32) -> None:
        """Do it in place, on planes (3, H, W)."""
        _FUNCTIONS[self.op](planes, self.operand[:, None, None], out=planes)


def make_table(preprocess: Preprocess) -> Float32:
    """Run transformers' NumPy arithmetic, in its order and dtypes, on the 256 levels.

    Returns:
        float32 (3, 256), read-only.
    """
    levels: npt.NDArray[Any] = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    if preprocess.do_rescale:
        levels = (levels.astype(np.float64) * preprocess.rescale_factor).astype(np.float32)
        if preprocess.offset:
            levels = levels - np.float32(1)
    levels = levels.astype(np.float32)
    if preprocess.do_normalize:
        mean, std = np.array(preprocess.mean, np.float32), np.array(preprocess.std, np.float32)
        levels = (levels - mean) / std
    table = np.ascontiguousarray(levels.T)
    table.setflags(write=False)
    return table


def exact_steps(preprocess: Preprocess, table: Float32) -> list[Step] | None:
    """Return the processor's own operations in float32 if they map levels 0..255 to the bits of ``table``, else None.

    NumPy rescales in float64 and rounds once. Dividing by the float32 reciprocal produces the same
    bits for 1/127.5 and 1/255; multiplying by the factor does not. Both are tried.
    """
    return next((steps for steps in _in_its_order(preprocess) if _give(steps, table)), None)


def fewest_steps(preprocess: Preprocess, table: Float32) -> list[Step] | None:
    """Do `exact_steps`, but with a single division and subtraction where these give the same bits.

    For ViViT's own processor they do: level / 63.75 - 3.
    """
    merged = _merged(preprocess)
    return merged if merged and _give(merged, table) else exact_steps(preprocess, table)


def _in_its_order(preprocess: Preprocess) -> Iterator[list[Step]]:
    tail = [_step("Sub", 1.0)] if preprocess.offset else []
    if preprocess.do_normalize:
        tail += [_step("Sub", *preprocess.mean), _step("Div", *preprocess.std)]
    factor = preprocess.rescale_factor
    if not preprocess.do_rescale:
        yield tail
        return
    if factor:
        yield [_step("Div", 1 / factor), *tail]
    yield [_step("Mul", factor), *tail]


def _merged(preprocess: Preprocess) -> list[Step]:
    factor = preprocess.rescale_factor
    if not (preprocess.do_rescale and preprocess.do_normalize and factor):
        return []
    divisors = [std / factor for std in preprocess.std]
    means = [(mean + preprocess.offset) / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
    return [_step("Div", *divisors), _step("Sub", *means)]


def _step(op: Op, *values: float) -> Step:
    with np.errstate(over="ignore"):  # a reciprocal may be infinite in float32, and does not give the table then
        return Step(op, np.array(values * (3 // len(values)), np.float32))


def _give(steps: Sequence[Step], table: Float32) -> bool:
    """Return whether the steps give the bits of a table, signs of zeros included."""
    levels = np.repeat(np.arange(256, dtype=np.float32)[None], 3, axis=0)[:, :, None]
    with np.errstate(all="ignore"):
        for step in steps:
            step.apply(levels)
    return levels.tobytes() == table.tobytes()
