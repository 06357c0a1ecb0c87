"""The command line: parse, call, report. Heavy imports live inside the commands."""

from __future__ import annotations

import io
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vivit_export import __version__
from vivit_export.errors import EnvironmentFault, UsageError, VivitExportError
from vivit_export.signals import ended_like_ctrl_c, ignore_from_now_on

if TYPE_CHECKING:
    from vivit_export.bundle import Bundle
    from vivit_export.export.options import ExportPlan
    from vivit_export.progress import Silent

DEFAULT_MODEL = "google/vivit-b-16x2-kinetics400"
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
INPUTS = ("crops", "pixels", "frames")
ATTENTIONS = ("auto", "fused-op", "pattern")
TARGETS = ("auto", "onnx", "tensorrt", "tensorrt-rtx")

_SHORTCUTS = "vivit_export.shortcuts"
_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)
_F = TypeVar("_F", bound=Callable[..., Any])


class _Command(click.Command):
    """Turns our errors into one sentence and their exit code; nothing else is caught."""

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that has no Δ still shows the figures
        try:
            with ended_like_ctrl_c():
                return super().invoke(ctx)
        except VivitExportError as e:
            if ctx.params.get("verbose") and not isinstance(e, UsageError):
                traceback.print_exc()
            _fail(str(e), e.exit_code)
        except ModuleNotFoundError as e:
            if e.name is None or e.name.startswith("vivit_export"):
                raise
            _fail(f"the package {e.name} is not installed; pip install vivit-export", EnvironmentFault.exit_code)
        except KeyboardInterrupt:
            ignore_from_now_on()
            _fail("interrupted; nothing was written", 130)


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


