"""Options that several commands share, and how a command ends. Nothing heavy is imported."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vivit_export.errors import EnvironmentFault, UsageError, VivitExportError
from vivit_export.runtime.session.triton.address import is_address
from vivit_export.signals import ended_like_ctrl_c, ignore_from_now_on

if TYPE_CHECKING:
    from vivit_export.progress import Silent

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
SAMPLINGS = ("uniform", "center", "head", "stride")
SHORTS = ("refuse", "repeat", "loop")
METHODS = ("minmax", "entropy", "percentile", "mse")
TARGETS = ("auto", "onnx", "tensorrt", "tensorrt-rtx")


class _Path(click.Path):
    """A path; an empty one is no name for the current folder but a variable of a script that was not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value, param, ctx) if value else self.fail("an empty path names nothing", param, ctx)


class _Source(_Path):
    """A path, or the address of a served model, which stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if is_address(value) else super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
FILE = _Path(path_type=Path, dir_okay=False)
SOURCE = _Source(path_type=Path)

_SHORTCUTS = "vivit_export.shortcuts"
_F = TypeVar("_F", bound=Callable[..., Any])


class Command(click.Command):
    """Turns our errors into one sentence and their exit code; nothing else is caught."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
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


# --- values ------------------------------------------------------------------------------------


