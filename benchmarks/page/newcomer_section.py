"""The performance page's section on how long a newcomer waits."""

from __future__ import annotations

from typing import Any

from markdown_table import table


def newcomer_section(content: dict[str, Any]) -> str:
    """Write the seconds of each step, and of each path."""
    rows = []
    for path, steps in content["paths"].items():
        rows += [(path, step["step"], f"{step['seconds']:.1f}") for step in steps]
        rows.append((path, "all", f"{sum(step['seconds'] for step in steps):.1f}"))
    words = (
        "What the [README](../README.md) and the tutorials on [Triton](tutorials/triton.md) and "
        "[C++](tutorials/camera.md) tell to type, timed; reading and typing are not counted. Packages came from a "
        "cache of pip. A stand-in for Triton's back ends served, and the libraries of C++ were on the disk."
    )
    return f"{words}\n\n{table(('path', 'step', 's'), rows)}"
