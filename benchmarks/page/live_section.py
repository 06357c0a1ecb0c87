"""The performance page's sections on live video and on spans."""

from __future__ import annotations

from typing import Any

from markdown_table import table


def live_section(content: dict[str, Any]) -> str:
    """Write how many frames of a live stream arrived, and how long a result takes."""
    latency = content["latency_ms"]
    return (
        f"A stream of {content['stream']}, in windows of {content['window_seconds']:g} s every "
        f"{content['hop_seconds']:g} s, on {content['engine']}. {content['frames_read']} of {content['frames_sent']} "
        f"frames were read, {content['windows_dropped']} of {content['windows']} windows dropped. From the arrival of "
        f"a window's last frame to its result: median {latency['p50']:.0f} ms, 95th percentile {latency['p95']:.0f} "
        f"ms, longest {latency['max']:.0f} ms. This includes the wait for the next frame, which ends a window. CPU "
        f"time: {content['cpu_seconds']:.1f} s; peak memory: {content['peak_bytes'] / 1e6:.0f} MB."
    )


def spans_section(content: dict[str, Any]) -> str:
    """Write how well spans match the motions of films whose cuts are known."""
    rows = []
    for result in content["results"]:
        rule, found = result["rule"], result["other_films"]
        rows.append(
            (
                result["name"],
                *(f"{rule[name]:g}" for name in ("on", "off", "shortest", "bridge")),
                f"{found['spans']} of {found['motions']}",
                *(f"{found[name]:.2f}" for name in ("precision", "recall", "boundary_error_seconds")),
            )
        )
    words = (
        f"{content['films']} films of several of the demo's motions in a row, in windows of "
        f"{content['window_seconds']:g} s every {content['hop_seconds']:g} s. Of {content['rules_compared']} rules, "
        "the best was chosen on half of the films; the table has the other half. A span is right if it has a "
        "motion's label and shares half of the time that both take together; each motion is found once."
    )
    columns = ("rule", "on", "off", "shortest, s", "bridge, s", "spans", "precision", "recall", "boundary error, s")
    return f"{words}\n\n{table(columns, rows)}"
