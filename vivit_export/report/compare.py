"""Two runs of one model side by side: what differs in versions, devices, drift, plans, latency and decisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vivit_export.bundle import MODEL
from vivit_export.bundle.checks import AT_LEAST, DriftReport
from vivit_export.bundle.clip_view import ClipDrift
from vivit_export.bundle.engines import EngineRecord
from vivit_export.bundle.manifest import ModelRecord
from vivit_export.errors import DriftError, InputError, counted
from vivit_export.records import JsonObject, to_json
from vivit_export.report.stored import StoredRun
from vivit_export.report.verdict import METRIC_TITLES, Verdict, gated_values, metric_text, verdict_of

_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """A fact of both.

    Attributes:
        name: what it is.
        before: its value in the first; ``–``: it has none.
        after: its value in the second.
        change: how it changed, in words; empty: it is the same, or of no direction.
    """

    name: str
    before: str
    after: str
    change: str = ""

    @property
    def differs(self) -> bool:
        """Whether the two values do."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class Group:
    """Facts of one kind.

    Attributes:
        title: the kind.
        rows: facts; of versions and plans, only those that differ.
        same: how many more are the same.
    """

    title: str
    rows: tuple[Row, ...]
    same: int


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A clip that the two decide differently.

    Attributes:
        clip: its name.
        reference: the decision of the eager model.
        before: that of the first.
        after: that of the second.
    """

    clip: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs of one model.

    Attributes:
        model: name of the model.
        before: what to call the first.
        after: what to call the second.
        verdict_before: result of the first's check.
        verdict_after: result of the second's.
        groups: what differs.
        labels: clips that they decide differently.
        notes: why figures may differ although nothing got worse, in sentences without a full stop.
        failure: why the second is not good enough, in a sentence without a full stop; empty: it is.
    """

    model: str
    before: str
    after: str
    verdict_before: Verdict
    verdict_after: Verdict
    groups: tuple[Group, ...]
    labels: tuple[LabelChange, ...]
    notes: tuple[str, ...]
    failure: str

    def to_json(self) -> JsonObject:
        """Return JSON types."""
        return {**to_json(self), "passed": not self.failure}

    def require(self) -> None:
        """Raise if the second run is not good enough.

        Raises:
            DriftError: its check failed, or it has none although the first was checked.
        """
        if self.failure:
            raise DriftError(self.failure)


def compare(before: StoredRun, after: StoredRun) -> Comparison:
    """Compare two runs of one model, such as before and after an upgrade of a driver.

    Raises:
        InputError: they are of different models.
    """
    _require_one_model(before, after)
    old, new = verdict_of(before.check), verdict_of(after.check)
    return Comparison(
        model=after.content.model.id,
        before=before.name,
        after=after.name,
        verdict_before=old,
        verdict_after=new,
        groups=tuple(group for group in _groups(before, after) if group.rows or group.same),
        labels=tuple(_label_changes(before.check, after.check)),
        notes=tuple(_notes(before.check, after.check)),
        failure=_failure(after, old, new),
    )


def _require_one_model(before: StoredRun, after: StoredRun) -> None:
    one, other = before.content.model, after.content.model
    if one.weights_sha256 and other.weights_sha256:
        reason = "the hashes of their weights differ"
        is_same = sorted(one.weights_sha256.values()) == sorted(other.weights_sha256.values())
    else:  # of a model that was exported from memory
        reason = "their configs differ"
        is_same = _identity(one) == _identity(other)
    if not is_same:
        raise InputError(
            f"{before.name} is of the model {one.id} and {after.name} of {other.id}, and {reason}; compare two runs of "
            "one model"
        )


def _identity(model: ModelRecord) -> tuple[int, int, object]:
    return model.parameters, model.num_blocks, model.config


def _failure(after: StoredRun, old: Verdict, new: Verdict) -> str:
    if new.state == "failed":
        return f"{after.name} is beyond its gate: {new.reason[:1].lower()}{new.reason[1:]}"
    if new.state == "unchecked" and old.state != "unchecked":
        return f"{after.name} was not checked, so nothing shows that its drift is within the gate; check it"
    return ""


def _groups(before: StoredRun, after: StoredRun) -> Iterator[Group]:
    yield _changed("versions", _both(_versions(before), _versions(after)))
    yield _changed("device", _both(_devices(before), _devices(after)))
    yield Group("drift", tuple(_drift(before.check, after.check)), 0)
    one, other = before.content.engines, after.content.engines
    for name in dict.fromkeys((*one, *other)):
        yield _changed(f"plan of {name}", _both(_plan(one.get(name)), _plan(other.get(name))))
    yield Group("latency", tuple(_latency(before, after)), 0)


def _changed(title: str, rows: list[Row]) -> Group:
    changed = tuple(row for row in rows if row.differs)
    return Group(title, changed, len(rows) - len(changed))


def _both(before: dict[str, str], after: dict[str, str]) -> list[Row]:
    names = [name for name in dict.fromkeys((*before, *after)) if before.get(name) or after.get(name)]
    return [Row(name, before.get(name) or _NOTHING, after.get(name) or _NOTHING) for name in names]


