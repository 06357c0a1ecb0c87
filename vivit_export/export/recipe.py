"""The options of an export as a file that repeats it: ``vivit-export --config BUNDLE/recipe.toml``.

What depended on the machine is written as it was resolved: the engines that were built, the form of attention, the
opset, the commit of the hub. Ranges are those in the bundle, so no clip is needed to calibrate again. Of folders of the
user only the name is written: the command says in its own words if they do not lie there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from vivit_export.bundle import RANGES
from vivit_export.export.options import ExportOptions, ExportPreview, model_name
from vivit_export.printing import one_line, toml_value

OPTIONS = {
    "input_mode": "input",
    "frame_size": "frame-size",
    "sampling": "sampling",
    "stride": "stride",
    "short": "short",
    "views": "views",
    "outputs": "outputs",
    "skip_rewrites": "no-rewrite",
    "num_clips": "num-clips",
    "gate": "gate",
    "allow_unfused": "allow-unfused",
    "allow_pickle": "allow-pickle",
    "keep_fp16": "keep-fp16",
    "fp8_attention": "fp8-attention",
    "keep_fp32": "keep-fp32",
    "fix": "fix",
    "sbom": "sbom",
}
"""Key in the file of each field of `ExportOptions` that is written as it is, unless it has its default."""

RESOLVED = frozenset(
    {"precision", "targets", "sms", "batches", "attention", "opset", "clips", "check", "revision", "calibration"}
)
"""Fields that are written in another form; see `recipe_text`."""

LEFT_OUT = frozenset({"timing_cache", "force"})
"""Fields that do not change what is in a bundle."""


def recipe_text(plan: ExportPreview, *, is_folder: bool, revision: str | None) -> str:
    """Return the file.

    Args:
        plan: of the export.
        is_folder: whether the model is a folder of the user, of which only the name is written.
        revision: commit of a model on the hub.
    """
    model = f"./{model_name(plan.model)}" if is_folder else plan.model
    rows = dict(_rows(plan, model, revision))
    lines = [f"{key} = {toml_value(value)}" for key, value in rows.items()]
    return "\n".join([*_told(model, is_folder, "clips" in rows), "", "[export]", *lines, ""])


def _told(model: str, is_folder: bool, has_clips: bool) -> Iterator[str]:
    given = " path/to/" + one_line(model.removeprefix("./")) if is_folder else ""
    clips = " --clips path/to/clips" if has_clips else ""
    yield "# Repeats this export. A file of somebody else is as good as a command of theirs: read it first."
    yield f"# vivit-export{given} --config recipe.toml{clips} -o NEW_FOLDER"


def _rows(plan: ExportPreview, model: str, revision: str | None) -> Iterator[tuple[str, object]]:
    options = plan.options
    yield "model", model
    if revision is not None:
        yield "revision", revision
    yield "precision", str(options.precision)
    yield "target", ["onnx", *map(str, plan.flavours)]
    yield "attention", plan.attention
    yield "opset", plan.opset
    if options.sms and plan.flavours:
        yield "sm", ",".join(map(str, options.sms))
    for key, size, usual in zip(("min-batch", "opt-batch", "max-batch"), options.batches, (1, 4, 8), strict=True):
        if size != usual and (plan.flavours or key != "min-batch"):
            yield key, size
    if options.clips is not None:
        yield "clips", Path(options.clips).resolve().name
    if not options.check:
        yield "no-check", True
    if options.precision.quantized:
        yield "ranges", RANGES
    for field in fields(ExportOptions):
        value = getattr(options, field.name)
        if field.name == "allow_unfused" and not plan.flavours:
            continue
        if field.name in OPTIONS and value != field.default:
            yield OPTIONS[field.name], _written(field.name, value)


def _written(name: str, value: object) -> object:
    """Return a value as the command line takes it."""
    if name == "frame_size" and isinstance(value, tuple):
        return "x".join(map(str, reversed(value)))
    if name == "views" and isinstance(value, tuple):
        return "x".join(map(str, value))
    if name == "outputs" and isinstance(value, tuple):
        return ",".join(value)
    return list(value) if isinstance(value, tuple) else value
