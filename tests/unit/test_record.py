"""Records behave as frozen, slotted dataclasses do: each case is tried on both."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from p2p.base.record import record


@record
class Point:
    """Two numbers."""

    x: int
    y: int = 7
    tags: list[str] = dataclasses.field(default_factory=list)


@record
class Longer(Point):
    """One more, of its own base."""

    z: int = 1


@record
class Nothing:
    """No field."""


@record
class One:
    """A single field: its hash and state are of a tuple, too."""

    only: tuple[int, ...]


@record(kw_only=True)
class Named:
    """By name only."""

    a: int
    b: str = "b"


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    x: int
    y: int = 7
    tags: list[str] = dataclasses.field(default_factory=list)


def test_values_defaults_and_factories() -> None:
    assert (Point(1).x, Point(1).y, Point(1).tags) == (1, 7, [])
    assert Point(1).tags is not Point(1).tags
    assert Longer(1, 2, ["a"], 4).z == 4
    assert Named(a=1).b == "b"


@pytest.mark.parametrize("make", [lambda: Point(), lambda: Point(1, 2, [], 4), lambda: Point(1, w=2), lambda: Named(1), lambda: Named()])
def test_wrong_arguments_are_refused(make: Callable[[], Any]) -> None:
    for _ in range(2):  # by the first call, which compiles, and by later ones
        with pytest.raises(TypeError):
            make()


def test_equality_and_hash_are_of_the_fields_and_the_very_class() -> None:
    assert Point(1, 2) == Point(1, 2) != Point(1, 3)
    assert Longer(1, 2, [], 1) != Point(1, 2)
    assert Point(1, 2) != (1, 2, [])
    assert Nothing() == Nothing() and len({Nothing(), Nothing()}) == 1
    assert len({One((1,)), One((1,)), One((2,))}) == 2
    assert hash(Named(a=1)) == hash(Named(a=1, b="b"))
    with pytest.raises(TypeError):
        hash(Point(1))  # of a list


def test_nothing_can_be_set_or_deleted() -> None:
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.other = 2  # type: ignore[attr-defined]
    assert not hasattr(point, "__dict__")


def test_what_dataclasses_offers_works() -> None:
    assert dataclasses.replace(Point(1), y=3) == Point(1, 3)
    assert dataclasses.asdict(Longer(1)) == {"x": 1, "y": 7, "tags": [], "z": 1}
    assert [field.name for field in dataclasses.fields(Longer)] == ["x", "y", "tags", "z"]
    assert repr(Point(1, 2, ["a"])) == repr(Plain(1, 2, ["a"])).replace("Plain", "Point")
    assert repr(One((1,))) == "One(only=(1,))" and repr(Nothing()) == "Nothing()"
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
    assert Named.__match_args__ == ()


@pytest.mark.parametrize("one", [Point(1, 2, ["a"]), Longer(1), Nothing(), One((1, 2)), Named(a=1)])
def test_copies_and_pickles_are_equal(one: Any) -> None:
    assert pickle.loads(pickle.dumps(one)) == copy.copy(one) == copy.deepcopy(one) == one
