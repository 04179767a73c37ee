"""A rewritten program is the program: same values, same names left behind, same exceptions, whichever rounds others have computed."""

from __future__ import annotations

import builtins
import math
import random
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import cloudpickle
import pytest

from company.client.divided import Divider, is_plain
from company.divide import plan
from company.divide_rewrite import HELPER, rewrite
from tests.unit.test_divide import MORE_TRAPS, SAFE, TRAPS

RAISING = {
    "the third round of a comprehension": "r = [6 // (2 - x) for x in range(9)]",
    "the third round of a loop": "r = []\nfor x in range(9):\n    y = x + 1\n    z = 6 // (2 - x)\n    r.append(y + z)",
    "an item that cannot be unpacked": "r = []\nfor a, b in [(1, 2), (3,)]:\n    r.append(a + b)",
    "an iterable that ends badly": "r = []\nfor a, b in zip([1, 2, 3], [1, 2], strict=True):\n    r.append(a + b)",
    "a function of the file": "def f(x):\n    if x > 3:\n        raise KeyError(x)\n    return x\n\nr = [f(x) for x in range(9)]",
}  # fmt: skip
ODD = {
    "not a number, found by identity": "import math\nr = [math.nan for x in range(5)]\nfound = math.nan in r",
    "items that are one object": "r = [x for x in [[1]] * 4]\nr[0].append(2)",
    "a loop in a function": "def g():\n    r = []\n    for x in range(6):\n        r.append(x * 2)\n    return r, x\nr = g()",
    "a loop in a class": "class A:\n    __p = 1\n    r = [x + 1 for x in range(5)]\nr = A.r",
    "no round at all": "y = 7\nr = []\nfor x in range(0):\n    r.append(x)",
    "loops within what a loop calls": "def f(n):\n    return sum([i * 2 for i in range(4)]) + n\nr = [f(x) for x in range(6)]",
    "a long text": "r = [str(x) * 1000 for x in range(20)]",
}  # fmt: skip


class Elsewhere:
    """In the place of an executor: each round by a copy of the function, as a worker has it."""

    def map(self, fn: Callable[[Any], Any], items: Iterable[Any], *, return_exceptions: bool) -> Iterator[Any]:
        far = cloudpickle.loads(cloudpickle.dumps(fn))
        for item in list(items):  # read far ahead
            try:
                yield cloudpickle.loads(cloudpickle.dumps(far(cloudpickle.loads(cloudpickle.dumps(item)))))
            except Exception as error:  # noqa: BLE001 - in the place of a result
                yield error


class Front:
    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def end_of(source: str, divide: Any = None) -> tuple[dict[str, Any], str]:
    """The names of the program at its end, and what it raised."""
    module = ModuleType("__main__")
    names = module.__dict__
    names["__builtins__"] = builtins
    tree: Any = compile(source, "p.py", "exec")
    if divide is not None:
        made, parts, _ = rewrite(source, "p.py")
        names[HELPER] = divide(module, parts)
        tree = compile(made, "p.py", "exec")
    raised = ""
    try:
        exec(tree, names)
    except Exception as error:  # noqa: BLE001 - what it raises is compared
        raised = f"{type(error).__name__}: {error}"
    kept = {k: v for k, v in names.items() if not k.startswith("__") and not callable(v) and not isinstance(v, ModuleType)}
    return kept, raised


def dividing(executor: Any = None, after_s: float = 0.0) -> Callable[[ModuleType, list[Any]], Divider]:
    return lambda module, parts: Divider(Front(executor or Elsewhere()), parts, module, "p.py", after_s=after_s)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [*SAFE.values(), *RAISING.values(), *ODD.values()], ids=[*SAFE, *RAISING, *ODD])
def test_the_program_ends_as_it_always_did(source: str) -> None:
    assert repr(end_of(source, dividing())) == repr(end_of(source))


