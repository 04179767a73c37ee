"""Messages as fixed-length arrays with a bound on every field (pure).

A message is a frozen dataclass whose annotations carry the bounds; `parse_untrusted` is the only way from a stranger's array to
an object, and `field_table` gives docs/protocol.md its rows, so that code and documentation cannot disagree.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Self

from p2p.base.errors import MalformedMessage
from p2p.base.record import record, values_of


@record
class Range:
    """Bounds of an int, both included; the unit is for the documentation."""

    low: int
    high: int
    unit: str = ""


@record
class Length:
    """Bounds of the length of a text (in UTF-8 bytes), a byte string (bytes) or an array (items), both included."""

    low: int
    high: int


U8 = Annotated[int, Range(0, 2**8 - 1)]
U16 = Annotated[int, Range(0, 2**16 - 1)]
U32 = Annotated[int, Range(0, 2**32 - 1)]
U64 = Annotated[int, Range(0, 2**64 - 1)]
Word = Annotated[str, Length(0, 64)]
Line = Annotated[str, Length(0, 1024)]
Text = Annotated[str, Length(0, 16 << 10)]
Digest = Annotated[bytes, Length(32, 32)]
Key = Annotated[bytes, Length(32, 32)]
Signature = Annotated[bytes, Length(64, 64)]

_Check = Callable[[Any, str], Any]


class Message:
    """Base of every message; subclasses are frozen dataclasses declared with ``code=`` (their first array element)."""

    __slots__ = ()
    code: ClassVar[int] = -1
    _checks: ClassVar[tuple[tuple[str, _Check], ...] | None] = None
    _values: ClassVar[Callable[[Any], tuple[Any, ...]] | None] = None

    def __init_subclass__(cls, *, code: int | None = None) -> None:
        # dataclass(slots=True) builds the class a second time, without our keyword but with ``code`` in its namespace
        cls.code = cls.__dict__.get("code", -1) if code is None else code
        cls._checks = cls._values = None

    def as_array(self) -> list[Any]:
        """The wire form: code, then the fields in order."""
        cls = self.__class__
        values = cls._values
        if values is None:
            values = cls._values = values_of(tuple(f.name for f in dataclasses.fields(cls)))  # type: ignore[arg-type]
        return [cls.code, *[list(map(_plain, v)) if isinstance(v, tuple) else v for v in values(self)]]

    @classmethod
    def parse_untrusted(cls, array: Sequence[Any]) -> Self:
        """Build the message from a stranger's array, code first. Raises only `MalformedMessage`."""
        checks = cls.checks()
        if len(array) != len(checks) + 1 or array[0] != cls.code:
            raise MalformedMessage(f"{cls.__name__} has {len(checks)} fields, got {len(array) - 1}")
        return cls(*(check(value, name) for value, (name, check) in zip(array[1:], checks, strict=True)))

    @classmethod
    def checks(cls) -> tuple[tuple[str, _Check], ...]:
        """The field checks, built on first use."""
        if cls._checks is None:
            hints = typing.get_type_hints(cls, include_extras=True)
            fields = dataclasses.fields(cls)  # type: ignore[arg-type]
            cls._checks = tuple((f.name, _check_of(hints[f.name])) for f in fields)
        return cls._checks

    @classmethod
    def field_table(cls) -> list[tuple[str, str]]:
        """(field, bound) rows for the documentation."""
        hints = typing.get_type_hints(cls, include_extras=True)
        return [(f.name, _words(hints[f.name])) for f in dataclasses.fields(cls)]  # type: ignore[arg-type]


def registry(*classes: type[Message]) -> dict[int, type[Message]]:
    """Map codes to classes. Raises `ValueError` when two share a code."""
    table: dict[int, type[Message]] = {}
    for cls in classes:
        if cls.code in table:
            raise ValueError(f"{cls.__name__} and {table[cls.code].__name__} share code {cls.code}")
        table[cls.code] = cls
    return table


def parse_any_untrusted(table: dict[int, type[Message]], array: Sequence[Any]) -> Message:
    """Parse a message of any class in ``table``. Raises only `MalformedMessage`."""
    code = array[0] if array else None
    cls = table.get(code) if type(code) is int else None
    if cls is None:
        raise MalformedMessage(f"unknown message code {str(code)[:20]!r}")
    return cls.parse_untrusted(array)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def _bad(name: str, want: str, value: Any) -> MalformedMessage:
    return MalformedMessage(f"{name} must be {want}, got {type(value).__name__} {str(value)[:40]!r}")


