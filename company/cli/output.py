"""How things are printed: JSON with a schema, plain aligned tables, colours only where a person looks (I/O: standard output).

What comes from modules or strangers is shown without control characters, so that nobody's print can drive somebody's terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from company.config import format_count, format_duration, format_size

STATE_COLOURS = {
    "running": "cyan", "splitting": "cyan", "merging": "cyan", "done": "green", "failed": "red", "cancelled": "yellow", "queued": "blue",
    "idle": "green", "busy": "cyan", "offline": "red", "quarantined": "red", "draining": "yellow", "paused": "yellow",
    "ok": "green", "warn": "yellow", "fail": "red",
}  # fmt: skip


def print_json(schema: str, value: Mapping[str, Any]) -> None:
    """One JSON object on one line, its schema first."""
    click.echo(json.dumps({"schema": f"company.{schema}", **value}))


def say(text: str = "") -> None:
    """A line on standard output."""
    click.echo(text)


def note(text: str) -> None:
    """A line for the person, on standard error: it never mixes with what a script reads."""
    click.echo(text, err=True)


def wants_colour() -> bool:
    """Whether standard output is a terminal whose user has not said NO_COLOR."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def colour(text: str, name: str | None) -> str:
    """``text`` in a colour where colours are wanted."""
    return click.style(text, fg=name) if name and wants_colour() else text


def state_word(state: str, width: int = 0) -> str:
    """A state in its colour, padded."""
    return colour(state.ljust(width), STATE_COLOURS.get(state))


def safe(text: object, limit: int = 0) -> str:
    """A stranger's text on one line: control characters become visible, and a long text is cut."""
    plain = "".join(c if c.isprintable() else " " if c in "\n\t\r" else "�" for c in str(text))
    return plain[: limit - 1] + "…" if limit and len(plain) > limit else plain


def safe_lines(text: str) -> str:
    """A stranger's text with its lines and tabs kept."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; the last one is not padded. An empty table is its headers alone."""
    widths = [max(len(header), *(len(row[i]) for row in rows)) if rows else len(header) for i, header in enumerate(headers)]
    lines = ["  ".join(h.ljust(w) for h, w in zip(headers, widths, strict=True)).rstrip()]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(state_cell(c) for c in cells).rstrip())
    return "\n".join(lines)


def state_cell(padded: str) -> str:
    """A padded cell, coloured when it holds a state."""
    return colour(padded, STATE_COLOURS.get(padded.strip()))


def ago(then: float | None, now: float) -> str:
    """``3 min ago``, ``in 2 h``, or a dash."""
    if then is None or then <= 0:
        return "-"
    distance = now - then
    if abs(distance) < 1:
        return "now"
    words = format_duration(abs(distance)).split()
    short = " ".join(words[:2])
    return f"{short} ago" if distance > 0 else f"in {short}"


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many}"


def size(size_bytes: Any) -> str:
    """A size, or a dash."""
    return format_size(size_bytes) if isinstance(size_bytes, (int, float)) else "-"


def short_digest(digest: object) -> str:
    """The first 12 digits of a digest: enough for commands that take a prefix."""
    return str(digest)[:12]


def truncation(found: Mapping[str, Any]) -> str:
    """``1-50 of 1 284`` when a list is not whole, else nothing."""
    if not found.get("truncated"):
        return ""
    return f"{found.get('returned')} of {format_count(int(found.get('total', 0)))} shown; --limit and --offset show others"


def reason_lines(reason: Mapping[str, Any] | None, indent: str = "  ") -> list[str]:
    """Why, and what can be done about it, as lines."""
    if not reason:
        return []
    lines = [f"{indent}{safe(reason.get('code', ''))}: {safe(reason.get('text', ''))}"]
    for action in reason.get("actions") or []:
        command = action.get("cli") or action.get("href")
        lines.append(f"{indent}  → {safe(action.get('label', ''))}" + (f": {safe(command)}" if command else ""))
    return lines
