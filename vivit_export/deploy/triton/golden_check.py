"""Compare a running server's answers for a golden clip with those of the eager model. Needs Python alone.

``vivit deploy triton`` copies this file to ``REPO/NAME/check.py``, beside ``check.json`` and the clip in ``warmup/``::

    python3 NAME/check.py [http://HOST:PORT]

The clip is sent in each batch that the model was warmed up on. Exit codes: 0 all answers are within the limits, 5 one
is not, 7 the server does not answer. The limits are those of the bundle's gate on ``max``, ``max_abs``, the
cosines and ``nonfinite``; for the others run ``vivit check BUNDLE --engine triton://HOST:PORT/NAME``.
"""

from __future__ import annotations

import json
import math
import struct
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

_HEADER = "Inference-Header-Content-Length"  # of Triton's extension for binary tensors
_AT_LEAST = ("cosine", "embedding_cosine")
LIMITS = ("max", "max_abs", "nonfinite", *_AT_LEAST)
"""The limits of a gate that can be checked here."""


class Golden(TypedDict):
    """``check.json``.

    Attributes:
        model: its name on the server.
        input: name of the input, and of the clip's file in ``warmup/``.
        datatype: of the input, as the protocol writes it.
        shape: of one clip.
        batches: sizes to send.
        outputs: the eager model's for this clip.
        span: range of the logits of all golden clips, to which ``max`` is relative.
        limits: of `LIMITS`.
    """

    model: str
    input: str
    datatype: str
    shape: list[int]
    batches: list[int]
    outputs: dict[str, list[float]]
    span: float
    limits: dict[str, float]


def main(arguments: Sequence[str], folder: Path) -> int:
    """Check the model in a folder and return the exit status."""
    url = (arguments[0] if arguments else "http://localhost:8000").rstrip("/")
    golden: Golden = json.loads((folder / "check.json").read_text(encoding="utf-8"))
    clip = (folder / "warmup" / golden["input"]).read_bytes()
    for batch in golden["batches"]:
        try:
            rows = ask(url, golden, clip, batch)
        except (OSError, ValueError, KeyError, struct.error) as e:
            sys.stderr.write(f"error: {golden['model']} at {url} did not answer a batch of {batch}: {_said(e)}\n")
            return 7
        figures = worst([measure(golden, row) for row in rows])
        beyond = violations(golden["limits"], figures)
        if beyond:
            sys.stderr.write(
                f"error: {golden['model']} at {url} computes wrongly at batch {batch}: {'; '.join(beyond)}; update "
                "the driver or the server's image, or build the engine again and deploy it\n"
            )
            return 5
        told = (f"{name} {figures[name]:.6g}" for name in sorted(golden["limits"]))
        sys.stdout.write(f"batch {batch}: {', '.join(told)}\n")
    return 0


def ask(url: str, golden: Golden, clip: bytes, batch: int) -> list[dict[str, tuple[float, ...]]]:
    """Send a batch of the clip, and return the outputs for each of its clips, by name.

    Raises:
        OSError: there is no answer, or it is an error.
        ValueError: the answer is not what the protocol or the model promises; likewise KeyError and struct.error.
    """
    body = clip * batch
    source = {
        "name": golden["input"], "datatype": golden["datatype"], "shape": [batch, *golden["shape"]],
        "parameters": {"binary_data_size": len(body)},
    }  # fmt: skip
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in golden["outputs"]]
    head = json.dumps({"inputs": [source], "outputs": wanted}).encode()
    request = urllib.request.Request(
        f"{url}/v2/models/{golden['model']}/infer",
        head + body,
        {"Content-Type": "application/octet-stream", _HEADER: str(len(head))},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        content, length = answer.read(), int(answer.headers[_HEADER])
    rows: list[dict[str, tuple[float, ...]]] = [{} for _ in range(batch)]
    at = length
    for output in json.loads(content[:length])["outputs"]:
        size = int(output["parameters"]["binary_data_size"])
        count = len(golden["outputs"][output["name"]])
        values = struct.unpack(f"<{batch * count}f", content[at : at + size])
        for number, row in enumerate(rows):
            row[output["name"]] = values[number * count : (number + 1) * count]
        at += size
    if any(row.keys() != golden["outputs"].keys() for row in rows):
        raise ValueError("it lacks an output")
    return rows


def measure(golden: Golden, row: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the figures of `LIMITS` for one clip; what the model does not have is left out."""
    figures = {"nonfinite": float(sum(not math.isfinite(x) for values in row.values() for x in values))}
    for name, expected in golden["outputs"].items():
        found = row[name]
        if name == "embedding":
            figures["embedding_cosine"] = cosine(expected, found)
            continue
        figures["max_abs"] = _worst_of([abs(a - b) for a, b in zip(expected, found, strict=True)])
        figures["max"] = figures["max_abs"] / golden["span"]
        figures["cosine"] = cosine(expected, found)
    return figures


def worst(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the worst of each figure; what is not a number is the worst."""
    return {
        name: -_worst_of([-each[name] for each in figures])
        if name in _AT_LEAST
        else _worst_of([each[name] for each in figures])
        for name in figures[0]
    }


def violations(limits: Mapping[str, float], figures: Mapping[str, float]) -> list[str]:
    """Return a phrase for each limit that is exceeded, as ``vivit check`` words it."""
    found = []
    for name, limit in limits.items():
        value, at_least = figures[name], name in _AT_LEAST
        if not (value >= limit if at_least else value <= limit):
            found.append(f"{name} {value:.6g} is {'below' if at_least else 'above'} {limit:g}")
    return found


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the cosine of two vectors; a zero vector agrees with itself alone."""
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    if norms == 0:
        return float(list(a) == list(b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms


def _worst_of(values: Sequence[float]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def _said(error: Any) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code}, {error.read(1000).decode('utf-8', 'replace').strip() or error.reason}"
    return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parent))