def _options(*decorators: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def apply(function: _F) -> _F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def _sm_list(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    parts = [part.strip().lower().removeprefix("sm").replace(".", "") for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"{value!r} is not a list such as 86,89,120")
    return tuple(int(part) for part in parts)


def _size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    width, _, height = value.lower().partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise click.BadParameter(f"{value!r} is not a size such as 1920x1080 (width x height)")
    return int(height), int(width)


def _name_list(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return () if value is None else tuple(part.strip() for part in value.split(","))


def _refuse_shape(_ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(
            f"{param.opts[0]} {value} is not possible: the checkpoint's position embeddings fix frames, height and "
            "width; only the batch is dynamic, within --min-batch and --max-batch"
        )


_BATCHES = _options(
    click.option("--min-batch", type=int, default=1, show_default=True, help="Smallest batch of the engine profile."),
    click.option("--opt-batch", type=int, help="Batch the engine is tuned for.  [default: 4, or --max-batch if lower]"),
    click.option("--max-batch", type=int, default=8, show_default=True, help="Largest batch of the engine profile."),
)
_ENGINE = _options(
    click.option("--target", "targets", multiple=True, type=click.Choice(TARGETS), help="Repeatable.  [default: auto]"),
    click.option("--sm", "sms", callback=_sm_list, metavar="LIST", help="GPUs of TensorRT-RTX, such as 86,89,120."),
    click.option("--timing-cache", type=_FILE, help="TensorRT's timing cache, read and updated."),
    click.option("--allow-unfused", is_flag=True, help="Accept an engine whose attention is not fused everywhere."),
    click.option("--force", is_flag=True, help="Replace what exists."),
)
_OUTPUT = _options(
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
    click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error too."),
)
_FIXED = _options(  # asked for by people who know other exporters; hidden, as they are always refused
    *(
        click.option(name, hidden=True, expose_value=False, callback=_refuse_shape)
        for name in ("--num-frames", "--image-size", "--dynamic-axes")
    )
)


def _note_precision(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta.setdefault(_SHORTCUTS, []).append(param.name)


def _precision_flags(function: _F) -> _F:
    for name in reversed(PRECISIONS):
        flag = click.option(
            f"--{name}", is_flag=True, expose_value=False, callback=_note_precision, help=f"Same as --precision {name}."
        )
        function = flag(function)
    return function


@click.command("export", cls=_Command)
@click.argument("model", default=DEFAULT_MODEL)
@click.option("-o", "--output", type=_PATH, help="Bundle folder to write.  [default: NAME-PRECISION]")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Type of weights and GEMMs.  [default: fp32]")
@_precision_flags
@_ENGINE
@_BATCHES
@click.option("--input", "input_mode", type=click.Choice(INPUTS), help="What the graph takes.  [default: crops]")
@click.option(
    "--frame-size", callback=_size, metavar="WxH", help="Resize in the graph, from this size; --input frames."
)
@click.option(
    "--outputs", callback=_name_list, metavar="LIST", help="logits, embedding or both.  [default: all there are]"
)
@click.option("--attention", type=click.Choice(ATTENTIONS), help="One op, or MatMuls that fuse.  [default: auto]")
@click.option("--no-rewrite", "skip_rewrites", multiple=True, metavar="NAME", help="Leave an exact rewrite out.")
@click.option("--opset", type=int, help="ONNX opset.  [default: the lowest that fits]")
@click.option("--clips", type=_PATH, help="Videos to check on.  [default: the bundled clips]")
@click.option("--num-clips", type=int, help="Use at most so many of them.")
@click.option("--gate", metavar="LIMITS", help="Drift limits, e.g. top1=0.99,max=0.02.")
@click.option("--no-check", is_flag=True, help="Do not compare with the eager model.")
@click.option("--revision", help="Hub branch, tag or commit.")
@click.option("--allow-pickle", is_flag=True, help="Also read pytorch_model.bin (a pickle).")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@_OUTPUT
@_FIXED
@click.version_option(__version__, prog_name="vivit-export")
def vivit_export(model: str, output: Path | None, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Export MODEL (a hub id, a checkpoint folder, or "demo") into a verified bundle."""
    progress = _progress(given.pop("quiet"), given.pop("verbose"))
    from vivit_export.export.options import ExportOptions, plan_export

    options = ExportOptions(
        precision=_one_precision(given.pop("precision"), click.get_current_context().meta.get(_SHORTCUTS, [])),
        targets=given.pop("targets") or ("auto",),
        batches=_batches(given),
        check=not given.pop("no_check"),
        **{name: value for name, value in given.items() if value is not None},
    )
    plan = plan_export(model, output, options)
    if dry_run:
        _show_plan(plan, as_json)
        return
    from vivit_export.export.pipeline import export_model  # torch takes seconds to load: after the mistakes

    bundle = export_model(model, output, options=options, progress=progress)
    _show_bundle(bundle, as_json, seconds=progress.seconds)


@click.group()
@click.version_option(__version__, prog_name="vivit")
def vivit() -> None:
    """Export, build and inspect ViViT bundles."""


vivit.add_command(vivit_export, "export")


@vivit.command(cls=_Command)
@click.argument("bundle", type=_PATH)
@_ENGINE
@_BATCHES
@_OUTPUT
def build(bundle: Path, targets: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Add engines for this machine to BUNDLE; needs no torch."""
    progress = _progress(given.pop("quiet"), given.pop("verbose"))
    from vivit_export.export.build import build_engines

    built = build_engines(bundle, targets or ("auto",), batches=_batches(given), progress=progress, **given)
    _show_bundle(built, as_json, seconds=progress.seconds)


@vivit.command(cls=_Command)
@click.argument("bundle", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Verify BUNDLE and show what it holds."""
    from vivit_export.bundle import read_bundle

    _show_bundle(read_bundle(bundle), as_json)


def _progress(quiet: bool, verbose: bool) -> Silent:
    from vivit_export.progress import Console, Silent

    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other; give one of them")
    return Silent() if quiet else Console()


def _one_precision(precision: str | None, shortcuts: list[str]) -> str:
    named = {*shortcuts, *([precision] if precision else [])}
    if len(named) > 1:
        flags = " and ".join(f"--{name}" for name in PRECISIONS if name in named)
        raise UsageError(f"{flags} exclude each other; give one precision")
    return next(iter(named), "fp32")


def _batches(given: dict[str, Any]) -> tuple[int, int, int]:
    low, opt, high = given.pop("min_batch"), given.pop("opt_batch"), given.pop("max_batch")
    return low, opt if opt is not None else max(low, min(4, high)), high


def _show_plan(plan: ExportPlan, as_json: bool) -> None:
    facts = plan.to_json()
    if as_json:
        click.echo(json.dumps(facts, indent=2, sort_keys=True))
        return
    click.echo(f"would export {plan.model} to {plan.target}")
    for key in ("precision", "attention", "opset", "input", "batches", "check"):
        click.echo(f"  {key:<10} {facts[key]}")
    engines = [" ".join([flavour, *(f"SM{sm}" for sm in plan.sms(flavour))]) for flavour in plan.flavours]
    click.echo(f"  {'engines':<10} {', '.join(engines) or 'none'}")
    for flavour, reason in plan.skipped.items():
        click.echo(f"  {'left out':<10} {flavour}: {reason}")


def _show_bundle(bundle: Bundle, as_json: bool, seconds: dict[str, float] | None = None) -> None:
    from vivit_export.summary import summary_json, summary_text

    if as_json:
        click.echo(json.dumps(summary_json(bundle, seconds), indent=2, sort_keys=True))
    else:
        click.echo(summary_text(bundle))
