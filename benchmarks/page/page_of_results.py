"""A page that is written from results, section by section."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Section = tuple[str, str, Callable[[dict[str, Any]], str]]
"""Name of the result, title, and what writes the text between the title and the machine."""


def page_of(intro: str, sections: Iterable[Section], results: Path, source: Callable[[str], str]) -> str:
    """Write the whole page; a missing result is listed as not measured.

    Args:
        intro: title and first words.
        sections: in order.
        results: folder of the results.
        source: says of a missing result, after its title, what would measure it.
    """
    parts, missing = [intro], []
    for name, title, write in sections:
        path = results / f"{name}.json"
        if not path.exists():
            missing.append(f"- {title}{source(name)}")
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"## {title}\n\n{write(content)}\n\n{machine(content['environment'])}\n")
    if missing:
        parts.append("## Not measured\n\n" + "\n".join(missing) + "\n")
    return "\n".join(parts)


def machine(environment: dict[str, Any]) -> str:
    """Say where and how a result was measured."""
    packages = environment.get("packages", environment)
    names = ("torch", "transformers", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx")
    versions = ", ".join(f"{name} {packages[name]}" for name in names if packages.get(name))
    command = environment.get("command", "")
    load = environment.get("load_before", environment.get("load_1min"))
    gpu = f"{environment['gpu']}; " if environment.get("gpu") else ""
    where = f"{gpu}{environment['cpu']}, {environment['cores']} cores, load {load} before; {versions}"
    return f"`{command}` · {where}" if command else where
