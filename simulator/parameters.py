"""Parameters of a scenario: declared once, read from the command line or TOML, and refused all at once (pure)."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from p2p.base.errors import UsageError

Value = int | float | str | bool
MAX_POINTS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Parameter:
    """One knob. Its type is that of its default; ``low``/``high`` bound numbers, ``choices`` words."""

    name: str
    default: Value
    text: str
    low: float = float("-inf")
    high: float = float("inf")
    choices: tuple[str, ...] = ()

    def parse(self, raw: Any) -> Value:
        """Raises ValueError with a sentence about this value."""
        if isinstance(self.default, bool):
            if str(raw).lower() in ("true", "yes", "1", "on"):
                return True
            if str(raw).lower() in ("false", "no", "0", "off"):
                return False
            raise ValueError(f"{self.name} is yes or no, got {raw!r}")
        if isinstance(self.default, str):
            if self.choices and str(raw) not in self.choices:
                raise ValueError(f"{self.name} is one of {', '.join(self.choices)}, got {raw!r}")
            return str(raw)
        kind: type[int] | type[float] = int if isinstance(self.default, int) else float
        try:
            value = kind(raw if not isinstance(raw, str) else raw.replace("_", ""))
            if isinstance(raw, bool) or (kind is int and float(raw) != value):
                raise ValueError
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"{self.name} is {'a whole number' if kind is int else 'a number'}, got {raw!r}") from None
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name} must lie in {self.low:g}..{self.high:g}, got {value:g}")
        return value


def parse_all(declared: Sequence[Parameter], given: Mapping[str, Any], lines: Mapping[str, int] | None = None) -> dict[str, Value]:
    """Values of all parameters, defaults filled in. Raises one `UsageError` that lists everything that is wrong."""
    known = {p.name: p for p in declared}
    values = {p.name: p.default for p in declared}
    wrong = []
    for name, raw in given.items():
        line = f"line {lines[name]}: " if lines and name in lines else ""
        if name not in known:
            near = [k for k in known if k.startswith(name[:3])]
            wrong.append(f"{line}there is no parameter {name}" + (f"; did you mean {', '.join(near)}?" if near else ""))
            continue
        try:
            values[name] = known[name].parse(raw)
        except ValueError as error:
            wrong.append(f"{line}{error}")
    if wrong:
        raise UsageError("simulation-parameters", "\n".join(wrong), hint="python -m simulator list SCENARIO", errors=wrong)
    return values


def read_toml(text: str) -> tuple[str, int, dict[str, Any], dict[str, int]]:
    """Scenario, seed, parameters and their line numbers. Raises `UsageError`."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError("simulation-parameters", f"this is not TOML: {error}") from None
    wrong = [f"there is no setting {name}" for name in data if name not in ("scenario", "seed", "parameters")]
    scenario, seed, parameters = data.get("scenario"), data.get("seed", 1), data.get("parameters", {})
    if not isinstance(scenario, str):
        wrong.append('scenario = "NAME" is missing')
    if not isinstance(seed, int) or isinstance(seed, bool):
        wrong.append(f"seed is a whole number, got {seed!r}")
    if not isinstance(parameters, dict):
        wrong.append("[parameters] is a table")
    if wrong:
        raise UsageError("simulation-parameters", "\n".join(wrong), errors=wrong)
    lines = {m[1]: n for n, line in enumerate(text.splitlines(), 1) if (m := re.match(r'\s*"?([\w-]+)"?\s*=', line))}
    return (
        str(scenario),
        int(seed),
        {str(k).replace("_", "-"): v for k, v in parameters.items()},
        {k.replace("_", "-"): n for k, n in lines.items()},
    )


def write_toml(scenario: str, seed: int, values: Mapping[str, Value], notes: Mapping[str, str]) -> str:
    """The file that runs the same again."""
    head = "".join(f"# {name}: {text}\n" for name, text in notes.items())
    return f'{head}scenario = "{scenario}"\nseed = {seed}\n\n[parameters]\n' + "".join(
        f"{name} = {_toml(value)}\n" for name, value in values.items()
    )


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else repr(value)


def spread(text: str) -> tuple[str, list[str]]:
    """``name=a,b,c`` or ``name=from:to:step``. Raises `UsageError`."""
    name, equals, rest = text.partition("=")
    if not (name and equals and rest):
        raise UsageError("simulation-parameters", f"--param is NAME=A,B,C or NAME=FROM:TO:STEP, got {text!r}")
    values: list[str] = []
    for part in rest.split(","):
        ends = part.split(":")
        try:
            numbers = [float(x) for x in ends] if len(ends) == 3 else []
        except ValueError:
            numbers = []
        if not numbers:
            values.append(part)
            continue
        low, high, step = numbers
        if step <= 0 or high < low or (high - low) / step > MAX_POINTS:
            raise UsageError("simulation-parameters", f"{part} is no range: FROM <= TO and STEP > 0, at most {MAX_POINTS} values")
        values += [f"{low + i * step:.12g}" for i in range(int((high - low) / step + 1e-9) + 1)]
    return name, values


def grid(spreads: Sequence[tuple[str, Sequence[str]]]) -> Iterator[dict[str, str]]:
    """Every combination, the last parameter fastest."""
    names = [name for name, _ in spreads]
    for combination in itertools.product(*(values for _, values in spreads)):
        yield dict(zip(names, combination, strict=True))