def _check_of(hint: Any) -> _Check:
    """The check for one annotation; nested arrays check their parts."""
    bound: Any = None
    if typing.get_origin(hint) is Annotated:
        hint, bound, *_ = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [_check_of_bounded(a, bound) for a in typing.get_args(hint) if a is not type(None)]
        return _optional(inner[0])
    if origin is tuple:
        args = typing.get_args(hint)
        if len(args) == 2 and args[1] is Ellipsis:
            return _array(_check_of(args[0]), bound or Length(0, 1024))
        return _fixed(tuple(_check_of(a) for a in args))
    return _check_of_bounded(hint, bound)


def _check_of_bounded(hint: Any, bound: Any) -> _Check:
    if bound is None and (typing.get_origin(hint) is Annotated or typing.get_origin(hint) is tuple):
        return _check_of(hint)
    if hint is bool:
        return _boolean
    if hint is int:
        return _integer(bound or Range(0, 2**64 - 1))
    if hint is str:
        return _string(bound or Length(0, 1024))
    if hint is bytes:
        return _binary(bound or Length(0, 1024))
    raise TypeError(f"no check for annotation {hint!r}")


def _optional(inner: _Check) -> _Check:
    return lambda value, name: None if value is None else inner(value, name)


def _boolean(value: Any, name: str) -> Any:
    if type(value) is not bool:
        raise _bad(name, "a bool", value)
    return value


def _integer(bound: Range) -> _Check:
    def check(value: Any, name: str) -> Any:
        if type(value) is not int or not bound.low <= value <= bound.high:
            raise _bad(name, f"an int in {bound.low}..{bound.high}", value)
        return value

    return check


def _string(bound: Length) -> _Check:
    def check(value: Any, name: str) -> Any:
        if type(value) is not str or not bound.low <= len(value.encode("utf-8", "surrogatepass")) <= bound.high:
            raise _bad(name, f"a text of {bound.low}..{bound.high} bytes", value)
        return value

    return check


def _binary(bound: Length) -> _Check:
    def check(value: Any, name: str) -> Any:
        if type(value) is not bytes or not bound.low <= len(value) <= bound.high:
            raise _bad(name, f"{bound.low}..{bound.high} bytes", value)
        return value

    return check


def _array(inner: _Check, bound: Length) -> _Check:
    def check(value: Any, name: str) -> Any:
        if type(value) not in (list, tuple) or not bound.low <= len(value) <= bound.high:
            raise _bad(name, f"an array of {bound.low}..{bound.high} items", value)
        return tuple(inner(v, f"{name}[{i}]") for i, v in enumerate(value))

    return check


def _fixed(inner: tuple[_Check, ...]) -> _Check:
    def check(value: Any, name: str) -> Any:
        if type(value) not in (list, tuple) or len(value) != len(inner):
            raise _bad(name, f"an array of exactly {len(inner)} items", value)
        return tuple(c(v, f"{name}[{i}]") for i, (c, v) in enumerate(zip(inner, value, strict=True)))

    return check


def _words(hint: Any) -> str:
    bound: Any = None
    if typing.get_origin(hint) is Annotated:
        hint, bound, *_ = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or nil, ".join(_words(a) for a in typing.get_args(hint) if a is not type(None)) + " or nil"
    if origin is tuple:
        args = typing.get_args(hint)
        if len(args) == 2 and args[1] is Ellipsis:
            high = bound.high if bound else 1024
            return f"array of at most {high} × ({_words(args[0])})"
        return "[" + ", ".join(_words(a) for a in args) + "]"
    name = {int: "int", str: "text", bytes: "bytes", bool: "bool"}.get(hint, str(hint))
    if isinstance(bound, Range):
        unit = f" {bound.unit}" if bound.unit else ""
        return f"{name} {bound.low}..{bound.high}{unit}"
    if isinstance(bound, Length):
        return f"{name} of {bound.low}..{bound.high} bytes" if bound.low != bound.high else f"{name} of {bound.low} bytes"
    return name
