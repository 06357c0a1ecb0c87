"""Compare two ways of preprocessing value by value; no bit may differ."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from functools import reduce

import numpy as np
import numpy.typing as npt
import onnx
from onnx.utils import Extractor

from vivit_export.bundle import MODEL, Bundle
from vivit_export.bundle.checks import Parity
from vivit_export.bundle.manifest import PrecisionRecord
from vivit_export.contract import Contract
from vivit_export.runtime.clips.pixels.preprocess import Preprocessor
from vivit_export.runtime.session.external_weights import put_inside, read_external_weights
from vivit_export.runtime.session.onnxruntime import OnnxRuntimeSession
from vivit_export.runtime.session.widen import widen_to_float32

_PREFIX = "preprocess/"  # of the names of the nodes that do the preprocessing in a graph


def compare_pixels(
    ours: str,
    reference: str,
    got: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    *,
    gated: bool = True,
    note: str = "",
) -> Parity:
    """Compare two float32 arrays of one shape."""
    differing = int((got.view(np.uint32) != expected.view(np.uint32)).sum())
    max_abs = float(np.abs(got - expected).max(initial=0.0))
    return Parity(ours, reference, int(got.size), differing, max_abs, gated, note)


def bundle_parity(bundle: Bundle, frames: npt.NDArray[np.uint8]) -> Parity | None:
    """Compare the preprocessing of a bundle's graph with the runtime's; see `graph_parity`.

    Args:
        bundle: a verified bundle.
        frames: uint8 (N, T, h, w, 3): crops, or whole frames if the graph takes these.
    """
    contract = bundle.contract
    crops: Iterable[npt.NDArray[np.uint8]] = frames
    if contract.io.mode == "frames":
        crops = map(Preprocessor(contract.clip, contract.preprocess).crops, frames)
    return graph_parity(bundle.read, contract, bundle.manifest.precision, frames, crops)


def graph_parity(
    read: Callable[[str], bytes],
    contract: Contract,
    precision: PrecisionRecord,
    frames: npt.NDArray[np.uint8],
    crops: Iterable[npt.NDArray[np.uint8]],
) -> Parity | None:
    """Compare the graph's own preprocessing with the runtime's, clip by clip.

    A graph in fp16 or bf16 may have the normalization folded into its weights. It then computes
    ``(level - 128) / 64`` from the 8-bit level, which is exact in those types too, and is compared with that.

    Args:
        read: returns a file's bytes by its name: `Bundle.read`, or the same for a bundle that is being written.
        contract: its input and output.
        precision: the manifest's section of that name.
        frames: uint8 (N, T, h, w, 3) for the graph's input.
        crops: the runtime's crops of each clip, uint8 (T, H, W, 3); the frames themselves if the graph takes crops.

    Returns:
        The comparison, or None for a graph that takes pixels and has no preprocessing.

    Raises:
        BundleError: a file was altered.
    """
    if contract.io.mode == "pixels":
        return None
    part = _preprocessing_part(read)
    if not precision.name.cpu_kernels:  # these values are the same in float32
        widen_to_float32(part)
    session = OnnxRuntimeSession(part.SerializeToString())
    preprocessor = Preprocessor(contract.clip, contract.preprocess)

    def compared(clip: npt.NDArray[np.uint8], crop: npt.NDArray[np.uint8]) -> Parity:
        (got,) = session.run(clip[None]).values()
        expected: npt.NDArray[np.float32]
        if precision.pixels == "folded":
            expected = (crop[None].astype(np.float32) - np.float32(128)) / np.float32(64)
        else:
            expected = preprocessor.to_pixels(crop[None])
        got = got.astype(np.float32)
        if got.shape != expected.shape:  # the graph's layout is its own business: channels last, or first
            got = np.moveaxis(got, 2, -1) if got.shape[2] == 3 else np.moveaxis(got, -1, 2)
        return compare_pixels("the graph", "the runtime", np.ascontiguousarray(got), np.ascontiguousarray(expected))

    return reduce(operator.add, map(compared, frames, crops))


def _preprocessing_part(read: Callable[[str], bytes]) -> onnx.ModelProto:
    """Return the nodes before the network as a graph of their own, with its constants."""
    model = onnx.load_model_from_string(read(MODEL))
    last = [node for node in model.graph.node if node.name.startswith(_PREFIX)][-1]
    part = Extractor(model).extract_model([model.graph.input[0].name], [last.output[0]])
    put_inside(part, read_external_weights(read, part))
    return part
