"""package.toml: what a package says about itself, every field optional (pure)."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from company.config import parse_duration_s, parse_size_bytes
from p2p.base.errors import UsageError
from p2p.base.record import record

DEFAULT_MEMORY_BYTES = 512 << 20
DEFAULT_TIME_LIMIT_S = 600.0
MIN_MEMORY_BYTES, MAX_MEMORY_BYTES = 32 << 20, 1 << 40  # below, the interpreter with msgpack does not start
MIN_TIME_LIMIT_S, MAX_TIME_LIMIT_S = 0.001, 7 * 86400.0
MAX_MANIFEST_BYTES = 64 << 10
MAX_REQUIREMENTS = 100
MAX_PROCESSES = 256

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")


@record
class Manifest:
    """The fields of package.toml with their defaults."""

    name: str = ""  # "": not said, the uploader names it
    version: str = ""
    python: str = ""  # PEP 440 specifier, "" accepts any
    requirements: tuple[str, ...] = ()
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    time_limit_s: float = DEFAULT_TIME_LIMIT_S  # per call of process
    entry: str = "main.py"  # below processor/
    processes: int = 0  # how many processes a fragment may start; 0: none


class ManifestError(ValueError):
    """Faults of one package.toml: (line or nil, detail), all of them."""

    def __init__(self, faults: list[tuple[int | None, str]]) -> None:
        super().__init__(faults[0][1])
        self.faults = faults


def parse_manifest_untrusted(content: bytes) -> Manifest:
    """Parse package.toml. Raises `ManifestError` naming every fault with its line (and nothing else)."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestError([(None, f"it is larger than {MAX_MANIFEST_BYTES} bytes")])
    try:
        text = content.decode("utf-8-sig")
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ManifestError([(content.count(b"\n", 0, error.start) + 1, "it is not UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column \d+\)", str(error))
        last = text.count("\n") + 1  # "at end of document"
        raise ManifestError([(int(match[1]) if match else last, f"not TOML: {error}")]) from None
    except (RecursionError, ValueError) as error:  # arrays nested thousands deep; ints of thousands of digits
        raise ManifestError([(None, f"not TOML: {type(error).__name__}")]) from None
    fields: dict[str, Any] = {}
    faults: list[tuple[int | None, str]] = []
    for key, value in table.items():
        line = _line_of(text, key)
        check = _CHECKS.get(key)
        if check is None:
            faults.append((line, _unknown(key)))
            continue
        try:
            fields[_FIELDS.get(key, key)] = check(value)
        except ValueError as error:
            faults.append((line, f"{key}: {error}"))
    if faults:
        raise ManifestError(faults)
    return Manifest(**fields)


def _unknown(key: str) -> str:
    close = difflib.get_close_matches(key.lower().replace("-", "_"), _CHECKS, n=1, cutoff=0.6)
    return f"unknown key {key[:60]!r}; " + (f"did you mean {close[0]!r}?" if close else "known keys are " + ", ".join(sorted(_CHECKS)))


def _line_of(text: str, key: str) -> int | None:
    match = re.search(rf"^\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=\].]", text, re.MULTILINE)
    return text.count("\n", 0, match.end()) + 1 if match else None


def _string(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f'must be a text in quotes, got {str(value)[:40]}; write "{str(value)[:40]}"')
    return value


def _name(value: Any) -> str:
    text = _string(value)
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"must be 1 to 100 of letters, digits, space . - _ and begin with a letter or digit, got {text[:40]!r}")
    return text


def _version(value: Any) -> str:
    text = _string(value)
    if not 0 < len(text) <= 64 or not text.isprintable() or not text.isascii():
        raise ValueError(f"must be 1 to 64 printable ASCII characters, got {text[:40]!r}")
    return text


def _python(value: Any) -> str:
    text = _string(value)
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier:
        raise ValueError(f'must be a version specifier like ">=3.11" or ">=3.11,<3.14", got {text[:40]!r}') from None


def _requirements(value: Any) -> tuple[str, ...]:
    if type(value) is not list or len(value) > MAX_REQUIREMENTS or any(type(item) is not str for item in value):
        raise ValueError(f'must be a list of at most {MAX_REQUIREMENTS} texts, like ["numpy>=2", "pandas"]')
    return tuple(_requirement(item) for item in value)


def _requirement(text: str) -> str:
    try:
        requirement = Requirement(text[:500])
    except InvalidRequirement as error:
        detail = str(error).split("\n")[0]
        raise ValueError(f"{text[:60]!r} is not a requirement: {detail}") from None
    if requirement.url is not None:
        raise ValueError(f"{text[:60]!r} names an address; workers have no network, so name a distribution and version only")
    return str(requirement)


def _memory(value: Any) -> int:
    text = _string(value)[:40]  # cut first: a number of thousands of digits is no float
    try:
        size_bytes = parse_size_bytes(text)
    except UsageError:
        raise ValueError(f'must be a number and a unit, like "512MiB" or "2GiB", got {text!r}') from None
    if not MIN_MEMORY_BYTES <= size_bytes <= MAX_MEMORY_BYTES:
        raise ValueError(f"must be in 32MiB..1TiB, got {text!r}")
    return size_bytes


def _time_limit(value: Any) -> float:
    text = _string(value)[:40]
    try:
        seconds = parse_duration_s(text)
    except UsageError:
        raise ValueError(f'must be a number and a unit, like "60s", "10m" or "1.5h", got {text!r}') from None
    if not MIN_TIME_LIMIT_S <= seconds <= MAX_TIME_LIMIT_S:
        raise ValueError(f"must be in 1ms..7d, got {text!r}")
    return seconds


def _entry(value: Any) -> str:
    text = _string(value)
    parts = text.split("/")
    if not text.endswith(".py") or len(text) > 200 or "\\" in text or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"must be the path of a .py file below processor/, like {'main.py'!r}, got {text[:40]!r}")
    return text


def _processes(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_PROCESSES:
        raise ValueError(f"must be a whole number in 0..{MAX_PROCESSES}, got {str(value)[:40]}")
    return value


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": _name, "version": _version, "python": _python, "requirements": _requirements,
    "memory": _memory, "time_limit": _time_limit, "entry": _entry, "processes": _processes,
}  # fmt: skip
_FIELDS = {"memory": "memory_bytes", "time_limit": "time_limit_s"}
