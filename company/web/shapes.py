"""A shape for each state, so that colour is never the only sign, and the bar of a job's fragments (pure).

The shapes are drawn, not written: fonts without the wanted characters show boxes instead.
"""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from company import views
from p2p.base.record import record

# paths in a field of 16 x 16, drawn with a round stroke of 2
_SHAPES: Final = {
    "queued": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M8 5v3.2l2.2 1.6",
    "splitting": "M8 2v4M8 6 3.5 13M8 6l4.5 7",
    "running": "M4.5 3v10l8-5z",
    "merging": "M3.5 3 8 10M12.5 3 8 10M8 10v4",
    "done": "M2.5 8.5l3.7 3.7L13.5 4",
    "failed": "M3.5 3.5l9 9M12.5 3.5l-9 9",
    "cancelled": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M3.8 12.2l8.4-8.4",
    "paused": "M5.5 3v10M10.5 3v10",
    "joining": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M8 5v3.2l2.2 1.6",
    "idle": "M8 2.5a5.5 5.5 0 1 0 0 11A5.5 5.5 0 1 0 8 2.5",
    "busy": "M4.5 3v10l8-5z",
    "draining": "M8 2v8M4.5 7 8 10.5 11.5 7M3 14h10",
    "offline": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M3.8 12.2l8.4-8.4",
    "quarantined": "M8 2 1.5 13.5h13zM8 6.5v3M8 11.6v.1",
    "open": "M2.5 8.5l3.7 3.7L13.5 4",
    "public": "M2.5 8.5l3.7 3.7L13.5 4",
    "closed": "M3.5 3.5l9 9M12.5 3.5l-9 9",
    "off": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M3.8 12.2l8.4-8.4",
    "outbound-only": "M8 2 1.5 13.5h13zM8 6.5v3M8 11.6v.1",
    "unknown": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M8 5v3.2l2.2 1.6",
    "not-asked": "M8 2.5a5.5 5.5 0 1 0 0 11A5.5 5.5 0 1 0 8 2.5",
    "draft": "M3 13l1-3.5L11 2.5l2.5 2.5-7 7z",
    "offered": "M2 4h12v9H2zM2 4l6 5 6-5",
    "accepted": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M8 5v3.2l2.2 1.6",
    "active": "M4.5 3v10l8-5z",
    "amending": "M3 13l1-3.5L11 2.5l2.5 2.5-7 7z",
    "suspect": "M8 2 1.5 13.5h13zM8 6.5v3M8 11.6v.1",
    "revoking": "M8 2v8M4.5 7 8 10.5 11.5 7M3 14h10",
    "expired": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M8 5v3.2l2.2 1.6",
    "broken": "M3.5 3.5l9 9M12.5 3.5l-9 9",
    "closing": "M8 2v8M4.5 7 8 10.5 11.5 7M3 14h10",
    "settled": "M2.5 8.5l3.7 3.7L13.5 4",
    "rated": "M2.5 8.5l3.7 3.7L13.5 4",
    "rejected": "M3.5 3.5l9 9M12.5 3.5l-9 9",
    "withdrawn": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M3.8 12.2l8.4-8.4",
    "lapsed": "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2M3.8 12.2l8.4-8.4",
    "attention": "M8 2 1.5 13.5h13zM8 6.5v3M8 11.6v.1",
}
_FILLED: Final = frozenset({"running", "busy", "active"})


def shape(name: str) -> Markup:
    """The drawing of a state, hidden from screen readers, which read the word beside it."""
    path = _SHAPES.get(name, _SHAPES["idle"])
    fill = "currentColor" if name in _FILLED else "none"
    return Markup(
        '<svg class="shape" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d="{}" fill="{}" stroke="currentColor" '
        'stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>'
    ).format(path, fill)


@record
class Segment:
    """One part of the bar, in thousandths of its length."""

    state: str
    x: int
    width: int


def bar_of(counts: views.CountsView) -> tuple[Segment, ...]:
    """The bar from left to right: done, failed, running; the rest is the empty track. A part that is there is at least visible."""
    total = max(counts.total or counts.at_least, counts.done + counts.failed + counts.leased, 1)
    segments: list[Segment] = []
    x = 0
    for state, number in (("done", counts.done), ("failed", counts.failed), ("leased", counts.leased)):
        width = min(1000 - x, max(6, 1000 * number // total)) if number else 0
        if width:
            segments.append(Segment(state, x, width))
            x += width
    return tuple(segments)
