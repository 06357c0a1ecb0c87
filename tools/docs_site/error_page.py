"""A page with the exit codes and every sentence of an error, made from the code that raises it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from markdown_cells import code, plain

import vivit_export
from vivit_export import errors
from vivit_export.cli.flags import flag
from vivit_export.errors import VivitExportError

PACKAGE = Path(vivit_export.__file__).parent

EXIT_CODES = {
    1: ("Internal", "A fault of vivit-export itself. A traceback is shown.", "Report it, with the traceback."),
    2: (
        "Usage",
        "Options that conflict, that a target does not support, or that are out of range.",
        "The sentence names the option and what it takes; so does `--help`.",
    ),
    3: (
        "Unusable input",
        "A checkpoint, a video, a bundle, ranges or a target folder cannot be used.",
        "The sentence names the file, what is wrong with it and what to do. Nothing was written.",
    ),
    4: (
        "Build failed",
        "The compiler, or the graph that was made for it, failed.",
        "Leave out what the sentence names (an option, a target). If it names none, report it with `--verbose`.",
    ),
    5: (
        "Drift beyond the gate",
        "The model differs from the eager float32 model by more than the gate allows.",
        "Open `NAME.failed/report.html`: it shows which limit, on which clips, and where in the network it begins. "
        "`--fix` keeps what drifts in a wider type. See [Checking](checking.md).",
    ),
    6: (
        "Precision or fusion not achieved",
        "The compiled plan does not run what was promised: a GEMM in another type, or attention that is not fused.",
        "Choose another precision or `--attention pattern`; `--allow-unfused` accepts unfused attention.",
    ),
    7: (
        "Missing dependency or device",
        "A package, a driver, a GPU or a server is not there.",
        "The sentence says what to install or to start.",
    ),
    130: (
        "Interrupted",
        "You pressed Ctrl-C, or the process was told to end.",
        "The same command continues or starts over.",
    ),
}
"""Title, cause and cure of each exit code."""

_PLACE = re.compile(r"<em>.*?</em>")
_FUNCTIONS_OF_TEXT = 3  # how deep functions that return a part of a sentence may call each other
_CLASSES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, VivitExportError)
}


@cache
def _trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def _returned() -> dict[str, list[ast.expr]]:
    """What each function and method returns, by its name."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for tree in _trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                found[node.name] += [n.value for n in ast.walk(node) if isinstance(n, ast.Return) and n.value]
    return found


@cache
def _public() -> dict[str, str]:
    """The public class that each class of errors is a kind of, itself or one of its bases."""
    found = {name: name for name in _CLASSES}
    classes = [node for tree in _trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in classes:  # a base may stand in a later file
        before = len(found)
        for node in classes:
            base = next((found[b.id] for b in node.bases if isinstance(b, ast.Name) and b.id in found), None)
            if base is not None:
                found.setdefault(node.name, base)
        if len(found) == before:
            break
    return found


def raised() -> Iterator[tuple[str, ast.Call, Path]]:
    """Every place that makes an error: the name of its public class, the call, and the file."""
    for path, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _public():
                yield _public()[node.func.id], node, path


def sentences(node: ast.expr, depth: int = 0) -> list[str]:
    """Return the sentences that an expression can be, in Markdown; none if it only passes on what others say."""
    if isinstance(node, ast.Constant):
        return [plain(str(node.value))]
    if isinstance(node, ast.JoinedStr):
        found = [""]
        for value in node.values:
            parts = [plain(str(value.value))] if isinstance(value, ast.Constant) else _placeholder(value)
            found = [before + part for before in found for part in parts]
        return found
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (sentences(part, depth) or ["…"] for part in (node.left, node.right))
        return [before + after for before in left for after in right]
    if isinstance(node, ast.IfExp):
        return [*sentences(node.body, depth), *sentences(node.orelse, depth)]
    if isinstance(node, ast.Call) and depth < _FUNCTIONS_OF_TEXT:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name not in ("str", "replace"):
            return [one for value in _returned().get(name, []) for one in sentences(value, depth + 1)]
    return []


def _placeholder(node: ast.expr) -> list[str]:
    """What stands for a value: options are named as on the command line, all else in italics."""
    value = node.value if isinstance(node, ast.FormattedValue) else node
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "option":
        name = value.args[0]
        if isinstance(name, ast.Constant):
            shown = value.args[1] if len(value.args) > 1 else None
            given = shown.value if isinstance(shown, ast.Constant) else None
            text = flag(str(name.value), None if given is None else str(given))
            return [code(text) if shown is None or given is not None else f"{code(text)} {_italics(shown)}"]
        return ["<em>option</em>"]
    if isinstance(value, ast.IfExp):
        return [*_part(value.body), *_part(value.orelse)]
    return [_italics(value)]


def _part(node: ast.expr) -> list[str]:
    return sentences(node) if isinstance(node, ast.Constant | ast.JoinedStr) else [_italics(node)]


def _italics(node: ast.expr) -> str:
    while isinstance(node, ast.Call | ast.Subscript | ast.FormattedValue | ast.JoinedStr):
        if isinstance(node, ast.Call):
            node = node.args[0] if node.args else node.func
        elif isinstance(node, ast.JoinedStr):
            values = [value for value in node.values if isinstance(value, ast.FormattedValue)]
            if not values:
                break
            node = values[0]
        else:
            node = node.value
    name = getattr(node, "id", getattr(node, "attr", ""))
    return f"<em>{plain(name.strip('_').replace('_', ' ').lower()) or 'value'}</em>"


def by_class() -> dict[str, list[str]]:
    """Every sentence, in order, by the class of its error."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, call, _ in raised():
        if call.args:
            found[name].update(one for one in sentences(call.args[0]) if re.search(r"\w\w", _PLACE.sub("", one)))
    return {name: sorted(found[name], key=_without_marks) for name in _CLASSES if found[name]}


def _without_marks(text: str) -> str:
    return re.sub(r"</?em>|&#\d+;|[`-]", "", text).lower()


def page() -> str:
    """Return the page."""
    found = by_class()
    parts = [
        "# Errors\n",
        "`tools/write_reference_pages.py` writes this page.\n",
        "An error is one sentence after `error:` and an exit code. In Python it is an exception, a subclass of "
        "`VivitExportError`, with the same sentence. Copy a part of yours without its names and numbers into the "
        "search above. Words in *italics* stand for what differs.\n",
        "Exit code 0 means done. After any failure the target folder is as it was before.\n",
        "| exit code | meaning |\n|---|---|",
        "".join(
            f"| [{number}](#{number}-{_anchor(title)}) | {title.lower()} |\n"
            for number, (title, _, _) in EXIT_CODES.items()
        ),
    ]
    for number, (title, cause, cure) in EXIT_CODES.items():
        parts.append(f"## {number}: {title}\n\n{cause}\n\n**What to do:** {cure}\n")
        for name, kind in _CLASSES.items():
            if name in found and kind.exit_code == number:
                told = plain((kind.__doc__ or "").partition("\n")[0])
                parts += [f"### {name}\n", f"{told}\n", "".join(f"- {one}\n" for one in found[name])]
    return "\n".join(parts)


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
