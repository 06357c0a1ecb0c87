"""What a shell completes: engines of the bundle that is typed already, and modes of PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from vivit_export.hub import is_hub_address

_SUFFIXES = ("", "-fp16", "-bf16")


def engines(context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the name of an engine: those of every bundle, and those that were compiled for this one."""
    from vivit_export.errors import VivitExportError
    from vivit_export.runtime.select import ORDER

    compiled: Iterable[str] = ()
    # While the last option lacks its value, click has parsed nothing.
    bundle = context.params.get("bundle") or next((word for word in context.args if not word.startswith("-")), None)
    if isinstance(bundle, (str, Path)) and not is_hub_address(bundle):
        from vivit_export.bundle.reading import read_manifest

        with contextlib.suppress(VivitExportError, OSError):  # who is typing is not told of a damaged bundle
            compiled = read_manifest(Path(bundle)).engines
    return _matching((*compiled, *ORDER, "onnxruntime"), typed)


def compiled_engines(context: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the name of an engine that was compiled for the bundle."""
    from vivit_export.runtime.select import ORDER

    return [item for item in engines(context, param, typed) if item.value not in (*ORDER, "onnxruntime")]


def pytorch_modes(_context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete a mode of PyTorch to time."""
    from vivit_export.runtime.bench.report import PYTORCH_MODES

    return _matching([f"{mode}{suffix}" for mode in PYTORCH_MODES for suffix in _SUFFIXES], typed)


def _matching(names: Iterable[str], typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(typed)]
