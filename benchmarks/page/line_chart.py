"""A small log-log line chart as SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 320, 60, 170, 20, 40
_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")


def line_chart(title: str, x_name: str, xs: Sequence[float], series: Mapping[str, Sequence[float]]) -> str:
    """Draw series, each divided by its first value, over x; both axes are logarithmic.

    Args:
        title: above the chart.
        x_name: below it.
        xs: positive, increasing.
        series: positive values for each x, by name.
    """
    relative = {name: [value / values[0] for value in values] for name, values in series.items()}
    everything = [value for values in relative.values() for value in values]
    low, high = math.log(min(everything)), math.log(max(max(everything), 1.01 * min(everything)))
    first, last = math.log(xs[0]), math.log(xs[-1])

    def at(x: float, y: float) -> str:
        right = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log(x) - first) / (last - first)
        down = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (math.log(y) - low) / (high - low)
        return f"{right:.1f},{down:.1f}"

    def text(x: float, y: float, words: str, anchor: str = "start") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="12"',
        '     font-family="sans-serif">',
        text(_LEFT, 14, title),
        text(_LEFT - 6, _HEIGHT - _BOTTOM, f"{math.exp(low):.2g}x", "end"),
        text(_LEFT - 6, _TOP + 10, f"{math.exp(high):.2g}x", "end"),
        text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, x_name, "middle"),
    ]
    for x in xs:
        place = float(at(x, math.exp(low)).split(",")[0])
        lines.append(text(place, _HEIGHT - _BOTTOM + 16, f"{x:g}", "middle"))
    # Names beside the last points, pushed apart where these lie close together.
    ends = sorted(relative, key=lambda name: -relative[name][-1])
    below = 0.0
    for i, name in enumerate(ends):
        points = " ".join(at(x, y) for x, y in zip(xs, relative[name], strict=True))
        color = _COLORS[i % len(_COLORS)]
        lines.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        right, down = map(float, points.split()[-1].split(","))
        below = max(down + 4, below + 14)
        lines.append(f'<g fill="{color}">{text(right + 8, below, name)}</g>')
    return "\n".join([*lines, "</svg>", ""])
