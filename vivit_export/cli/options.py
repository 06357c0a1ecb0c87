"""Options that several commands share, and how commands report errors. Nothing heavy is imported."""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeVar, get_args

import click

from vivit_export.calibration.options import CalibrationOptions
from vivit_export.choices import AUTO, CalibrationMethod, CpuPrecision, Decode
from vivit_export.cli.config import SHORTCUTS, config_parameters, is_typed, remember_arguments, shown_config, source_of
from vivit_export.cli.flags import flag
from vivit_export.cli.help import Presented, PresentedGroup
from vivit_export.cli.values import FILE, PATH, sm_list, views
from vivit_export.contract import Sampling, Short
from vivit_export.errors import EnvironmentFault, OutputError, UsageError, VivitExportError, option
from vivit_export.flavour import Flavour
from vivit_export.packages import missing_package
from vivit_export.precision import Precision
from vivit_export.printing import lines, one_line
from vivit_export.signals import ended_like_ctrl_c, ignore_from_now_on, leave_if_any_hangs

if TYPE_CHECKING:
    from vivit_export.export.engine.options import EngineOptions
    from vivit_export.progress import Silent


_F = TypeVar("_F", bound=Callable[..., Any])
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Reporting(Presented):
    """Report in one sentence that what a command prints, or its help, has no place; and never print what is obeyed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; click's message about a wrong one may quote it."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as e:
            said = e.format_message()
            source = source_of(ctx, getattr(e, "param", None))
            if lines(said) == said and source is None:
                raise
            raise click.UsageError(lines(said) + (f" (from {source})" if source else ""), e.ctx) from None

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run as the whole program."""
        try:
            return super().main(*args, **extra)
        except OSError as e:
            if e.errno not in _NO_PLACE:
                raise
            _drop_stdout()
            _fail(f"{e.filename or 'the output'} cannot be written: {e.strerror}", code=OutputError.exit_code)
        except SystemExit as e:
            if not args and not extra:  # as the console script calls it
                leave_if_any_hangs(e.code if isinstance(e.code, int) else 0)
            raise


class Group(_Reporting, PresentedGroup):
    """A group of commands."""


