"""Options that several commands share. Nothing heavy is imported."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

import click

from vivit_export.calibration.options import CalibrationOptions
from vivit_export.choices import AUTO, CalibrationMethod, CpuPrecision, Decode
from vivit_export.cli.completion import engines
from vivit_export.cli.config import SHORTCUTS, is_typed
from vivit_export.cli.log import LogLevel, start_log
from vivit_export.cli.values import FILE, PATH, sm_list, views
from vivit_export.contract import Sampling, Short
from vivit_export.errors import UsageError, option
from vivit_export.flavour import Flavour
from vivit_export.hub import HubAddress
from vivit_export.precision import Precision

if TYPE_CHECKING:
    from vivit_export.export.engine.options import EngineOptions
    from vivit_export.progress import Silent


_F = TypeVar("_F", bound=Callable[..., Any])


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


def _make_progress(quiet: bool, verbose: bool, log_level: LogLevel | None, log_file: Path | None) -> Silent:
    from vivit_export.progress import Console, Logged, Silent

    if quiet and verbose:
        raise UsageError(f"{option('quiet')} and {option('verbose')} exclude each other; give one of them")
    progress = Silent() if quiet else Console(verbose=verbose)
    if log_level is None and log_file is None:
        return progress
    start_log(log_level or "info", log_file)
    return Logged(progress)


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


def _from_hub(command: _F) -> _F:
    """Let a command get the path of a bundle that its user named by an address on the hub."""

    @functools.wraps(command)
    def call(*args: Any, **given: Any) -> Any:
        local = {
            name: _downloaded(value, given["progress"])
            for name, value in given.items()
            if isinstance(value, HubAddress)
        }
        return command(*args, **{**given, **local})

    return call  # type: ignore[return-value]


def _downloaded(address: HubAddress, progress: Silent) -> Path:
    from vivit_export.bundle.reading import fetch

    folder = fetch(address, progress)
    if not address.is_pinned:
        progress.note(f"{address} is {address.at(folder.name)} now, which always names these files")
    return folder


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
output_options = options(
    grouped(
        "progress",
        _make_progress,
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("-q", "--quiet", is_flag=True, help="Print no progress."),
        click.option("-v", "--verbose", is_flag=True, help="Print details, and tracebacks of errors."),
        click.option("--log-file", type=FILE, help="Append a log to this file.  [default: stderr, with --log-level]"),
        click.option(
            "--log-level",
            type=click.Choice(get_args(LogLevel)),
            help="The least that is logged.  [default: info, with --log-file]",
        ),
    ),
    _from_hub,
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
        shell_complete=engines,
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
