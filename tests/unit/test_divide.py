"""Ten loops that may be divided and ten with a trap: each gets its verdict, and no trap is ever called safe."""

from __future__ import annotations

import pytest

from company.divide import plan

SAFE = {
    "a comprehension over range": "r = [x * x for x in range(100)]",
    "a call of math": "import math\nr = [math.sqrt(x) for x in range(9)]",
    "a pure function of the file": "def f(x):\n    y = x + 1\n    return y * y\nr = [f(x) for x in range(9)]",
    "a function that calls itself": "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nr = [f(x) for x in range(9)]",
    "a constant from outside": "k = 3\nr = [x * k for x in range(9)]",
    "a loop that appends": "r = []\nfor x in range(9):\n    r.append(x * 2)",
    "a loop with a value on the way": "r = []\nfor x in range(9):\n    y = x + 1\n    r.append(y * y)",
    "a tuple unpacked": "r = [a + b for a, b in [(1, 2), (3, 4)]]",
    "methods of strings": "r = [str(x).zfill(3).upper() for x in range(9)]",
    "a comprehension inside": "r = [sum([y * x for y in range(5)]) for x in range(9)]",
}
TRAPS = {
    "shared state": ("total = 0\nr = []\nfor x in range(9):\n    total = total + x\n    r.append(total)", "depend on the one before"),
    "an early end": ("r = []\nfor x in range(9):\n    if x > 3: break\n    r.append(x)", "may end early"),
    "the order of printing": ("r = [print(x) for x in range(9)]", "order of its effects"),
    "chance": ("import random\nr = [random.random() for x in range(9)]", "random choices"),
    "a generator consumed": ("it = iter(range(99))\nr = [x for x in it]", "only once"),
    "a closure changed": ("k = 1\ndef f(x):\n    return x * k\nk = 2\nr = [f(x) for x in range(9)]", "changed elsewhere"),
    "the list read while it grows": ("r = []\nfor x in range(9):\n    r.append(len(r) + x)", "reads r while it grows"),
    "the clock": ("import time\nr = [time.time() for x in range(9)]", "clock"),
    "a function that writes outside": ("n = 0\ndef f(x):\n    global n\n    n += 1\nr = [f(x) for x in range(9)]", "outside itself"),
    "an argument changed in place": ("def f(x):\n    x[0] = 1\n    return x\nr = [f([x]) for x in range(9)]", "others may hold"),
}  # fmt: skip
MORE_TRAPS = {
    "a builtin of another meaning": "def len(x):\n    print(x)\n    return 1\nr = [len([x]) for x in range(9)]",
    "a default that calls share": "def f(x, seen=[]):\n    seen.append(x)\n    return seen\nr = [f(x) for x in range(9)]",
    "an object's method": "class A:\n    pass\na = A()\nr = [a.step(x) for x in range(9)]",
    "a dict changed meanwhile": "d = {}\nd[1] = 2\nr = [d[x] for x in range(1)]",
    "a name bound by walrus": "r = [(y := x) for x in range(9)]",
    "reading a file": "r = [open(str(x)).read() for x in range(9)]",
    "a list that did not begin empty": "r = [1]\nfor x in range(9):\n    r.append(x)",
    "a decorated function": "import functools\n@functools.cache\ndef f(x):\n    return x\nr = [f(x) for x in range(9)]",
    "a generator function": "def f(x):\n    yield x\nr = [f(x) for x in range(9)]",
    "an object with operators of its own": "import decimal\nk = decimal.Decimal(3)\nr = [x * k for x in range(9)]",
    "an order that differs between processes": "r = [list({str(x), 'a'}) for x in range(9)]",
    "a hash that differs between processes": "r = [hash(str(x)) for x in range(9)]",
    "a loop with an else": "r = []\nfor x in range(9):\n    r.append(x)\nelse:\n    r = None",
    "a module's function replaced": "import math\nmath.sqrt = print\nr = [math.sqrt(x) for x in range(9)]",
    "an imported name replaced": "from math import sqrt\nsqrt = print\nr = [sqrt(x) for x in range(9)]",
    "another module of the same name": "import math\nimport other as math\nr = [math.sqrt(x) for x in range(9)]",
    "a builtin imported from elsewhere": "from other import len\nr = [len([x]) for x in range(9)]",
    "anything imported": "from other import *\nr = [abs(x) for x in range(9)]",
    "a parameter that hides a constant": "k = 3\ndef g(k):\n    return [x * k for x in range(9)]\nr = g([])",
    "a parameter that hides a builtin": "def g(len):\n    return [len([x]) for x in range(9)]\nr = g(print)",
    "an exception that hides a builtin": "try:\n    1 / 0\nexcept Exception as len:\n    r = [len([x]) for x in range(9)]",
    "a pattern that hides a constant": "k = 3\nmatch [1]:\n    case [k]:\n        r = [x * k for x in range(9)]",
    "a setting of Python": "import sys\nsys.setrecursionlimit(50)\nr = [x + 1 for x in range(9)]",
    "a module of a package that is named like a pure one": "from x.math import sqrt\nr = [sqrt(x) for x in range(9)]",
}


def outermost(source: str) -> tuple[bool, str]:
    verdicts = plan(source)
    assert verdicts
    return next((v.is_safe, v.reason) for v in verdicts if v.line == max(w.line for w in verdicts))


@pytest.mark.parametrize("name", SAFE)
def test_a_safe_loop_is_found(name: str) -> None:
    assert outermost(SAFE[name])[0], plan(SAFE[name])


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_left_alone_and_the_reason_named(name: str) -> None:
    source, reason = TRAPS[name]
    verdicts = plan(source)
    assert not any(v.is_safe for v in verdicts), verdicts
    assert any(reason in v.reason for v in verdicts), verdicts


@pytest.mark.parametrize("name", MORE_TRAPS)
def test_no_other_trap_is_called_safe(name: str) -> None:
    assert not any(v.is_safe for v in plan(MORE_TRAPS[name]))