class Command(_Reporting):
    """Report a `VivitExportError` as one sentence and its exit code; catch nothing else.

    Args:
        interrupted: what Ctrl-C leaves, in the words of the message.
    """

    def __init__(self, *args: Any, interrupted: str = "nothing was written", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params += config_parameters()
        self._interrupted = interrupted

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and report what a file or the environment says wrongly."""
        remember_arguments(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except VivitExportError as e:
            _fail(*e.lines(flag), code=e.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without Δ still shows the figures
        try:
            shown = shown_config(ctx)
            if shown is not None:
                click.echo(lines(shown))
                return None
            with ended_like_ctrl_c():
                return super().invoke(ctx)
        except VivitExportError as e:
            if ctx.params.get("verbose") and not isinstance(e, UsageError):
                traceback.print_exc()
            _fail(*e.lines(flag), code=e.exit_code)
        except ModuleNotFoundError as e:
            if e.name is None or e.name.startswith("vivit_export"):
                raise
            _fail(str(missing_package(e.name)), code=EnvironmentFault.exit_code)
        except KeyboardInterrupt as e:
            ignore_from_now_on()
            _fail(f"interrupted; {str(e) or self._interrupted}", code=130)


def _fail(*message: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):  # where stderr has no place either, the exit code is left
        click.echo("error: " + "\n".join(map(one_line, message)), err=True)
    sys.exit(code)


def _drop_stdout() -> None:
    """Drop what stdout still holds; Python would try to write it at exit, and fail again."""
    with contextlib.suppress(OSError, AttributeError):  # not a file, in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse_shape(_ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        given = f"{param.opts[0]} {value}".strip()
        raise click.UsageError(
            f"{given} is not possible: the checkpoint's position embeddings fix frames, height and width; only the "
            "batch is dynamic, within --min-batch and --max-batch"
        )


def _note_precision(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta.setdefault(SHORTCUTS, []).append(param.name)


# --- groups of options -------------------------------------------------------------------------


def options(*decorators: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Combine several decorators into one; options keep their order in ``--help``."""

    def apply(function: _F) -> _F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def grouped(name: str, make: Callable[..., Any], *decorators: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Combine several options into one decorator that passes a single argument to the command.

    Args:
        name: name of that argument.
        make: builds its value; the parameters are the options' names.
        decorators: the options.
    """
    names = tuple(inspect.signature(make).parameters)

    def apply(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            made = make(**{option: given.pop(option) for option in names})
            return function(*args, **{name: made}, **given)

        return options(*decorators)(call)  # type: ignore[arg-type]

    return apply


class SamplingChoice(NamedTuple):
    """How a clip is drawn from a video; None keeps what the bundle or the checkpoint says."""

    sampling: Sampling | None
    stride: int | None
    short: Short | None
    views: tuple[int, int] | None


def _make_progress(quiet: bool, verbose: bool) -> Silent:
    from vivit_export.progress import Console, Silent

    if quiet and verbose:
        raise UsageError(f"{option('quiet')} and {option('verbose')} exclude each other; give one of them")
    return Silent() if quiet else Console(verbose=verbose)


def _make_precision(precision: str | None) -> Precision | Literal["auto"] | None:
    context = click.get_current_context()
    shortcuts = context.meta.get(SHORTCUTS, [])
    both = precision and (is_typed(context, "precision") or not shortcuts)  # what is typed wins over a file
    named = {*shortcuts, *([precision] if both else [])}
    if len(named) > 1:
        flags = " and ".join(option("precision", name) for name in (*Precision, AUTO) if name in named)
        raise UsageError(f"{flags} exclude each other; give one precision")
    if AUTO in named:
        return AUTO
    return Precision(named.pop()) if named else None


def _make_engine_options(
    sms: tuple[int, ...],
    timing_cache: Path | None,
    allow_unfused: bool,
    min_batch: int,
    opt_batch: int | None,
    max_batch: int,
) -> EngineOptions:
    from vivit_export.export.engine.options import EngineOptions

    opt = opt_batch if opt_batch is not None else max(min_batch, min(4, max_batch))
    return EngineOptions((min_batch, opt, max_batch), sms, timing_cache, allow_unfused)


def _make_calibration(
    data: tuple[Path, ...],
    method: CalibrationMethod,
    calibration_clips: int | None,
    calibration_seed: int,
    calibration_cache: Path | None,
    smooth: str,
) -> CalibrationOptions:
    return CalibrationOptions(data, method, smooth, calibration_clips, calibration_seed, calibration_cache)


target_options = options(
    click.option(
        "--target",
        "targets",
        multiple=True,
        type=click.Choice(("auto", "onnx", *map(str, Flavour))),
        default=("auto",),
        help="What to build. Repeatable.  [default: auto]",
    ),
)
engine_options = grouped(
    "engine",
    _make_engine_options,
    click.option(
        "--sm",
        "sms",
        callback=sm_list,
        metavar="LIST",
        help="Compute capabilities for TensorRT for RTX, such as 86,89,120.",
    ),
    click.option("--timing-cache", type=FILE, help="TensorRT timing cache to read and update."),
    click.option("--allow-unfused", is_flag=True, help="Accept an engine with unfused attention."),
    click.option("--min-batch", type=int, default=1, show_default=True, help="Smallest batch that the engine accepts."),
    click.option("--opt-batch", type=int, help="Batch the engine is tuned for.  [default: 4, or --max-batch if lower]"),
    click.option("--max-batch", type=int, default=8, show_default=True, help="Largest batch that the engine accepts."),
)
calibration_options = grouped(
    "calibration",
    _make_calibration,
    click.option(
        "--calibration-data", "data", multiple=True, type=PATH, metavar="PATH",
        help="Videos to calibrate on: a folder, a file, a .txt or .csv list, or crops in .safetensors. Repeatable.",
    ),
    click.option(
        "--calibration-method", "method", type=click.Choice(get_args(CalibrationMethod)), default="mse",
        show_default=True, help="How to choose ranges.",
    ),
    click.option("--calibration-clips", type=int, help="Calibrate on at most this many videos."),
    click.option("--calibration-seed", type=int, default=0, show_default=True, help="Seed for their order."),
    click.option("--calibration-cache", type=FILE, help="File that lets a calibration resume.  [default: in ~/.cache]"),
    click.option(
        "--smooth", metavar="ALPHA", default="auto", show_default=True, help="SmoothQuant alpha: auto, none, or 0 to 1."
    ),
)  # fmt: skip
force_option = click.option("--force", is_flag=True, help="Replace existing output.")
fp8_attention_option = click.option(
    "--fp8-attention", is_flag=True, help="With --fp8: quantize Q, K, V and the softmax too."
)
output_options = grouped(
    "progress",
    _make_progress,
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="Print no progress."),
    click.option("-v", "--verbose", is_flag=True, help="Print details, and tracebacks of errors."),
)
sampling_options = grouped(
    "sampling",
    SamplingChoice,
    click.option("--sampling", type=click.Choice(get_args(Sampling)), help="How to draw a clip from a video."),
    click.option("--stride", type=int, metavar="K", help="Take every K-th frame; implies --sampling stride."),
    click.option("--short", type=click.Choice(get_args(Short)), help="What to do with a video that is too short."),
    click.option("--views", callback=views, metavar="TxS", help="Average T temporal and S spatial views, such as 4x3."),
)
reading_options = options(
    click.option(
        "--decode",
        type=click.Choice(get_args(Decode)),
        default="auto",
        show_default=True,
        help="Decode what the clips need, or the whole of each video to find any damage.",
    ),
    click.option(
        "--readers", type=click.IntRange(min=1), help="Read this many videos at once.  [default: one per core]"
    ),
)
device_options = options(
    click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N.  [default: the first GPU, or the CPU]"),
    click.option(
        "--cpu-precision", type=click.Choice(get_args(CpuPrecision)), help="Arithmetic of CPU engines.  [default: fp32]"
    ),
)
signature_options = options(
    click.option(
        "--require-signature",
        multiple=True,
        type=FILE,
        help="Public key or certificates (PEM) of whom BUNDLE must be signed by. Repeatable.",
    ),
    click.option("--identity", metavar="NAME", help="Name that the signer's certificate must have."),
)
session_options = options(
    click.option(
        "--engine",
        metavar="NAME",
        help="tensorrt, onnxruntime, …, or triton://HOST:PORT/MODEL.  [default: the best for this machine]",
    ),
    device_options,
)
self_test_option = click.option(
    "--no-self-test", is_flag=True, help="Do not run a golden clip first where the engine was not proven before."
)


def precision_options(default: Precision, *, search: bool = False) -> Callable[[_F], _F]:
    """Return the options that choose a precision; without one the command gets None and takes its default.

    Args:
        default: it.
        search: whether the choice may be left to the command, as ``auto``.
    """
    auto = "auto: the fastest inside its gate.  " if search else ""
    return grouped(
        "precision",
        _make_precision,
        click.option(
            "--precision",
            type=click.Choice([*map(str, Precision), *([AUTO] if search else [])]),
            help=f"Type of the weights and GEMMs.  {auto}[default: {default}]",
        ),
        *(
            click.option(
                f"--{name}",
                is_flag=True,
                expose_value=False,
                callback=_note_precision,
                help=f"Same as --precision {name}.",
            )
            for name in Precision
        ),
    )


rewrite_options = options(
    click.option(
        "--no-rewrite", "skip_rewrites", multiple=True, metavar="NAME", help="Leave out an exact rewrite. Repeatable."
    ),
)
hub_options = options(
    click.option("--revision", help="Branch, tag or commit on the hub."),
    click.option("--allow-pickle", is_flag=True, help="Allow weights from a pickle (pytorch_model.bin)."),
)
# People who know other exporters try these; hidden because they are always refused.
fixed_shape_options = options(
    *(
        # The value is optional, so that the option never takes the next one for its value.
        click.option(name, is_flag=False, flag_value="", hidden=True, expose_value=False, callback=_refuse_shape)
        for name in ("--num-frames", "--image-size", "--dynamic-axes")
    )
)
