"""The model card of a bundle: a README.md with front matter, as hubs of models show it.

All text of the bundle stands in code spans, where Markdown has no links, pictures, HTML or emphasis.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vivit_export.arguments import text_or_none
from vivit_export.bundle import Bundle, read_bundle
from vivit_export.bundle.certainty import certainty_of
from vivit_export.bundle.checks import DriftReport
from vivit_export.bundle.signatures.verify import signature_text
from vivit_export.errors import UsageError, counted, option
from vivit_export.hub import is_repo
from vivit_export.printing import code_span as code
from vivit_export.records import shown
from vivit_export.report import facts
from vivit_export.report.accuracy import accuracy_sentences
from vivit_export.report.page import latest_check
from vivit_export.report.text import verified_text
from vivit_export.report.verdict import limit_uses, verdict_of

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}", re.ASCII)
_TAGS = ("vivit-export", "onnx", "video-classification")
_MOST_LABELS = 20


def card(bundle: Bundle | str | Path, *, license_id: str | None = None, place: str = "path/to/bundle") -> str:
    """Return the model card of a bundle: Markdown with YAML front matter.

    Args:
        bundle: a bundle or its folder, whose files are verified first.
        license_id: license of the model as hubs name it, such as ``apache-2.0``; None: the card states none, because
            a bundle does not record it.
        place: what its commands name as the bundle.

    Raises:
        BundleError: the bundle is damaged.
        UsageError: the license is no such name.
    """
    license_id = text_or_none("license_id", license_id)
    if license_id is not None and not _LICENSE.fullmatch(license_id):
        name = option("license_id", shown(license_id))
        raise UsageError(f"{name} is not the name of a license; give one like apache-2.0")
    found = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    sections = (_front(found, license_id), _model(found), _input(found), _run(place), _drift(found), _engines(found))
    return "\n".join(line for part in (*sections, _timings(found), _limits(found), _files(found)) for line in part)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [row(columns), row(["---"] * len(columns)), *map(row, rows), ""]


def _front(bundle: Bundle, license_id: str | None) -> list[str]:
    model = bundle.manifest.model
    base = [f'base_model: "{model.id}"'] if is_repo(model.id) else []
    named = [f'license: "{license_id}"'] if license_id else []
    tags = (*_TAGS, str(bundle.manifest.precision.name), *(["tensorrt"] if bundle.engines else []))
    listed = ["tags:", *(f'- "{tag}"' for tag in tags)]
    return [
        "---",
        *named,
        "library_name: vivit-export",
        "pipeline_tag: video-classification",
        *base,
        *listed,
        "---",
        "",
    ]


def _model(bundle: Bundle) -> list[str]:
    model, precision, labels = bundle.manifest.model, bundle.manifest.precision, bundle.contract.labels
    family = model.config.get("model_type")
    more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    rows = [
        ("model", code(model.id)),
        ("revision", code(model.revision) if model.revision else ""),
        ("family", code(family) if isinstance(family, str) else ""),
        ("parameters", f"{model.parameters / 1e6:.1f} M"),
        ("precision", f"{precision.name}, attention as {precision.attention}, opset {precision.opset}"),
        ("task", bundle.contract.task.replace("_", " ") if labels else ""),
        ("labels", f"{len(labels)}: {', '.join(map(code, labels[:_MOST_LABELS]))}{more}" if labels else ""),
        ("exported by", f"vivit-export {code(bundle.manifest.producer.vivit_export)}"),
    ]
    return [f"# {code(model.id)} in {precision.name}", "", *_table(("fact", "value"), (row for row in rows if row[1]))]


def _input(bundle: Bundle) -> list[str]:
    clip, io = bundle.contract.clip, bundle.contract.io
    drawn = f"{counted(clip.num_frames, 'frames')} of {clip.width}×{clip.height} pixels, sampling {clip.sampling}"
    rows = [("clip", drawn), ("input", code(facts.tensors_text(io.inputs)))]
    rows.append(("output", code(facts.tensors_text(io.outputs))))
    return ["## Input and output", "", *_table(("fact", "value"), rows)]


def _run(place: str) -> list[str]:
    shell = [
        f"vivit predict {place} video.mp4",
        f"vivit deploy triton {place} path/to/repository    # for Triton Inference Server",
        f"vivit deploy cpp {place} path/to/project          # for C++",
    ]
    python = [
        "import vivit_export as ve",
        "",
        f'with ve.open_session("{place}") as session:',
        '    frames = ve.runtime.read_clip("video.mp4", session.contract)',
        "    print(session(frames).top(5))",
    ]
    return ["## Run it", "", "```", *shell, "```", "", "```python", *python, "```", ""]


def _drift(bundle: Bundle) -> list[str]:
    checks = latest_check(bundle.manifest)
    if checks is None:
        return ["## Drift", "", "Not checked.", ""]
    source = f"{counted(checks.clips.count, 'clips')} ({code(checks.source)})"
    lines = ["## Drift", "", f"Against {code(checks.reference)} on {source}. Gate: {verdict_of(checks).word}.", ""]
    lines += [f"- {code(reason)}" for reason in checks.failures()]
    lines += [""] if checks.failures() else []
    uses = [(use.title, use.limit, use.worst, code(use.run)) for use in limit_uses(checks)]
    lines += _table(("gated", "limit", "worst", "in"), uses) if uses else []
    rows = [[code(row[0]), *row[1:-1], code(row[-1]) if row[-1] else ""] for row in facts.drift_rows(checks)]
    return [*lines, *_table(facts.drift_columns(checks), rows), *_notes(checks)]


def _notes(checks: DriftReport) -> list[str]:
    certainty = certainty_of(checks)
    notes = [f"- Certainty: {certainty.sentence}."] if certainty else []
    notes += [f"- {code(sentence)}" for sentence in accuracy_sentences(checks)]
    return [*notes, ""] if notes else []


def _engines(bundle: Bundle) -> list[str]:
    lines = ["## Engines", ""]
    for name, engine in bundle.engines.items():
        sms = ", ".join(f"SM{sm}" for sm in engine.sms)
        profile = engine.profile
        batches = f"batch {profile.min} / {profile.opt} / {profile.max} (min / opt / max)"
        lines += [f"- {code(name)}: {code(engine.compiler)}, {sms}, {batches}"]
        told = [*engine.proof, *map(verified_text, engine.verified_on)]
        lines += [f"  - {code(sentence)}" for sentence in told]
    return [*lines, *([] if bundle.engines else ["None; `vivit build` compiles them from the graph."]), ""]


def _timings(bundle: Bundle) -> list[str]:
    bench = bundle.manifest.bench
    if bench is None:
        return []
    rows = [[code(row[0]), code(row[1]), *row[2:]] for row in facts.bench_rows(bench)]
    where = f"On {code(bench.machine.cpu)}, {counted(bench.rounds, 'rounds')}{', partial' if bench.partial else ''}."
    return ["## Latency", "", where, "", *_table(facts.BENCH_COLUMNS, rows)]


def _limits(bundle: Bundle) -> list[str]:
    checks = latest_check(bundle.manifest)
    ran = checks is not None and any(run.gated and run.drift for run in checks.runs)
    unverified = [name for name, engine in bundle.engines.items() if not engine.verified_on]
    limits = [
        "" if ran else "Drift was not measured.",
        "" if checks is not None and checks.accuracy else "Accuracy on labelled clips was not measured.",
        "" if bundle.manifest.bench else "Latency was not measured.",
        f"Not run on a GPU when built: {', '.join(map(code, unverified))}." if unverified else "",
        "Drift compares with the checkpoint that was exported. It says nothing of videos unlike the clips.",
    ]
    return ["## Limits", "", *(f"- {limit}" for limit in limits if limit), ""]


def _files(bundle: Bundle) -> list[str]:
    signature = signature_text(bundle)
    rows = [("`bundle.json`", "", code(bundle.manifest_sha256))]
    rows += [(code(name), str(file.size), code(file.sha256)) for name, file in bundle.manifest.files.items()]
    signed = f"Signature: {code(signature) if signature else 'none'}."
    return ["## Files", "", signed, "", *_table(("file", "bytes", "SHA-256"), rows)]
