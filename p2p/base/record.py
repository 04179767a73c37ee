"""Frozen, slotted dataclasses that cost a fifth at import: for modules with many of them (pure).

`dataclasses` compiles six functions for each class, about a millisecond, and a chief has hundreds of classes before it is ready. Here
only ``__init__`` is compiled, when a class is first instantiated; the other methods are shared and look the fields up. To users of the
classes nothing differs: they are dataclasses (`fields`, `replace`, `asdict`, patterns, ``==``, hash, repr, `FrozenInstanceError`).
Not for classes with ``__post_init__``, ``InitVar`` or fields that are left out of one of these; bases must be records, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(*, kw_only: bool) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: type[T] | None = None, /, *, kw_only: bool = False) -> type[T] | Callable[[type[T]], type[T]]:
    """Make ``cls`` what ``@dataclass(frozen=True, slots=True)`` makes of it."""
    return _made(cls, kw_only) if cls is not None else lambda cls: _made(cls, kw_only)


def _made(cls: type[T], kw_only: bool) -> type[T]:
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
    names = tuple(field.name for field in dataclasses.fields(made))
    values = values_of(names)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        made.__init__ = _initialiser(made)  # a class that is never instantiated never pays for it
        made.__init__(self, *args, **kwargs)

    def __eq__(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(values(self))

    def __repr__(self: Any) -> str:
        return f"{self.__class__.__qualname__}({', '.join(map('{}={!r}'.format, names, values(self)))})"

    def __getstate__(self: Any) -> tuple[Any, ...]:
        return values(self)

    def __setstate__(self: Any, state: tuple[Any, ...]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    made.__init__, made.__eq__, made.__hash__, made.__repr__ = __init__, __eq__, __hash__, __repr__
    made.__getstate__, made.__setstate__ = __getstate__, __setstate__
    made.__setattr__, made.__delattr__ = _refuse_setting, _refuse_deleting
    return made  # type: ignore[no-any-return]


def values_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """What reads these attributes of an object, in order."""
    return attrgetter(*names) if len(names) > 1 else lambda one: tuple(getattr(one, n) for n in names)


def _initialiser(cls: Any) -> Any:
    """Compile ``__init__`` as `dataclasses` would."""
    scope: dict[str, Any] = {"_missing": dataclasses.MISSING}
    by_place: list[str] = []
    by_name: list[str] = []
    lines: list[str] = []
    for field in dataclasses.fields(cls):
        name = field.name
        parameters = by_name if field.kw_only else by_place
        if field.default_factory is not dataclasses.MISSING:
            scope[f"_make_{name}"] = field.default_factory
            parameters.append(f"{name}=_missing")
            lines.append(f" if {name} is _missing: {name} = _make_{name}()\n")
        elif field.default is not dataclasses.MISSING:
            scope[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        scope[f"_set_{name}"] = getattr(cls, name).__set__  # of the slot itself: a quarter faster than by name
        lines.append(f" _set_{name}(self, {name})\n")
    signature = ", ".join(["self", *by_place, *(["*", *by_name] if by_name else [])])
    exec(f"def __init__({signature}):\n{''.join(lines) or ' pass'}", scope)  # made of names of fields, so of our own source alone
    return scope["__init__"]


def _refuse_setting(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deleting(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