def _versions(run: StoredRun) -> dict[str, str]:
    content, precision = run.content, run.content.precision
    told = {
        "vivit-export": content.producer.vivit_export,
        "reference": run.check.reference.removesuffix(" (golden)") if run.check else "",
        "precision": str(precision.name),
        "attention": f"{precision.attention}, opset {precision.opset}",
    }
    hashes = {engine.onnx_sha256 for engine in content.engines.values() if engine.onnx_sha256}
    graph = run.files[MODEL].sha256 if MODEL in run.files else ", ".join(sorted(hashes))
    told |= {"graph (SHA-256)": graph[:12]} if graph else {}
    return told | {f"engine {name}": engine.compiler for name, engine in content.engines.items()}


def _devices(run: StoredRun) -> dict[str, str]:
    ran = dict.fromkeys(one.engine for one in run.check.runs if one.gated and one.drift) if run.check else {}
    told = {"checked on": "; ".join(ran)}
    if run.content.bench:
        told["timed on"] = run.content.bench.machine.cpu
    for name, engine in run.content.engines.items():
        devices = [f"{found.device}, driver {found.driver}" for found in engine.verified_on]
        told[f"{name} verified on"] = "; ".join(devices)
    gpus = {name: one.gpu for name, one in run.content.bench.contenders.items()} if run.content.bench else {}
    return told | {f"GPU of {name}": gpu for name, gpu in gpus.items() if gpu}


def _plan(engine: EngineRecord | None) -> dict[str, str]:
    if engine is None:
        return {}
    plan, profile = engine.plan, engine.profile
    return {
        "compute capabilities": ", ".join(f"SM{sm}" for sm in engine.sms),
        "batch min / opt / max": f"{profile.min} / {profile.opt} / {profile.max}",
        "proof": "; ".join(engine.proof),
        "kernels": str(plan.kernels),
        "fused attention": str(plan.attention_fused),
        "GEMMs": ", ".join(f"{count} in {name}" for name, count in sorted(plan.gemms.items())),
        "copies": str(plan.copies),
        "activation memory": f"{plan.activation_bytes / 1e6:.1f} MB",
        "size": f"{engine.size / 1e6:.1f} MB",
    }


def _drift(before: DriftReport | None, after: DriftReport | None) -> Iterator[Row]:
    """Yield the worst gated run of both for each metric that one of them has."""
    for metric in METRIC_TITLES:
        pick = min if metric in AT_LEAST else max
        old, new = (
            pick((value for _, value in gated_values(check, metric)), default=None) if check else None
            for check in (before, after)
        )
        if old is None and new is None:
            continue
        before_text, after_text = (_NOTHING if value is None else metric_text(metric, value) for value in (old, new))
        change = ""
        if old is not None and new is not None and old != new:
            change = "worse" if (new < old) == (metric in AT_LEAST) else "better"
        yield Row(METRIC_TITLES[metric], before_text, after_text, change)


def _latency(before: StoredRun, after: StoredRun) -> Iterator[Row]:
    old, new = (
        {
            f"{name}, batch {batch}": figures.p50_ms
            for name, contender in (run.content.bench.contenders.items() if run.content.bench else ())
            for batch, figures in contender.batches.items()
        }
        for run in (before, after)
    )
    for name in dict.fromkeys((*old, *new)):
        before_text, after_text = (f"{times[name]:.2f} ms" if name in times else _NOTHING for times in (old, new))
        known = name in old and name in new and new[name] > 0
        yield Row(name, before_text, after_text, f"{old[name] / new[name]:.2f} times as fast" if known else "")


def _label_changes(before: DriftReport | None, after: DriftReport | None) -> Iterator[LabelChange]:
    """Yield the clips that only one of the two decides as the reference does, or that both decide differently."""
    if before is None or after is None or before.view is None or after.view is None:
        return
    common = set(before.names) & set(after.names)
    old, new = ({clip.name: clip for clip in view.clips if clip.name in common} for view in (before.view, after.view))
    for name in dict.fromkeys((*new, *old)):
        told = new.get(name) or old[name]
        reference = told.reference[0].label if told.reference else ""
        decided = [_decision(clips.get(name), reference) for clips in (old, new)]
        if decided[0] != decided[1]:
            yield LabelChange(name, reference, *decided)


def _decision(clip: ClipDrift | None, reference: str) -> str:
    """Return what a run decides on a clip; one that a check does not list did not flip."""
    if clip is None or clip.flip == "none":
        return reference
    return f"changed: {', '.join(clip.changed)}" if clip.changed else (clip.ours[0].label if clip.ours else "")


def _notes(before: DriftReport | None, after: DriftReport | None) -> Iterator[str]:
    if before is None or after is None:
        return
    if before.names != after.names:
        yield (
            f"the clips are not the same ({counted(before.clips.count, 'clips')} and {after.clips.count}), so neither "
            "need their drift be"
        )
    if before.gate != after.gate:
        old, new = before.gate.limits, after.gate.limits
        names = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
        yield f"the gates are not the same: {', '.join(names)}"
