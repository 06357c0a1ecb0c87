"""Options from a file and from the environment: ``--config FILE``, ``VIVIT_…``, ``--show-config``.

What is typed wins over the environment, that over the file, and that over the default. The file is TOML with a table
for each command, such as ``[export]`` or ``[deploy.triton]``; its keys are the options without dashes in front, and the
arguments in lower case. Relative paths in it begin at its own folder. A variable is named after command and option:
``VIVIT_EXPORT_MAX_BATCH``.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vivit_export.cli.values import FILE
from vivit_export.errors import InputError, UsageError
from vivit_export.files import regular_text
from vivit_export.hub import is_hub_address
from vivit_export.printing import toml_value
from vivit_export.records import JsonObject
from vivit_export.runtime.clips.live.address import is_live
from vivit_export.runtime.session.triton.address import is_address

_MOST_BYTES = 1 << 20
_META = "vivit_export.cli.config"
SHORTCUTS = "vivit_export.cli.shortcuts"
"""Key of a context's ``meta``: the precisions that were typed as ``--fp16`` and the like."""
_OWN = frozenset({"config", "show_config", "version"})
_SCALARS = (str, int, float)  # truth values are integers
_WORDS = {True: ("1", "true", "yes", "on"), False: ("0", "false", "no", "off")}


@dataclass
class _Given:
    """What came from elsewhere than the command line.

    Attributes:
        values: by parameter, as text, numbers, truth values or lists of them.
        sources: where each came from, for people.
        arguments: the command line.
        show: whether to print all that and stop.
    """

    values: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    show: bool = False


def config_parameters() -> list[click.Parameter]:
    """Return the two options that every command has."""
    return [
        click.Option(
            ["--config"],
            type=FILE,
            is_eager=True,
            expose_value=False,
            callback=_read,
            help="Options from a TOML file; what is typed and the environment (VIVIT_…) come first.",
        ),
        click.Option(
            ["--show-config"],
            is_flag=True,
            expose_value=False,
            callback=_note_show,
            help="Print every option with its value and where that came from, and stop.",
        ),
    ]


def remember_arguments(ctx: click.Context, arguments: list[str]) -> None:
    """Keep the command line, to show what is typed before types are applied to it."""
    _given(ctx).arguments = list(arguments)


def source_of(ctx: click.Context, param: click.Parameter | None) -> str | None:
    """Return where the value of a parameter came from, if neither typed nor a default."""
    return _given(ctx).sources.get(str(param.name)) if param is not None else None


def is_typed(ctx: click.Context, name: str) -> bool:
    """Return whether a parameter stands on the command line."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def shown_config(ctx: click.Context) -> str | None:
    """Return what ``--show-config`` prints, which is a file for ``--config``; None if it was not asked for."""
    given = _given(ctx)
    if not given.show:
        return None
    rows = list(_rows(ctx, given))
    if ctx.params.get("as_json"):
        options = {key: {"value": value, "source": source} for key, value, source in rows}
        return json.dumps({_section(ctx): options}, indent=2)
    lines = [f"[{_section(ctx)}]"]
    for key, value, source in rows:
        lines.append(f"# {key}: not set" if value is None else f"{key} = {toml_value(value)}  # {source}")
    return "\n".join(lines)


def _rows(ctx: click.Context, given: _Given) -> Iterator[tuple[str, Any, str]]:
    typed = ctx.command.make_parser(ctx).parse_args(args=list(given.arguments))[0]
    for key, param in _configurable(ctx.command).items():
        name = str(param.name)
        if is_typed(ctx, name):
            yield key, _plain(typed.get(name), param), "command line"
        elif key == "precision" and ctx.meta.get(SHORTCUTS):
            yield key, ctx.meta[SHORTCUTS][0], "command line"
        elif name in given.values:
            yield key, _plain(given.values[name], param), given.sources[name]
        else:
            default = param.get_default(ctx)
            known = isinstance(default, (*_SCALARS, Path, tuple, list)) and default != ()
            yield key, _plain(default, param) if known else None, "default"


def _plain(value: object, param: click.Parameter) -> Any:
    """Return a value as the file would have it; the command line has text alone."""
    if isinstance(value, (list, tuple)):
        return [_plain(one, param) for one in value]
    if isinstance(value, Path):
        return str(value)
    convert: Any = param.type.convert
    if isinstance(value, str) and isinstance(param.type, (click.types.IntParamType, click.types.FloatParamType)):
        try:
            return convert(value, param, None)
        except click.BadParameter:
            return value
    return value


def _configurable(command: click.Command) -> dict[str, click.Parameter]:
    """Return the parameters that a file may set, by key; shortcuts such as ``--fp16`` stand for another option."""
    found: dict[str, click.Parameter] = {}
    for param in command.params:
        if param.name in _OWN or getattr(param, "hidden", False) or not param.expose_value:
            continue
        long = next((opt for opt in param.opts if opt.startswith("--")), str(param.name))
        found[long.removeprefix("--").lower()] = param
    return found


def _note_show(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    _given(ctx).show = value


def _read(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Take the file's values and the environment's as the defaults of the options that follow."""
    if ctx.resilient_parsing:  # to complete what is typed
        return
    given, known, section = _given(ctx), _configurable(ctx.command), _section(ctx)
    if path is not None:
        for key, value in _table(path, ctx).items():
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}"
                raise UsageError(f"{path}: [{section}] has no option {key!r}{hint}")
            name = str(known[key].name)
            given.values[name] = _checked(value, known[key], f"{path}: {key}", path.parent)
            given.sources[name] = str(path)
    for key, param in known.items():
        variable = f"VIVIT_{section}_{key}".upper().replace(".", "_").replace("-", "_")
        text = os.environ.get(variable)
        if text and isinstance(param, click.Option):
            given.values[str(param.name)] = _from_text(text, param, variable)
            given.sources[str(param.name)] = variable
    ctx.default_map = given.values


