"""A page for each command, made from the command itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
from markdown_cells import code, plain, table

from vivit_export import cli
from vivit_export.cli.help import GROUPS, Presented


def commands() -> dict[str, click.Command]:
    """Every command that does something, as it is typed: ``vivit-export``, ``vivit deploy triton``."""
    found = dict(_walk(cli.vivit, "vivit"))
    return {"vivit-export": found.pop("vivit export"), **found}


def _walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    for part, inner in command.commands.items():
        yield from _walk(inner, f"{name} {part}")


def pages() -> dict[str, str]:
    """The index and the page of each command, by their names on the site."""
    found = commands()
    rows = [
        (f"[{code(name)}]({file_of(name)})", plain(command.get_short_help_str(1000))) for name, command in found.items()
    ]
    index = (
        "# Commands\n\n`tools/write_reference_pages.py` writes the pages of commands.\n\n"
        f"{table(['command', 'what it does'], rows)}\n"
        "`vivit export` is the same as `vivit-export`. Each command has `--help`, which ends with exit code 0. "
        "[Errors](../errors.md) lists the exit codes, [Configuration](../configuration.md) the other places that "
        "options can come from.\n"
    )
    return {"commands/index.md": index, **{f"commands/{file_of(name)}": _page(name, found[name]) for name in found}}


def file_of(name: str) -> str:
    """Return the name of a command's file, in ``commands/``."""
    return f"{name.removeprefix('vivit ').replace(' ', '-')}.md"


def _page(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, **command.context_settings)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    words = "export" if name == "vivit-export" else name.removeprefix("vivit ")
    where = f"[{words.replace(' ', '.')}]"
    variable = f"VIVIT_{words.upper().replace(' ', '_')}_"
    parts = [
        f"# {name}\n",
        f"```text\n{usage}\n```\n",
        _text(command.help or ""),
        "## Examples\n",
        f"```console\n{chr(10).join(_examples(command))}\n```\n",
        f"Each option can also come from the table {code(where)} of a `--config` file, or from the environment as "
        f"{code(variable)} and its name; see [Configuration](../configuration.md).\n",
    ]
    for title, rows in _groups(command, context):
        parts += [f"## {title}\n", table(["option", "what it does"], rows)]
    return "\n".join(parts)


def _examples(command: click.Command) -> tuple[str, ...]:
    assert isinstance(command, Presented)
    return command.examples


def _text(text: str) -> str:
    """The paragraphs of a help, joined to lines."""
    paragraphs = (" ".join(p.replace("\b", "").split()) for p in text.split("\n\n"))
    return "\n\n".join(plain(p) for p in paragraphs) + "\n"


def _groups(command: click.Command, context: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    records = {"help" if "--help" in p.opts else str(p.name): p.get_help_record(context) for p in options}
    for title, names in GROUPS.items():
        rows = [(code(record[0]), plain(record[1])) for name in records if name in names and (record := records[name])]
        if rows:
            yield title, rows
