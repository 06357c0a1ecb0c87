"""Find the smallest set of nodes to keep in float32 so that the drift meets the gate.

The steps between taps are ordered by what each adds to the error (`graph.taps`), measured with rounding emulated on the
clips of the check. The shortest beginning of that order that meets the gate is then thinned out, first by steps, then
by modules: what is left is smallest in the sense that no module of it can be left out alone. The search has no random
part, and tries at most `MOST_LEFT_OUT` times to leave something out.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vivit_export.bundle.checks import Drift, Gate
from vivit_export.calibration.sensitivity import fewest_kept, without_the_needless
from vivit_export.choices import AttentionForm
from vivit_export.errors import option
from vivit_export.export.checkpoint.load import Checkpoint
from vivit_export.export.graph.build import Quantization, Rewritten, quantize_graph
from vivit_export.export.graph.emulate import emulated_session
from vivit_export.export.graph.keeping import float_nodes, is_product, layer_path
from vivit_export.export.graph.lowering import lower_precision
from vivit_export.export.graph.rewrites import lower_attention
from vivit_export.export.graph.taps import Step, find_steps
from vivit_export.export.trials import OF_THE_GATE, NoChoiceError
from vivit_export.precision import Precision
from vivit_export.progress import Progress
from vivit_export.runtime.drift.metrics import compare
from vivit_export.runtime.drift.per_clip import Outputs
from vivit_export.runtime.session.backend import join_outputs

MOST_LEFT_OUT = 48
"""How many times the search tries to leave a step or a module out: each runs the model on the clips of the check."""


@dataclass(frozen=True)
class Part:
    """Nodes that are kept in float32 together.

    Attributes:
        name: of the module or the layer; of the node, if others of its module are not meant.
        nodes: their names.
        weights: numbers that they multiply with.
    """

    name: str
    nodes: tuple[str, ...]
    weights: int


class WideTrials:
    """The graph in its type on a few clips, once for each set of nodes to keep in float32.

    Args:
        rewritten: the float32 graph; not modified.
        checkpoint: what it was traced from.
        precision: type of the graph.
        form: of attention.
        pixels: of each clip, float32 (T, 3, H, W).
        reference: results of eager float32 on them.
        quantization: for INT8 and FP8.
    """

    def __init__(
        self,
        rewritten: Rewritten,
        checkpoint: Checkpoint,
        precision: Precision,
        form: AttentionForm,
        pixels: Iterable[npt.NDArray[np.float32]],
        reference: Outputs,
        quantization: Quantization | None = None,
    ) -> None:
        self._model = rewritten.model.clone()
        lower_attention(self._model, single_query_only=form == "fused-op")
        self._precision, self._pixels, self._reference = precision, pixels, reference
        self._anatomy, self._task = checkpoint.anatomy, checkpoint.task
        self._quantization = quantization
        self.steps: list[Step] = find_steps(self._model, checkpoint.taps)
        self._floats = {str(node.name): node for node in float_nodes(self._model)}
        # Codes have scales, so that their weights fit.
        limit = math.inf if quantization is not None else float(precision.base.dtype.max)
        self._beyond = {name for name, node in self._floats.items() if _largest_weight(node) > limit}

    def drift(self, keep: Sequence[str], tie_margin: float = 0.0) -> Drift:
        """Return the drift with the named nodes in float32."""
        with emulated_session(self._lowered(keep)) as session:
            found = join_outputs([session.run(pixel[None]) for pixel in self._pixels])
        return compare({name: self._reference[name] for name in found}, found, tie_margin, self._task)

    def fits(self, keep: Sequence[str]) -> bool:
        """Return whether all weights fit into the type with the named nodes in float32."""
        return self._beyond <= set(keep)

    def in_order(self) -> list[Step]:
        """Return the steps in the order to keep them in: weights beyond the type, then values, then by added error."""
        beyond = {step.name for step in self.steps if self._beyond & {str(node.name) for node in step.nodes}}
        taps = [str(step.value.name) for step in self.steps]
        low = self._lowered([str(node.name) for step in self.steps if step.name in beyond for node in step.nodes])
        worst = [0.0] * len(taps)
        with emulated_session(self._model, outputs=taps) as exact, emulated_session(low, outputs=taps) as rounded:
            for pixel in self._pixels:
                pairs = zip(rounded.run(pixel[None]).values(), exact.run(pixel[None]).values(), strict=True)
                worst = [max(known, _error(*pair)) for known, pair in zip(worst, pairs, strict=True)]

        def place(index: int) -> tuple[bool, float, int]:
            error, before = worst[index], worst[index - 1] if index else 0.0
            added = error if math.isinf(error) else error**2 - before**2
            return (self.steps[index].name not in beyond, -added, index)

        return [self.steps[index] for index in sorted(range(len(taps)), key=place)]

    def parts(self, steps: Sequence[Step]) -> list[Part]:
        """Return the nodes of steps by module, Q, K and V together; within a step, most weights first."""
        everything = _by_layer(list(self._floats.values()))
        found = []
        for step in steps:
            parts = []
            for path, nodes in _by_layer([node for node in step.nodes if str(node.name) in self._floats]).items():
                whole = path and len(nodes) == len(everything[path])
                parts += [_part(path, nodes)] if whole else [_part(str(node.name), [node]) for node in nodes]
            found += sorted(parts, key=lambda part: -part.weights)
        return found

    def share(self, parts: Sequence[Part]) -> float:
        """Return the share of all multiplications with weights."""
        total = sum(_weights(node) for node in self._model.graph)
        return sum(part.weights for part in parts) / total

    def all_products(self, parts: Sequence[Part]) -> bool:
        """Return whether nothing that multiplies would be left."""
        kept = {name for part in parts for name in part.nodes}
        return all(str(node.name) in kept for node in self._model.graph if is_product(node))

    def _lowered(self, keep: Sequence[str]) -> ir.Model:
        model = self._model.clone()
        if self._quantization is not None:
            quantize_graph(model, self._anatomy, self._quantization, keep)
        lower_precision(model, self._precision.base, keep=keep)
        return model


def choose_wide(trials: WideTrials, gate: Gate, progress: Progress) -> str | None:
    """Find the smallest set of nodes to keep in float32 so that the drift meets the gate.

    Returns:
        A regular expression of them, as `keeping.nodes_to_keep` takes it; None: nothing needs to be kept.

    Raises:
        NoChoiceError: nothing less than float32 meets the gate.
    """
    strict = gate.tightened(OF_THE_GATE)

    @functools.cache
    def passes(nodes: tuple[str, ...]) -> bool:
        return trials.fits(nodes) and not strict.violations(trials.drift(nodes, gate.tie_margin))

    with progress.stage("run the graph with its rounding emulated"):
        if passes(()):
            progress.note("nothing needs to be kept in fp32: the drift is inside the gate")
            return None
    with progress.stage("find where the drift begins"):
        order = trials.in_order()
    with progress.counting("find the fewest steps to keep in fp32", None, "trials") as count:
        steps = fewest_kept(order, lambda keep: passes(_nodes(trials.parts(keep))), count)
    parts = [] if steps is None else _thinned(trials, steps, passes, progress)
    if steps is None or trials.all_products(parts):
        ways = f"{option('precision', 'fp32')} has none, {option('gate')} changes a limit"
        raise NoChoiceError(f"nothing less than float32 meets the gate on these clips; nothing was written ({ways})")
    share = 100 * trials.share(parts)
    names = ", ".join(part.name for part in parts)
    progress.note(f"kept in fp32: {names} ({share:.1f} % of the multiplications with weights)")
    return f"^(?:{'|'.join(re.escape(part.name) for part in parts)})$"


def _thinned(
    trials: WideTrials, steps: Sequence[Step], passes: Callable[[tuple[str, ...]], bool], progress: Progress
) -> list[Part]:
    """Leave out steps that are not needed, then modules; half of the trials are for each."""
    most = MOST_LEFT_OUT // 2
    total = min(most, len(steps) - 1) + min(most, len(trials.parts(steps)))
    with progress.counting("leave out what is not needed", total, "trials") as count:
        steps = without_the_needless(
            steps, lambda keep: passes(_nodes(trials.parts(keep))), count, most, last_is_needed=True
        )
        return list(without_the_needless(trials.parts(steps), lambda keep: passes(_nodes(keep)), count, most))


def _nodes(parts: Sequence[Part]) -> tuple[str, ...]:
    return tuple(name for part in parts for name in part.nodes)


def _part(name: str, nodes: Sequence[ir.Node]) -> Part:
    return Part(name, tuple(str(node.name) for node in nodes), sum(map(_weights, nodes)))


def _by_layer(nodes: Sequence[ir.Node]) -> dict[str, list[ir.Node]]:
    found: dict[str, list[ir.Node]] = {}
    for node in nodes:
        found.setdefault(layer_path(node), []).append(node)
    return found


def _largest_weight(node: ir.Node) -> float:
    constants = [value.const_value for value in node.inputs if value is not None and value.dtype == ir.DataType.FLOAT]
    return max((float(np.abs(c.numpy()).max(initial=0.0)) for c in constants if c is not None), default=0.0)


def _weights(node: ir.Node) -> int:
    weight = node.inputs[1] if is_product(node) and len(node.inputs) > 1 else None
    return weight.const_value.size if weight is not None and weight.const_value is not None else 0


@np.errstate(invalid="ignore", divide="ignore", over="ignore")  # what is not finite counts as infinite
def _error(found: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
    difference = np.linalg.norm(found.astype(np.float64) - exact)
    error = float(difference / np.linalg.norm(exact.astype(np.float64))) if difference else 0.0
    return error if math.isfinite(error) else math.inf