def _table(path: Path, ctx: click.Context) -> JsonObject:
    """Return the table of this command in the file; empty if it has none.

    Raises:
        InputError: the file cannot be read, or is not TOML.
    """
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib  # type: ignore[import-not-found, no-redef]
    try:
        data: JsonObject = tomllib.loads(regular_text(path, _MOST_BYTES))
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
    except ValueError as e:  # no TOML, or no UTF-8
        raise InputError(f"{path} is not a TOML file: {e}") from e
    from vivit_export.cli import vivit  # whichever of both programs runs: a file may be for all commands

    _require_known(data, vivit, [], path, _section(ctx))
    found: Any = data
    for part in _section(ctx).split("."):
        found = found.get(part, {})
    return dict(found)


def _require_known(table: JsonObject, group: click.Group, above: list[str], path: Path, this: str) -> None:
    """Refuse a table of no command, and what stands outside of them: a misspelled name must not have no effect."""
    for name, value in table.items():
        inner = group.commands.get(name)
        if inner is None or not isinstance(value, dict):
            raise UsageError(
                f"{path}: {'.'.join([*above, name])!r} is not the table of a command; write the options of one below "
                f"its name, such as [{this}]"
            )
        if isinstance(inner, click.Group):
            _require_known(value, inner, [*above, name], path, this)


def _section(ctx: click.Context) -> str:
    """Return the command's name as a file has it: ``export``, ``deploy.triton``."""
    names, here = [], ctx
    while here.parent is not None:
        names.append(str(here.command.name))
        here = here.parent
    return ".".join(reversed(names)) or str(ctx.command.name)


def _checked(value: object, param: click.Parameter, where: str, folder: Path) -> object:
    """Return a value of the file in the form that the option takes."""
    several = getattr(param, "multiple", False) or param.nargs == -1
    items = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not several:
        raise UsageError(f"{where} takes one value, not a list")
    for item in items:
        flag = getattr(param, "is_flag", False)
        scalar = isinstance(item, _SCALARS)
        if not scalar or flag != isinstance(item, bool):
            wanted = "true or false" if flag else "text or a number"
            raise UsageError(f"{where} = {toml_value(item) if scalar else item} must be {wanted}")
    if isinstance(param.type, click.Path):
        items = [_beside(str(item), folder) for item in items]
    else:
        items = [item if isinstance(item, bool) else str(item) for item in items]
    return items if several else items[0]


def _beside(place: str, folder: Path) -> str:
    """Return a path as from here; addresses stay."""
    stays = not place or os.path.isabs(place) or is_address(place) or is_hub_address(place) or is_live(place)
    return place if stays else str(folder / place)


def _from_text(text: str, param: click.Option, variable: str) -> object:
    if param.is_flag:
        for truth, words in _WORDS.items():
            if text.lower() in words:
                return truth
        raise UsageError(f"{variable}={text!r} must be 1 or 0")
    return list(param.type.split_envvar_value(text)) if param.multiple else text


def _given(ctx: click.Context) -> _Given:
    found: _Given = ctx.meta.setdefault(_META, _Given())
    return found
