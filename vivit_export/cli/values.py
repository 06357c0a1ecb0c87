"""Parse values from the command line. Nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vivit_export.errors import UsageError
from vivit_export.hub import is_hub_address, parse_hub_address
from vivit_export.runtime.clips.live.address import is_live
from vivit_export.runtime.session.triton.address import is_address


class _Path(click.Path):
    """A path. An empty one is refused: it is an unset variable of a script, not the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value, param, ctx) if value else self.fail("an empty path names nothing", param, ctx)


class _Bundle(_Path):
    """A path, or the address of a bundle on the hub; with `output_options`, a command gets the path of its copy."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not is_hub_address(value):
            return super().convert(value, param, ctx)
        try:
            return parse_hub_address(value)
        except UsageError as e:
            self.fail(str(e), param, ctx)


class _Source(_Bundle):
    """Also the address of a served model, which stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if is_address(value) else super().convert(value, param, ctx)


class _Video(_Path):
    """A path, or the address of live video, which stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if is_live(value) else super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
FILE = _Path(path_type=Path, dir_okay=False)
VIDEO = _Video(path_type=Path, readable=False)  # one that cannot be read is that video's fault, not a wrong use
BUNDLE = _Bundle(path_type=Path)
SOURCE = _Source(path_type=Path)


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
    found = _pair(value, "a size such as 1920x1080 (width x height)")
    return found and found[::-1]


def views(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read ``4x3`` (temporal x spatial) as (4, 3)."""
    return _pair(value, "a number of views such as 4x3 (temporal x spatial)")


def _pair(value: str | None, words: str) -> tuple[int, int] | None:
    if value is None:
        return None
    first, _, second = value.lower().partition("x")
    if not all(part.isascii() and part.isdigit() for part in (first, second)):
        raise click.BadParameter(f"{value!r} is not {words}")
    return int(first), int(second)


def number_range(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read ``0-299`` as (0, 299)."""
    if value is None:
        return None
    first, _, last = value.partition("-")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in (first, last)):
        raise click.BadParameter(f"{value!r} is not a range such as 0-299")
    return int(first), int(last)


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


def refuse_given(why: str, *, only: tuple[str, ...]) -> None:
    """Refuse some options of the current command if the user gave them."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name in only and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
            raise UsageError(f"{param.opts[0]} {why}")