@pytest.mark.parametrize("source", [*SAFE.values(), *RAISING.values()], ids=[*SAFE, *RAISING])
def test_whoever_divides_may_leave_any_round_to_the_program(source: str) -> None:
    chance = random.Random(7)

    def some(number: int, fn: Callable[[Any], Any], rows: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for item in rows:
            try:
                yield item, fn(item) if chance.random() < 0.5 else None
            except Exception:  # noqa: BLE001 - the program is to raise it
                yield item, None

    for _ in range(4):
        assert repr(end_of(source, lambda module, parts: some)) == repr(end_of(source))


@pytest.mark.parametrize("name", SAFE)
def test_rounds_of_a_safe_loop_do_go_elsewhere(name: str) -> None:
    made: list[Divider] = []

    def divide(module: ModuleType, parts: list[Any]) -> Divider:
        made.append(dividing()(module, parts))
        return made[0]

    end_of(SAFE[name], divide)
    assert sum(part.there for part in made[0].parts) > 0, made[0].parts


@pytest.mark.parametrize("source", [*(source for source, _ in TRAPS.values()), *MORE_TRAPS.values()], ids=[*TRAPS, *MORE_TRAPS])
def test_a_trap_is_not_rewritten(source: str) -> None:
    assert rewrite(source, "p.py")[1] == []


def test_a_company_that_goes_away_costs_time_only() -> None:
    class Broken:
        def map(self, fn: Any, items: Iterator[Any], *, return_exceptions: bool) -> Iterator[Any]:
            ahead = [next(items) for _ in range(5)]
            yield fn(ahead[0])
            raise OSError("the chief is gone")

    source = SAFE["a loop with a value on the way"]
    assert end_of(source, dividing(Broken())) == end_of(source)


def test_a_worker_that_computes_otherwise_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import math\nr = [math.sqrt(x) for x in range(9)]"
    made: list[Divider] = []

    def divide(module: ModuleType, parts: list[Any]) -> Divider:
        made.append(dividing()(module, parts))
        made[0]._expected = ("another machine",)
        return made[0]

    assert end_of(source, divide) == end_of(source)
    assert [part.there for part in made[0].parts] == [0]


CHANGED = {
    "a module": "import math\nsetattr(math, 'sqrt', abs)\nr = [math.sqrt(x) for x in range(9)]\nsetattr(math, 'sqrt', true_sqrt)",
    "a function": "def f(x):\n    return x\nglobals()['f'] = seen.append\nr = [f(x) for x in range(9)]",
    "a builtin": "globals()['abs'] = lambda x: x * 5\nr = [abs(x) for x in range(9)]",
    "a constant": "k = 3\nglobals()['k'] = [0]\nr = [x * k for x in range(3)]\nr[0].append(1)",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_was_changed_behind_the_file_is_noticed_when_it_runs(name: str) -> None:
    """The analysis cannot see these; the loop is called safe, and nothing of it leaves all the same."""
    source = CHANGED[name]
    assert any(v.is_safe for v in plan(source))
    made: list[Divider] = []

    def divide(module: ModuleType, parts: list[Any]) -> Divider:
        module.__dict__.update(true_sqrt=math.sqrt, seen=[])
        made.append(dividing()(module, parts))
        return made[0]

    def plain(module: ModuleType, parts: list[Any]) -> Any:
        module.__dict__.update(true_sqrt=math.sqrt, seen=[])
        return lambda number, fn, rows: ((row, None) for row in rows)

    assert repr(end_of(source, divide)) == repr(end_of(source, plain))
    assert [part.there for part in made[0].parts] == [0]


def test_what_a_copy_is_as_good_as() -> None:
    class Number(int):
        pass

    deep: list[Any] = []
    deep.append(deep)
    assert all(is_plain(v, may_change=True) for v in (1, "a", b"b", None, 1.5, 2j, True, (1, (2,)), [1, {"a": [()]}], {}))
    assert not any(
        is_plain(v, may_change=True) for v in (math.nan, complex(math.nan, 0), Number(3), {1}, object(), deep, [[math.nan]], len)
    )
    assert not any(is_plain(v, may_change=False) for v in ([], {}, ([],)))
