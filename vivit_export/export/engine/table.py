"""The plan of an engine in a bundle, as ``vivit inspect`` shows it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from vivit_export.bundle import ENGINES, Bundle
from vivit_export.bundle.engines import EngineRecord, Sidecar
from vivit_export.errors import BundleError, InputError, UsageError, option
from vivit_export.export.engine.layers import Layer, Role
from vivit_export.limits import MOST_PLAN_LAYERS, MOST_SIDECAR_BYTES
from vivit_export.records import JsonObject, from_json, parse_json, to_json


@dataclass(frozen=True)
class EnginePlan:
    """A plan and the engine that it belongs to.

    Attributes:
        engine: name of the engine in the bundle.
        record: what the manifest says about it.
        layers: in order of execution; empty for a bundle written before they were recorded.
    """

    engine: str
    record: EngineRecord
    layers: tuple[Layer, ...]

    def by_role(self, role: Role) -> list[Layer]:
        """Layers that do one kind of work."""
        return [layer for layer in self.layers if layer.role == role]

    @property
    def attention(self) -> list[str]:
        """Modules whose attention is fused."""
        return [_module(layer) for layer in self.by_role("attention")]

    def to_json(self) -> JsonObject:
        """Return counts by role, the modules with fused attention, and all layers."""
        roles = Counter(layer.role for layer in self.layers)
        layers = [{**to_json(layer.record()), "role": layer.role} for layer in self.layers]
        return {"roles": dict(sorted(roles.items())), "attention": self.attention, "layers": layers}


def read_plan(bundle: Bundle, engine: str) -> EnginePlan:
    """Read the plan of one engine from its sidecar, whose bytes are those that the manifest describes.

    Raises:
        BundleError: the sidecar is not listed, cannot be read, or was altered since the bundle was verified.
    """
    name = f"{ENGINES}/{engine}.json"
    path, listed = bundle.path / name, bundle.manifest.files.get(name)
    try:
        if listed is not None and listed.size > MOST_SIDECAR_BYTES:
            raise ValueError(f"it has {listed.size} bytes, more than {MOST_SIDECAR_BYTES >> 20} MiB")
        sidecar = from_json(Sidecar, parse_json(bundle.read(name).decode("utf-8")), "sidecar")
        if len(sidecar.layers) > MOST_PLAN_LAYERS:
            raise ValueError(f"it has {len(sidecar.layers)} layers, more than {MOST_PLAN_LAYERS}")
        layers = tuple(map(Layer.from_record, sidecar.layers))
    except BundleError:
        raise
    except (ValueError, RecursionError, InputError) as e:
        raise BundleError(f"{path} cannot be read ({e}); build the engine again with {option('force')}") from e
    return EnginePlan(engine, bundle.engines[engine], layers)


def choose_engine(bundle: Bundle, engine: str | None) -> str:
    """Return the engine of that name, or the only engine.

    Raises:
        UsageError: there is no such engine; or no name is given, and there are several engines or none.
    """
    names = sorted(bundle.engines)
    if not names:
        raise UsageError(f"{bundle.path} holds no engine, so there is no plan; run: vivit build {bundle.path}")
    if engine is None and len(names) > 1:
        raise UsageError(
            f"{bundle.path} holds {len(names)} engines; name one with {option('engine')}: {', '.join(names)}"
        )
    if engine is not None and engine not in names:
        raise UsageError(f"{option('engine', repr(engine))} is not in {bundle.path}; it holds {', '.join(names)}")
    return engine or names[0]


def plan_text(plan: EnginePlan) -> str:
    """Return the plan as a table: one row for each kind of work, with the facts that matter."""
    summary = plan.record.plan
    sms = " ".join(f"SM{sm}" for sm in plan.record.sms)
    lines = [f"  plan       {plan.engine}: {sms}, {summary.kernels} kernels in {summary.layers} layers"]
    if not plan.layers:
        lines.append("             its layers were not recorded; build the engine again with --force to see them")
    for role in get_args(Role):
        found = plan.by_role(role)
        if found:
            lines.append(f"             {role:<10} {len(found):>3}  {_details(role, found)}".rstrip())
    activations, weights = (f"{size / 1e6:.1f} MB" for size in (summary.activation_bytes, summary.weight_bytes))
    batch = plan.record.profile.max
    lines.append(f"             {'memory':<10}      activations {activations} at batch {batch}, weights {weights}")
    return "\n".join(lines)


def _details(role: Role, layers: Sequence[Layer]) -> str:
    if role == "attention":
        return f"fused, {_types(x.inputs[0].dtype for x in layers if x.inputs)}: {_condensed(map(_module, layers))}"
    if role in ("gemm", "product"):
        return _types(layer.dtype for layer in layers)
    if role == "copy":
        return ", ".join(layer.nodes[-1] if layer.nodes else layer.name for layer in layers)
    return {"other": "LayerNormalization and element-wise", "host": "no kernels: shapes and events"}[role]


def _types(dtypes: Iterable[str]) -> str:
    return ", ".join(f"{count} {dtype}" for dtype, count in sorted(Counter(dtypes).items()))


def _module(layer: Layer) -> str:
    """Return the path of the module that a layer executes: nodes are named MODULE/OP."""
    return min((node.partition("/")[0] for node in layer.nodes), key=len, default=layer.name)


def _condensed(names: Iterable[str]) -> str:
    """Return ``layers.0.attention, layers.1.attention, ...`` as ``layers.0-11.attention``."""
    groups: dict[tuple[str, str], list[int]] = {}
    single = []
    for name in names:
        found = re.fullmatch(r"(.*?)(\d+)(\D*)", name)
        if found is None:
            single.append(name)
        else:
            groups.setdefault((found[1], found[3]), []).append(int(found[2]))
    return ", ".join([*single, *(f"{a}{_ranges(numbers)}{z}" for (a, z), numbers in groups.items())])


def _ranges(numbers: list[int]) -> str:
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
