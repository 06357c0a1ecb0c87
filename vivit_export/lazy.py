"""Names that a package loads on first use (PEP 562), so that importing it stays cheap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from vivit_export.packages import naming_the_extra


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Args:
        package: its ``__name__``.
        homes: submodule that defines each name; empty: the name is itself a submodule.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        with naming_the_extra():
            module = import_module(f"{package}.{home or name}")
        return getattr(module, name) if home else module

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
