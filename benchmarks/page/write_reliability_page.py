"""Write ``docs/reliability.md`` from ``benchmarks/results/reliability/*.json``, so that no figure is typed by hand.

    python benchmarks/page/write_reliability_page.py

A test runs it and compares. A missing result is listed as not measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markdown_table import megabytes, table
from page_of_results import page_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/reliability"
PAGE = ROOT / "docs/reliability.md"

_INTRO = """# Reliability

`benchmarks/page/write_reliability_page.py` writes this page from `benchmarks/results/reliability/`. Below each section
are the command that measured it and the machine. What the tests hold in each run is not repeated here; for the attacks,
see [SECURITY.md](../SECURITY.md).
"""
_SESSIONS = {
    "onnxruntime-cpu": "ONNX Runtime",
    "openvino": "OpenVINO",
    "server": "tritonserver",
    "server_one": "tritonserver, one clip per request",
}


def page(results: Path = RESULTS) -> str:
    """Write the whole page."""
    return page_of(_INTRO, SECTIONS, results, lambda name: "")


_SOAK = (
    "One session is asked from several threads, in batches of random size, for clips whose logits are known. A "
    "request in a hundred is bad (another type, shape or size, or empty) and must be refused with a sentence. "
    "Memory is that of the process which runs the engine, after a fifth of the requests and at the end."
)
_SOAK_OF_A_SERVER = (
    "The same through a tritonserver, with stand-ins for its back ends. Meanwhile clients are killed in the middle "
    "of a request, and the server is killed and started again; requests that it lost are counted as failed. On a "
    "machine that lets a process of Triton's Python back end stand still for a second, this server mixes up answers "
    "or ends: [Triton](triton.md) says why, and what our own models do about it; the stand-ins do nothing."
)
_KINDS = (
    "Two kinds of the server's memory grow with batches of random size: what it shares with the processes of its "
    "Python back end, which keep the largest pool that they needed, and the heap, which also shrinks again. It is not "
    "a leak of a request or of a client: with one clip in each request and nobody killed, the whole grew by 1.6 % in "
    "12,000 requests, and in 4,000 requests of random size it grew by 11 % while 81 clients were killed, and by 13 % "
    "while none was (by hand)."
)


def _soak(content: dict[str, Any], words: str = _SOAK) -> str:
    rows = []
    for name, title in _SESSIONS.items():
        if (told := content.get(name)) is None:
            continue
        outcomes, memory = told["outcomes"], told["resident_bytes"]
        wrong = sum(outcomes.get(fault, 0) for fault in ("wrong", "accepted though bad", "refused though good"))
        cells = (told["requests"], told["threads"], outcomes.get("right", 0), outcomes.get("refused", 0), wrong)
        happened = ", ".join(f"{count} x {what}" for what, count in sorted(told.get("happened", {}).items()))
        resident = (megabytes(memory["settled"]), megabytes(memory["end"]), f"{100 * told['growth']:+.1f} %")
        rows.append((title, *cells, outcomes.get("failed", 0), *resident, happened or "–"))
    columns = (
        "engine",
        "requests",
        "threads",
        "right",
        "bad, refused",
        "wrong",
        "failed",
        "MB settled",
        "MB at the end",
    )
    written = f"{words}\n\n{table((*columns, 'growth', 'meanwhile'), rows)}"
    kinds = [
        (_SESSIONS[name], kind, megabytes(f["resident_bytes"]["settled"]), megabytes(f["resident_bytes"]["end"]))
        for name in _SESSIONS
        for kind, f in content.get(name, {}).get("kinds", {}).items()
    ]
    if not kinds:
        return written
    return f"{written}\n\n{_KINDS}\n\n{table(('engine', 'kind', 'MB settled', 'MB at the end'), kinds)}"


def _fuzz(content: dict[str, Any]) -> str:
    targets = content["targets"]
    total = sum(told["executions"] or 0 for told in targets.values())
    words = (
        f"{len(targets)} readers of what others hand us, {total:,} executions guided by coverage (libFuzzer in C++, "
        "Atheris in Python): nothing but our own errors may come out, within a second and bounded memory; "
        "`both_languages` compares what Python and C++ say of a manifest. What was found before is mended, and tested. "
        "Finds are those of each reader's last run, for the seconds in the table; the command below is the latest. "
        "`fuzz/` has the targets, the seeds and the inputs that were kept."
    )
    rows = [
        (name, told["seconds"], f"{told['executions'] or 0:,}", told["coverage"], told["inputs"], told["finds"])
        for name, told in sorted(targets.items())
    ]
    return f"{words}\n\n{table(('reader', 's', 'executions', 'edges covered', 'inputs', 'finds'), rows)}"


def _live(content: dict[str, Any]) -> str:
    words = (
        "A stream of video is predicted window by window, over one TCP connection after the other: the server hangs up "
        "and the client connects again. No window may be missing, dropped or out of order, and every result must be "
        "finite. Memory is counted as above."
    )
    memory, latency = content["resident_bytes"], content["latency_ms"]
    row = (
        *(f"{content['minutes']:g}", content["connections"], content["frames_sent"], content["windows"]),
        *(content["windows_missing"], content["windows_dropped"]),
        *(megabytes(memory["settled"]), megabytes(memory["end"]), f"{100 * content['growth']:+.1f} %"),
        *(latency["first third, p95"], latency["last third, p95"]),
    )
    columns = (
        *("minutes", "connections", "frames", "windows", "missing", "dropped", "MB settled", "MB at the end", "growth"),
        *("latency at first, p95 ms", "at last, p95 ms"),
    )
    return f"{words}\n\n{table(columns, [row])}"


def _kills(content: dict[str, Any]) -> str:
    words = (
        "Commands that change something are killed (SIGKILL): half of the time at any moment, half while they write. "
        "Then what they change must be whole, every hash right; the same command must succeed, say what it cleaned up, "
        "and leave nothing else. What the tests hold besides: the end of every step of writing, and full disks."
    )
    rows = [
        (f"`{name}`", told["seconds"], told["kills"], told["leftovers"], told["told"], len(told["faults"]))
        for name, told in sorted(content["commands"].items())
    ]
    return (
        f"{words}\n\n{table(('command', 's', 'kills', 'left something', 'and the next run said so', 'faults'), rows)}"
    )


SECTIONS = (
    ("soak", "Soak", _soak),
    ("soak_server", "Soak of a Triton server", lambda content: _soak(content, _SOAK_OF_A_SERVER)),
    ("live", "Live video", _live),
    ("kills", "Killed commands", _kills),
    ("fuzz", "Fuzzing", _fuzz),
)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
