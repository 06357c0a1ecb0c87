"""Every case of docs/field-cases.md is one that a test tries."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/field-cases.md"


def listed() -> set[str]:
    """The sources in the first column of the tables."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| [")]
    return {name for row in rows for name in re.findall(r"\[([^\]]+)\]\(https://", row.split(" | ")[0])}


def tried() -> Iterator[str]:
    """The sources that tests are marked with; names in a table of cases count where the mark takes one of these."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "field_case" not in text or path == Path(__file__):
            continue
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.field_case"):
                names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)] or keys_of_tables(tree)
                yield from map(str, names)


def keys_of_tables(tree: ast.Module) -> list[str]:
    """The keys of the module's dicts, of which a comprehension marks its parameters."""
    return [
        key.value
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and re.search(r" \d+$", key.value)
    ]


def test_every_case_is_tried() -> None:
    cases, marked = listed(), set(tried())
    assert len(cases) > 140
    assert sorted(cases - marked) == []
    assert sorted(marked - cases) == []
