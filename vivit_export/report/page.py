"""What stands on the page of a bundle, section by section; a section or a column without content is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vivit_export.bundle.bench import BenchRecord
from vivit_export.bundle.certainty import certainty_of
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.engines import EngineRecord
from vivit_export.bundle.manifest import Content, FileRecord, QuantizationRecord
from vivit_export.bundle.search import PrecisionSearch
from vivit_export.errors import counted
from vivit_export.report import facts
from vivit_export.report.accuracy import accuracy_sentences
from vivit_export.report.charts import (
    Bar,
    BlockMap,
    Segment,
    block_bars,
    block_map,
    effect_bars,
    latency_bars,
    step_bars,
    tap_bars,
)
from vivit_export.report.clip_cards import ClipCard, cards_of, strata_tables
from vivit_export.report.distribution import Distribution, distribution_of
from vivit_export.report.search import COLUMNS, search_rows, search_sentence
from vivit_export.report.table import Table, table_of
from vivit_export.report.taps import advice, kept_text, suspect_sentence
from vivit_export.report.text import verified_text
from vivit_export.report.verdict import LimitUse, Verdict, limit_uses, verdict_of

Facts = tuple[tuple[str, str], ...]
"""Names with values; what is unknown is not among them."""


@dataclass(frozen=True, slots=True)
class DriftSection:
    """A check.

    Attributes:
        id: of its heading, and the beginning of those in it.
        title: whether it is that of the export, or one that was saved later.
        reference: what was compared with, on what.
        uses: the limits of the gate.
        distribution: the drift of each clip.
        runs: all runs.
        notes: sentences on certainty and preprocessing.
        accuracy: sentences on labelled clips.
        taps: the drift at each tap or, of older checks, after each block.
        suspect: where drift begins, in a sentence, and what to do; empty: nowhere, or not asked.
        strata: what clips have in common.
        cards: clips with a flip, and those with the largest drift.
    """

    id: str
    title: str
    reference: str
    uses: tuple[LimitUse, ...]
    distribution: Distribution | None
    runs: Table | None
    notes: tuple[str, ...]
    accuracy: tuple[str, ...]
    taps: tuple[Bar, ...]
    suspect: str
    strata: tuple[Table, ...]
    cards: tuple[ClipCard, ...]

    @property
    def clips_title(self) -> str:
        """Title of the section with the cards."""
        return self.title.replace("Drift", "Clips", 1)


@dataclass(frozen=True, slots=True)
class EngineSection:
    """An engine.

    Attributes:
        name: its name.
        proof: sentences on its plan.
        verified: sentences on devices that have run the golden clips on it; none: none has.
        facts: the rest.
    """

    name: str
    proof: tuple[str, ...]
    verified: tuple[str, ...]
    facts: Facts


@dataclass(frozen=True, slots=True)
class SpeedSection:
    """What ``vivit bench --save`` measured.

    Attributes:
        sentences: the machine, and how to read the figures.
        latency: median latency of a call.
        steps: from a video file to its result.
        table: all figures.
        stopped: contenders that were left out or stopped, and why.
    """

    sentences: tuple[str, ...]
    latency: tuple[Bar, ...]
    steps: tuple[tuple[str, str, tuple[Segment, ...]], ...]
    table: Table | None
    stopped: Facts


@dataclass(frozen=True, slots=True)
class SearchSection:
    """How the precision was chosen.

    Attributes:
        sentence: what was compared, and where.
        table: what was tried.
    """

    sentence: str
    table: Table | None


@dataclass(frozen=True, slots=True)
class QuantizationSection:
    """How ranges were found, and the effect of each layer.

    Attributes:
        summary: in a phrase.
        effects: change of the logits by layer, largest first.
        layers: all layers.
        set_aside: clips that could not be used, and why.
    """

    summary: str
    effects: tuple[Bar, ...]
    layers: Table | None
    set_aside: Facts


@dataclass(frozen=True, slots=True)
class Film:
    """A clip with a picture of it.

    Attributes:
        name: name of the clip.
        picture: ``data:`` address.
    """

    name: str
    picture: str


@dataclass(frozen=True, slots=True)
class Page:
    """Everything on a page.

    Attributes:
        title: the model.
        precision: its precision.
        verdict: what the check found.
        summary: what was checked where.
        drift: the check that was saved last and that of the export, as far as there are.
        films: clips of a check that says nothing of single clips.
        map: types of the weights by block.
        model: facts on the graph.
        engines: compiled engines.
        search: how the precision was chosen; None: it was given.
        speed: timings.
        quantization: of INT8 and FP8.
        origin: versions and hashes.
        files: files of the bundle.
    """

    title: str
    precision: str
    verdict: Verdict
    summary: Facts
    drift: tuple[DriftSection, ...]
    films: tuple[Film, ...]
    map: BlockMap | None
    model: Facts
    engines: tuple[EngineSection, ...]
    search: SearchSection | None
    speed: SpeedSection | None
    quantization: QuantizationSection | None
    origin: Facts
    files: Table | None


def page_of(content: Content, pictures: Mapping[int, str], files: Mapping[str, FileRecord]) -> Page:
    """Return what to show of a bundle.

    Args:
        content: what it says about itself.
        pictures: pictures of golden clips by row, as ``data:`` addresses.
        files: its files.
    """
    checks, precision = content.checks, content.precision
    names = checks.names if checks else ()
    named = {names[row]: picture for row, picture in pictures.items() if row < len(names)}
    return Page(
        title=content.model.id,
        precision=str(precision.name),
        verdict=verdict_of(latest_check(content)),
        summary=_summary(content),
        drift=tuple(
            _drift(name, title, check, named if checks and is_on_golden(check, checks) else {})
            for name, title, check in _checks(content)
        ),
        films=() if checks and checks.view else tuple(Film(*clip) for clip in named.items()),
        map=block_map(precision.layers),
        model=_model(content),
        engines=tuple(_engine(name, engine) for name, engine in content.engines.items()),
        search=_search(content.search) if content.search else None,
        speed=_speed(content.bench) if content.bench else None,
        quantization=_quantization(precision.quantization) if precision.quantization else None,
        origin=_origin(content),
        files=table_of("Files of the bundle", ("file", "size", "SHA-256"), _file_rows(files)),
    )


def _summary(content: Content) -> Facts:
    checks = latest_check(content)
    runs = [run for run in checks.runs if run.gated and run.drift] if checks else []
    where = dict.fromkeys(run.engine for run in runs)
    devices = dict.fromkeys(found.device for engine in content.engines.values() for found in engine.verified_on)
    clips = f"{counted(checks.clips.count, 'clips')}: {checks.source}" if checks else ""
    return _known(
        ("model", f"{content.model.id}, {content.model.parameters / 1e6:.1f} M parameters"),
        ("precision", str(content.precision.name)),
        ("checked on", "; ".join(where)),
        ("clips", clips),
        ("device", "; ".join(devices)),
        ("engines", "; ".join(f"{name} ({engine.compiler})" for name, engine in content.engines.items())),
        ("producer", f"vivit-export {content.producer.vivit_export}"),
    )


def latest_check(content: Content) -> DriftReport | None:
    """Return the check that was saved last, or else that of the export."""
    return content.recheck or content.checks


def is_on_golden(check: DriftReport, stored: DriftReport) -> bool:
    """Whether a check ran on clips of another one."""
    return check.source == stored.source and set(check.names) <= set(stored.names)


def _checks(content: Content) -> list[tuple[str, str, DriftReport]]:
    """Return id, title and result of each check, the latest first."""
    at_export = "Drift" if content.recheck is None else "Drift at export"
    found = [("saved", "Drift of the saved check", content.recheck), ("drift", at_export, content.checks)]
    return [(name, title, check) for name, title, check in found if check is not None]


def _drift(name: str, title: str, checks: DriftReport, pictures: Mapping[str, str]) -> DriftSection:
    certainty = certainty_of(checks)
    return DriftSection(
        id=name,
        title=title,
        reference=f"{checks.reference} on {counted(checks.clips.count, 'clips')} ({checks.source})",
        uses=tuple(limit_uses(checks)),
        distribution=distribution_of(checks),
        runs=table_of("All runs", facts.drift_columns(checks), facts.drift_rows(checks)),
        notes=(
            *([f"Certainty: {certainty.sentence}."] if certainty else []),
            *(f"Preprocessing: {parity.sentence}." for parity in checks.parity),
        ),
        accuracy=tuple(accuracy_sentences(checks)),
        taps=tap_bars(checks.taps) if checks.taps else block_bars(checks.blocks),
        suspect=_suspect(checks),
        strata=strata_tables(checks),
        cards=cards_of(checks, pictures),
    )


def _suspect(checks: DriftReport) -> str:
    if checks.taps is None or checks.taps.suspect is None:
        return ""
    sentence = suspect_sentence(checks.taps)
    return f"{sentence[:1].upper()}{sentence[1:]}. To do: {advice(checks.taps.suspect)}"


def _model(content: Content) -> Facts:
    precision, contract = content.precision, content.contract
    io, clip = contract.io, contract.clip
    task = f"{contract.task.replace('_', ' ')}, {counted(len(contract.labels), 'outputs')}" if contract.labels else ""
    return _known(
        ("task", task),
        ("clip", f"{counted(clip.num_frames, 'frames')} of {clip.width}×{clip.height}, sampling {clip.sampling}"),
        ("inputs", facts.tensors_text(io.inputs)),
        ("outputs", facts.tensors_text(io.outputs)),
        ("graph", f"attention as {precision.attention}, opset {precision.opset}"),
        ("weights", facts.weights_text(precision)),
        ("kept", kept_text(precision) if precision.kept_float32 else ""),
        ("rewrite", facts.rewrites_text(content) or "none"),
        *(("declined", text) for text in facts.declined_texts(precision)),
        ("in float32", _float32(content)),
    )


def _float32(content: Content) -> str:
    precision = content.precision
    if not precision.name.rounds:
        return ""
    nodes = counted(len(precision.float32_ops), "nodes") if precision.float32_ops else ""
    return "; ".join(filter(None, (nodes, precision.float32_inside or "")))


def _engine(name: str, engine: EngineRecord) -> EngineSection:
    profile = engine.profile
    told = _known(
        ("compiler", engine.compiler),
        ("compute capabilities", ", ".join(f"SM{sm}" for sm in engine.sms)),
        ("batch min / opt / max", f"{profile.min} / {profile.opt} / {profile.max}"),
        ("kernels", f"{engine.plan.kernels} in {counted(engine.plan.layers, 'layers')} of the plan"),
        ("activation memory", f"{engine.plan.activation_bytes / 1e6:.1f} MB at batch {profile.max}"),
        ("size", f"{engine.size / 1e6:.1f} MB"),
        ("SHA-256 of its graph", engine.onnx_sha256),
    )
    return EngineSection(name, engine.proof, tuple(map(verified_text, engine.verified_on)), told)


def _search(found: PrecisionSearch) -> SearchSection:
    sentence = search_sentence(found)
    return SearchSection(
        f"{sentence[:1].upper()}{sentence[1:]}.", table_of("Precisions that were tried", COLUMNS, search_rows(found))
    )


def _speed(bench: BenchRecord) -> SpeedSection:
    machine = bench.machine
    cores = f", {machine.cores} cores" if machine.cores is not None else ""
    sentences = (
        f"Measured on {machine.cpu}{cores}, {machine.platform}, Python {machine.python}, with a load of "
        f"{machine.load_before} before; {counted(bench.rounds, 'rounds')}{', partial' if bench.partial else ''}.",
        *([_SPEED.format(bench.baseline)] if bench.baseline else []),
        f"Not timed: {bench.excluded}.",
    )
    stopped = {name: contender.error for name, contender in bench.contenders.items() if contender.error}
    return SpeedSection(
        sentences,
        latency_bars(bench),
        step_bars(bench),
        table_of("All figures", facts.BENCH_COLUMNS, facts.bench_rows(bench)),
        tuple(stopped.items()),
    )


_SPEED = "Speed is relative to {}: the median of the rounds, with their 10th and 90th percentile."


def _quantization(quantization: QuantizationRecord) -> QuantizationSection:
    return QuantizationSection(
        facts.quantization_text(quantization),
        effect_bars(quantization.sensitivity),
        table_of("Layers", facts.LAYER_COLUMNS, facts.layer_rows(quantization)),
        tuple(quantization.clips.set_aside.items()),
    )


def _origin(content: Content) -> Facts:
    model = content.model
    return _known(
        ("vivit-export", content.producer.vivit_export),
        ("revision", model.revision or ""),
        *((f"SHA-256 of {name}", digest) for name, digest in model.weights_sha256.items()),
        *(("checkpoint", note) for note in model.notes),
    )


def _file_rows(files: Mapping[str, FileRecord]) -> list[tuple[str, ...]]:
    return [(name, _size(file.size), file.sha256) for name, file in files.items()]


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _known(*told: tuple[str, str]) -> Facts:
    return tuple((name, value) for name, value in told if value)
