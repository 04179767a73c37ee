"""`company run-script --divide`: safe loops of a program in portions on a company, with the result of the sequential run (I/O).

What `company.divide` has proved of the file is checked again of the running program before a loop is divided: its functions, constants,
modules and builtins are still those of the file. From then on doubt costs time and nothing else, because every round may be run in its
place by the program itself: so it is where an item or a result is more than plain values, where a worker raises, dies or computes with
another Python, C library or processor, and for the first moments of every loop, so that short ones never leave.
"""

from __future__ import annotations

import builtins
import cmath
import math
import operator
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from company.divide import PURE_BUILTINS
from company.divide_rewrite import Part

if TYPE_CHECKING:
    from company.client.unmodified import Front

MAX_DEPTH = 20
_MODULES = {"math": math, "cmath": cmath, "operator": operator}
_ATOMS = frozenset((bool, int, str, bytes, type(None)))
_NOT_HERE = "lambda number, fn, rows: ((row, None) for row in rows)"


def environment() -> Callable[[], tuple[Any, ...]]:
    """What decides the last digit of a result. A closure, so that it travels by value."""

    def found() -> tuple[Any, ...]:
        import math
        import os
        import struct
        import sys

        points = [0.1 + 1.37 * i for i in range(40)]
        functions = (math.sin, math.cos, math.tan, math.exp, math.log, math.sqrt, math.gamma, math.erf, math.atan, math.cbrt, math.lgamma)
        digits = b"".join(struct.pack("<d", f(x)) for f in functions for x in points) + struct.pack("<40d", *(x**x for x in points[:40]))
        try:
            with open("/proc/cpuinfo") as file:
                flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
        except OSError:
            flags = ""
        libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else ""
        return sys.hexversion, sys.implementation.name, sys.byteorder, sys.get_int_max_str_digits(), libc, flags.split(), digits

    return found


def same_here(fn: Callable[[Any], Any], found: Callable[[], tuple[Any, ...]], expected: tuple[Any, ...]) -> Callable[[Any], Any]:
    """``fn`` where the environment is as expected, else None for each round. A closure, so that it travels by value."""
    known: list[bool] = []

    def call(item: Any) -> Any:
        if not known:
            known.append(found() == expected)
        return fn(item) if known[0] else None

    return call


class Divider:
    """What a rewritten program calls for each of its safe loops."""

    def __init__(self, front: Front, parts: list[Part], module: ModuleType, filename: str, *, after_s: float) -> None:
        self._front, self.parts, self._names, self._filename = front, parts, module.__dict__, filename
        self._after_s = after_s
        self._environment = environment()
        self._expected: tuple[Any, ...] | None = None
        self._builtins = {name: getattr(builtins, name) for name in PURE_BUILTINS}
        self._modules = {name: dict(vars(module)) for name, module in _MODULES.items()}

    def __reduce__(self) -> Any:
        return eval, (_NOT_HERE,)  # a function that travels takes its own loops along, and runs them where it is

    def __call__(self, number: int, fn: Callable[[Any], Any], rows: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Each item, with the values that its round computes, or None where the program has to run the round."""
        return self._rounds(self.parts[number], fn, iter(rows))

    def _rounds(self, part: Part, fn: Callable[[Any], Any], rows: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        until = time.monotonic() + self._after_s
        for item in rows:
            part.here += 1
            yield item, None
            if time.monotonic() >= until:
                break
        if self._is_as_written(part):
            yield from self._elsewhere(part, fn, rows)
        for item in rows:
            part.here += 1
            yield item, None

    def _elsewhere(self, part: Part, fn: Callable[[Any], Any], rows: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        sent: deque[tuple[Any, bool]] = deque()
        trouble: list[BaseException] = []

        def read() -> Iterator[Any]:
            try:
                for item in rows:
                    may_go = is_plain(item, may_change=False)
                    sent.append((item, may_go))
                    yield item if may_go else None
            except Exception as error:  # noqa: BLE001 - raised below, when its turn has come
                trouble.append(error)

        if self._expected is None:
            self._expected = self._environment()
        results = self._results(same_here(fn, self._environment, self._expected), read())
        for value in results:
            item, may_go = sent.popleft()
            is_taken = may_go and type(value) is tuple and is_plain(value, may_change=True)
            part.there, part.here = part.there + is_taken, part.here + (not is_taken)
            yield item, value if is_taken else None
        while sent:  # read ahead when the company went away
            part.here += 1
            yield sent.popleft()[0], None
        if trouble:
            raise trouble[0]

    def _results(self, fn: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
        """What came back, round by round; ends early where the company is no more."""
        try:
            yield from self._front.executor.map(fn, items, return_exceptions=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the program runs the rest
            self._front.say(f"loops go on on this machine: {error}")

    def _is_as_written(self, part: Part) -> bool:
        """Whether everything that the loop depends on is what the file says."""
        if sys.warnoptions or sys.gettrace() is not None or sys.getprofile() is not None:
            return False
        names, uses = self._names, part.uses
        return (
            all(self._is_function(names.get(name), line) for name, line in uses.functions.items())
            and all(name in names and is_plain(names[name], may_change=False) for name in uses.constants)
            and all(self._is_import(names.get(name), what) for name, what in uses.imports.items())
            and all(name not in names and getattr(builtins, name, None) is self._builtins[name] for name in uses.builtins)
            and all(dict(vars(_MODULES[name])) == known for name, known in self._modules.items())
        )

    def _is_function(self, value: Any, line: int) -> bool:
        return (
            type(value) is FunctionType and value.__globals__ is self._names and value.__code__.co_firstlineno == line
            and value.__code__.co_filename == self._filename and not value.__dict__ and value.__closure__ is None
            and value.__defaults__ is None and value.__kwdefaults__ is None
        )  # fmt: skip

    def _is_import(self, value: Any, what: str) -> bool:
        module, _, name = what.rpartition(".")
        return value is (self._modules[module].get(name) if module in self._modules else _MODULES.get(what))

    def report(self) -> list[str]:
        """A line for each loop of which rounds went elsewhere."""
        parts = sorted((part for part in self.parts if part.there), key=lambda part: part.verdict.line)
        return [
            f"line {part.verdict.line}, {part.verdict.kind}: {part.there} of {part.there + part.here} rounds on the company"
            for part in parts
        ]


def is_plain(value: Any, *, may_change: bool, depth: int = 0) -> bool:
    """Whether a copy is as good as the value: numbers, texts and tuples, with ``may_change`` also lists and dicts of such.

    Not so a NaN, which is found in a list by being the same object.
    """
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is float or kind is complex:
        return bool(value == value)
    if depth > MAX_DEPTH:
        return False
    if kind is tuple or (may_change and kind is list):
        return all(is_plain(inner, may_change=may_change, depth=depth + 1) for inner in value)
    if may_change and kind is dict:
        return all(
            is_plain(key, may_change=False, depth=depth + 1) and is_plain(inner, may_change=True, depth=depth + 1)
            for key, inner in value.items()
        )
    return False
