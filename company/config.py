"""Values as people write and read them: durations, sizes, parameters, addresses (pure).

One parser for command line, package.toml and settings, so that ``90s``, ``2h`` or ``512MiB`` mean the same everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from p2p.base.errors import UsageError

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"(\d{1,15}(?:\.\d+)?)\s*(ms|sec|min|s|m|h|d|w)?")
_SIZE = re.compile(r"(\d{1,18}(?:\.\d+)?)\s*(?:([kmgtp])(i?)b?|b)?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_duration_s(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``1.5h``, ``1h30m`` or ``500ms``. Raises `UsageError`."""
    stripped = text.strip().lower()
    total, position = 0.0, 0
    while position < len(stripped):
        match = _DURATION_PART.match(stripped, position)
        if match is None or (match[2] is None and (position > 0 or match.end() < len(stripped))):
            break
        total += float(match[1]) * _DURATION_UNITS[match[2] or "s"]
        position = match.end()
        while position < len(stripped) and stripped[position] == " ":
            position += 1
    if not stripped or position < len(stripped):
        raise UsageError("bad-duration", f"{text!r} is not a duration", hint="write 90s, 10m, 2h, 1h30m or 7d")
    return total


def parse_size_bytes(text: str) -> int:
    """Bytes of ``1000``, ``512MiB``, ``2GB`` or ``1.5G`` (``G`` means ``GiB``). Raises `UsageError`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError("bad-size", f"{text!r} is not a size", hint="write 512MiB, 2GiB or 2GB")
    unit = (match[2] or "").lower()
    decimal = unit and not match[3] and match[0].lower().endswith("b")
    return int(float(match[1]) * (1000 if decimal else 1024) ** _POWERS.get(unit, 0))


def parse_params(pairs: Iterable[str]) -> dict[str, Any]:
    """Parameters of ``K=V`` pairs; V is JSON where it reads as JSON, else text. Raises `UsageError`."""
    params: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError("bad-param", f"{pair!r} is not K=V with a Python name as K", hint="write -p lines=1000")
        if key in params:
            raise UsageError("bad-param", f"parameter {key!r} is given twice")
        try:
            params[key] = json.loads(value)
        except ValueError:
            params[key] = value
    return params


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``, ``[v6]:port`` or ``:port``. Raises `UsageError`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError("bad-address", f"{text!r} is not HOST:PORT", hint="write 127.0.0.1:8470")
    return host, int(port)


def format_size(size_bytes: float) -> str:
    """``4.2 GiB``."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size_bytes /= 1024
        if size_bytes < 1000 or unit == "TiB":
            return f"{size_bytes:.1f} {unit}" if size_bytes < 99.95 else f"{size_bytes:.0f} {unit}"
    raise AssertionError  # the loop always returns


def format_duration(seconds: float) -> str:
    """``0.4 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for big, big_name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big} {big_name} {rest} {small_name}" if rest else f"{whole // big} {big_name}"
    return f"{whole} s"


def typed_duration(seconds: int) -> str:
    """As `parse_duration_s` reads it, to the second: ``1h``, ``1h30m``, ``90s`` is ``1m30s``."""
    rest, parts = max(0, seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def format_count(number: int) -> str:
    """``1 000 000``: thin groups that no locale reads as a decimal point."""
    return f"{number:,}".replace(",", " ")
