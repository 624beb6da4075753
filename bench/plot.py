"""The report as an SVG, written by hand: calls against p99 lateness and CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bench.figures import LATENESS_P99_MS, Step

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 660, 50, 340
_LATENESS, _CPU, _GREY = "#c0392b", "#2471a3", "#888888"


def nice_limit(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 … that is not below `value`; 1 for nothing."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def svg(steps: Sequence[Step], title: str) -> str:
    """Lateness p99 (left, ms, cut at twice what holds) and CPU (right, % of a core) over the number of calls.

    A hollow point is a step that does not hold. The dashed line is the greatest lateness that does.
    """
    ordered = sorted(steps, key=lambda step: step.calls)
    most = nice_limit(max((step.calls for step in ordered), default=1))
    ceiling = 2 * LATENESS_P99_MS

    def x(calls: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * calls / most

    def y(share: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * min(1.0, share)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_WIDTH / 2, 22, title, anchor="middle", size=14),
        _text(_LEFT - 45, 42, "lateness p99, ms", colour=_LATENESS),
        _text(_RIGHT + 45, 42, "CPU, % of a core", colour=_CPU, anchor="end"),
        _text((_LEFT + _RIGHT) / 2, _HEIGHT - 18, "calls", anchor="middle"),
    ]
    for tenth in range(0, 11, 2):
        share, height = tenth / 10, y(tenth / 10)
        parts.append(_line(_LEFT, height, _RIGHT, height, "#e5e5e5"))
        parts.append(_text(_LEFT - 8, height + 4, f"{ceiling * share:g}", colour=_LATENESS, anchor="end"))
        parts.append(_text(_RIGHT + 8, height + 4, f"{100 * share:g}", colour=_CPU))
        parts.append(_text(x(most * share), _BOTTOM + 18, f"{most * share:g}", anchor="middle"))
    limit = y(LATENESS_P99_MS / ceiling)
    parts.append(_line(_LEFT, limit, _RIGHT, limit, _LATENESS, "5 4"))
    for colour, points in (
        (_LATENESS, [(x(step.calls), y(step.lateness.p99 / ceiling)) for step in ordered]),
        (_CPU, [(x(step.calls), y(step.cpu_percent / 100)) for step in ordered]),
    ):
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (left, top), step in zip(points, ordered, strict=True):
            fill = colour if step.holds else "white"
            parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4" fill="{fill}" stroke="{colour}"/>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _text(
    left: float, top: float, text: str, *, colour: str = "#333333", anchor: str = "start", size: int = 12
) -> str:
    return (
        f'<text x="{left:.1f}" y="{top:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )


def _line(left: float, top: float, right: float, bottom: float, colour: str, dashes: str = "none") -> str:
    return (
        f'<line x1="{left:.1f}" y1="{top:.1f}" x2="{right:.1f}" y2="{bottom:.1f}" stroke="{colour}" '
        f'stroke-dasharray="{dashes}"/>'
    )
