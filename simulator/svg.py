"""A plot as an SVG picture, for pages that people read in a repository (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Final

from simulator.scenario import Plot

WIDTH: Final = 760
HEIGHT: Final = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 36, 56
_LETTER: Final = 6.6  # width of one, about
_COLOURS: Final = ("#0b62a4", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0f766e", "#be123c", "#475569")


def ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Round numbers along an axis."""
    if log:
        first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        step = max(1, (last - first) // 8)
        return [10.0**e for e in range(first, last + 1, step)]
    if high <= low:
        return [low]
    raw = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(raw))
    step_size = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw)
    first_tick = math.ceil(low / step_size - 1e-9)
    return [step_size * i for i in range(first_tick, int(high / step_size + 1e-9) + 1)]


def _bounds(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    usable = [v for v in values if not log or v > 0]
    low, high = min(usable), max(usable)
    if log:
        return 10.0 ** math.floor(math.log10(low) + 1e-9), 10.0 ** math.ceil(math.log10(high) - 1e-9) * (10 if low == high else 1)
    low = min(0.0, low) if low < 0.5 * high or low < 0 else low
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _place(value: float, low: float, high: float, start: float, length: float, *, log: bool) -> float:
    if log:
        value, low, high = math.log10(value), math.log10(low), math.log10(high)
    return start + (value - low) / (high - low or 1.0) * length


def _label(value: float) -> str:
    return f"{value:.4g}"


def draw(plot: Plot) -> str:
    """The picture as text; the same plot gives the same bytes."""
    ys = [y for curve in plot.curves.values() for y in curve if y is not None and (not plot.log_y or y > 0)]
    x0, x1 = _bounds(list(plot.x), log=plot.log_x)
    y0, y1 = _bounds(ys, log=plot.log_y)
    across, down = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def px(x: float) -> float:
        return _place(x, x0, x1, _LEFT, across, log=plot.log_x)

    def py(y: float) -> float:
        return _place(y, y0, y1, HEIGHT - _BOTTOM, -down, log=plot.log_y)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#1b1f24">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><text x="{_LEFT}" y="18" font-size="14">{escape(plot.title)}</text>',
    ]
    for x in ticks(x0, x1, log=plot.log_x):
        out.append(f'<line x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{px(x):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_label(x)}</text>')
    for y in ticks(y0, y1, log=plot.log_y):
        out.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{py(y):.1f}" y2="{py(y):.1f}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{py(y) + 4:.1f}" text-anchor="end">{_label(y)}</text>')
    out.append(f'<text x="{_LEFT + across / 2}" y="{HEIGHT - 20}" text-anchor="middle">{escape(plot.x_name)}</text>')
    out.append(f'<text transform="translate(14 {_TOP + down / 2}) rotate(-90)" text-anchor="middle">{escape(plot.y_name)}</text>')
    drawn: list[list[tuple[float, float]]] = []
    for number, curve in enumerate(plot.curves.values()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(px(x), py(y)) for x, y in zip(plot.x, curve, strict=True) if y is not None and (not plot.log_y or y > 0)]
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        if len(points) < 40:
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        drawn.append(points)
    if len(plot.curves) > 1:
        out += legend(list(plot.curves), drawn)
    return "\n".join([*out, "</svg>"]) + "\n"


def legend(names: Sequence[str], curves: Sequence[Sequence[tuple[float, float]]]) -> list[str]:
    """Names of the curves in the corner that the fewest of them pass through. ``curves``: points of each, in the picture's units."""
    wide, high = 26 + _LETTER * max(map(len, names)), 16 * len(names) + 4
    left, right = _LEFT + 6, WIDTH - _RIGHT - wide - 6
    above, below = _TOP + 2, HEIGHT - _BOTTOM - high - 2
    x, y = min(((x, y) for y in (above, below) for x in (left, right)), key=lambda corner: _within(curves, corner, wide, high))
    out = [f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide:.0f}" height="{high}" fill="#fff" fill-opacity="0.8"/>']
    for number, name in enumerate(names):
        at = y + 13 + 16 * number
        out.append(f'<rect x="{x + 4:.0f}" y="{at - 9:.0f}" width="10" height="10" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
        out.append(f'<text x="{x + 20:.0f}" y="{at:.0f}">{escape(name)}</text>')
    return out


def _within(curves: Sequence[Sequence[tuple[float, float]]], corner: tuple[float, float], wide: float, high: float) -> int:
    """How many of a hundred places along each stretch lie in a box."""
    x, y = corner
    found = 0
    for points in curves:
        for (ax, ay), (bx, by) in pairwise([*points[:1], *points]):
            for part in range(100):
                px, py = ax + (bx - ax) * part / 99, ay + (by - ay) * part / 99
                found += x <= px <= x + wide and y <= py <= y + high
    return found