def sm_list(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Read ``86,89`` (also ``sm_86``, ``8.6``) as (86, 89)."""
    if value is None:
        return ()
    parts = [part.strip().lower().removeprefix("sm").replace(".", "") for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise click.BadParameter(f"{value!r} is not a list such as 86,89,120")
    return tuple(int(part) for part in parts)


def frame_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read ``1920x1080`` (width x height) as (1080, 1920)."""
    if value is None:
        return None
    width, _, height = value.lower().partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise click.BadParameter(f"{value!r} is not a size such as 1920x1080 (width x height)")
    return int(height), int(width)


def views(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read ``4x3`` (temporal x spatial) as (4, 3)."""
    if value is None:
        return None
    temporal, _, spatial = value.lower().partition("x")
    if not (temporal.isascii() and temporal.isdigit() and spatial.isascii() and spatial.isdigit()):
        raise click.BadParameter(f"{value!r} is not a number of views such as 4x3 (temporal x spatial)")
    return int(temporal), int(spatial)


def int_list(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Read ``1,4,8`` as (1, 4, 8)."""
    parts = [] if value is None else [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of numbers above zero such as 1,4,8")
    return tuple(int(part) for part in parts)


def length(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[float, str] | None:
    """Read ``2.5`` (or ``2.5s``) as (2.5, "seconds") and ``64f`` as (64, "frames")."""
    if value is None:
        return None
    unit = "frames" if value.endswith("f") else "seconds"
    try:
        return float(value.removesuffix("f").removesuffix("s")), unit
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a length such as 2.5 (seconds) or 64f (frames)") from None


def name_list(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Read ``a, b`` as (a, b)."""
    return () if value is None else tuple(part.strip() for part in value.split(","))


def _refuse_shape(_ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(
            f"{param.opts[0]} {value} is not possible: the checkpoint's position embeddings fix frames, height and "
            "width; only the batch is dynamic, within --min-batch and --max-batch"
        )


def _note_precision(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta.setdefault(_SHORTCUTS, []).append(param.name)


# --- groups of options -------------------------------------------------------------------------


def options(*decorators: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Make one decorator of several, which keep their order in ``--help``."""

    def apply(function: _F) -> _F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


batch_options = options(
    click.option("--min-batch", type=int, default=1, show_default=True, help="Smallest batch of the engine profile."),
    click.option("--opt-batch", type=int, help="Batch the engine is tuned for.  [default: 4, or --max-batch if lower]"),
    click.option("--max-batch", type=int, default=8, show_default=True, help="Largest batch of the engine profile."),
)
engine_options = options(
    click.option("--target", "targets", multiple=True, type=click.Choice(TARGETS), help="Repeatable.  [default: auto]"),
    click.option("--sm", "sms", callback=sm_list, metavar="LIST", help="GPUs of TensorRT-RTX, such as 86,89,120."),
    click.option("--timing-cache", type=FILE, help="TensorRT's timing cache, read and updated."),
    click.option("--allow-unfused", is_flag=True, help="Accept an engine whose attention is not fused everywhere."),
    click.option("--force", is_flag=True, help="Replace what exists."),
)
calibration_options = options(
    click.option(
        "--calibration-data", "data", multiple=True, type=PATH, metavar="PATH",
        help="Videos to calibrate INT8 or FP8 on: folder, file, .txt list, or .safetensors of crops. Repeatable.",
    ),
    click.option(
        "--calibration-method", "method", type=click.Choice(METHODS), help="How ranges are found.  [default: mse]"
    ),
    click.option("--calibration-clips", "calibration_clips", type=int, help="Use at most so many of the videos."),
    click.option("--calibration-seed", type=int, help="Of their order.  [default: 0]"),
    click.option("--calibration-cache", "cache", type=FILE, help="Keeps what was observed.  [default: in ~/.cache]"),
    click.option("--smooth", metavar="ALPHA", help="SmoothQuant: auto, none, or 0 to 1.  [default: auto]"),
    click.option("--fp8-attention", is_flag=True, help="With --fp8, quantise Q, K, V and the softmax too."),
)  # fmt: skip
output_options = options(
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
    click.option("-v", "--verbose", is_flag=True, help="Show details, and the traceback of an error too."),
)
sampling_options = options(
    click.option("--sampling", type=click.Choice(SAMPLINGS), help="How a clip is drawn from a video."),
    click.option("--stride", type=int, metavar="K", help="Take every K-th frame; means --sampling stride."),
    click.option("--short", type=click.Choice(SHORTS), help="What to do with a video that has too few frames."),
    click.option("--views", callback=views, metavar="TxS", help="Average over T temporal and S spatial views, as 4x3."),
)
session_options = options(
    click.option(
        "--engine",
        metavar="NAME",
        help="tensorrt, onnxruntime …, or triton://HOST:PORT/MODEL.  [default: the best here]",
    ),
    click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N.  [default: the first GPU, else the CPU]"),
    click.option("--cpu-precision", type=click.Choice(("fp32", "bf16")), help="Arithmetic of CPU engines.  [fp32]"),
)
precision_options = options(
    click.option("--precision", type=click.Choice(PRECISIONS), help="Type of weights and GEMMs.  [default: fp32]"),
    *(
        click.option(
            f"--{name}", is_flag=True, expose_value=False, callback=_note_precision, help=f"Same as --precision {name}."
        )
        for name in PRECISIONS
    ),
)
# Asked for by people who know other exporters; hidden, as they are always refused.
fixed_shape_options = options(
    *(
        click.option(name, hidden=True, expose_value=False, callback=_refuse_shape)
        for name in ("--num-frames", "--image-size", "--dynamic-axes")
    )
)


# --- what was given ----------------------------------------------------------------------------


def take_progress(given: dict[str, Any]) -> Silent:
    """Take ``quiet`` and ``verbose`` out of a command's options; return what they ask for."""
    from vivit_export.progress import Console, Silent

    quiet, verbose = given.pop("quiet"), given.pop("verbose")
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other; give one of them")
    return Silent() if quiet else Console(verbose=verbose)


def take_precision(given: dict[str, Any], default: str = "fp32") -> str:
    """Take ``precision`` out of a command's options; return the one that it and the shortcuts agree on."""
    precision, shortcuts = given.pop("precision"), click.get_current_context().meta.get(_SHORTCUTS, [])
    named = {*shortcuts, *([precision] if precision else [])}
    if len(named) > 1:
        flags = " and ".join(f"--{name}" for name in PRECISIONS if name in named)
        raise UsageError(f"{flags} exclude each other; give one precision")
    return next(iter(named), default)


def take_sampling(given: dict[str, Any]) -> dict[str, Any]:
    """Take the sampling options out of a command's options."""
    return {name: given.pop(name) for name in ("sampling", "stride", "short", "views")}


def take_calibration(given: dict[str, Any]) -> dict[str, Any]:
    """Take the calibration options out of a command's options; return fields of `CalibrationOptions`."""
    names = {"calibration_clips": "num_clips", "calibration_seed": "seed"}
    taken = {n: given.pop(n) for n in ("data", "method", "calibration_clips", "calibration_seed", "cache", "smooth")}
    return {names.get(name, name): value for name, value in taken.items() if value not in (None, ())}


def take_batches(given: dict[str, Any]) -> tuple[int, int, int]:
    """Take the batch options out of a command's options; return (min, opt, max)."""
    low, opt, high = given.pop("min_batch"), given.pop("opt_batch"), given.pop("max_batch")
    return low, opt if opt is not None else max(low, min(4, high)), high
