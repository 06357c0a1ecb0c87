"""What a shell completes: engines of the bundle that is typed already, and modes of PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from vivit_export.hub import is_hub_address


def engines(context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the name of an engine: those that were compiled for this bundle, and those of every bundle."""
    from vivit_export.runtime.select import ENGINE_NAMES

    return _matching((*_compiled(context), *ENGINE_NAMES), typed)


def compiled_engines(context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the name of an engine that was compiled for the bundle."""
    return _matching(_compiled(context), typed)


def pytorch_kinds(_context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete a mode of PyTorch to time."""
    from vivit_export.runtime.bench.report import PYTORCH_KINDS

    return _matching(PYTORCH_KINDS, typed)


def _compiled(context: click.Context) -> Iterable[str]:
    from vivit_export.bundle.reading import read_manifest
    from vivit_export.errors import VivitExportError

    # While the last option lacks its value, click has parsed nothing.
    bundle = context.params.get("bundle") or next((word for word in context.args if not word.startswith("-")), None)
    if not isinstance(bundle, (str, Path)) or is_hub_address(bundle):
        return ()
    try:
        return read_manifest(Path(bundle)).engines
    except (VivitExportError, OSError):  # who is typing is not told of a damaged bundle
        return ()


def _matching(names: Iterable[str], typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(typed)]
