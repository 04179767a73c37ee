"""The work that every contender does, as plain functions, and as packages with the very same bodies (pure but for `write_packages`)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

MIB = 1 << 20


def identity(value: int) -> int:
    return value


def echo(data: bytes) -> bytes:
    return data


def negated(array: Any) -> Any:
    """A numpy array as large as the one that came."""
    return -array


def burn(turns: int) -> tuple[float, float]:
    """Count for a while; when it began and ended."""
    began = time.time()
    x = 0
    for i in range(turns):
        x += i & 3
    return began, time.time()


def calibrate(seconds: float) -> int:
    """How many turns of `burn` take ``seconds`` here and now: the best of some tries, since noise only ever adds."""
    turns = 20_000
    best = min(_took(turns) for _ in range(15))
    return max(1, int(turns * seconds / best))


def _took(turns: int) -> float:
    began, ended = burn(turns)
    return max(1e-6, ended - began)


_IDENTITY = {
    "split.py": "def split(data, n):\n    yield from range(n)\ndef count(data, n):\n    return n\n",
    "processor/main.py": "def process(fragment):\n    return fragment\n",
    "merge.py": "def merge(results, output):\n    return sum(1 for _ in results)\n",
}
_BURN = {
    "split.py": "def split(data, n, turns):\n    for _ in range(n):\n        yield turns\ndef count(data, n):\n    return n\n",
    "processor/main.py": (
        "import time\ndef process(turns):\n    began = time.time()\n    x = 0\n    for i in range(turns):\n        x += i & 3\n"
        "    return began, time.time()\n"
    ),
    "merge.py": (
        "def merge(results, output):\n    spans = [*results]\n"
        "    return [min(a for a, _ in spans), max(b for _, b in spans), sum(b - a for a, b in spans)]\n"
    ),
}
_SPIN = _BURN | {  # its results are the same every time, so that another company's can be checked
    "processor/main.py": "def process(turns):\n    x = 0\n    for i in range(turns):\n        x += i & 3\n    return x\n",
    "merge.py": "def merge(results, output):\n    return sum(1 for _ in results)\n",
}
_ECHO = {
    "split.py": "def split(data, n, size):\n    for i in range(n):\n        yield i.to_bytes(8, 'big') * (size // 8)\n",
    "processor/main.py": "def process(fragment):\n    return fragment\n",
    "merge.py": "def merge(results, output):\n    return sum(len(r) for r in results)\n",
}
_UNEVEN = {  # each child of a worker draws a name of its own
    "split.py": (
        "import random\ndef split(data, n, low, high):\n    rng = random.Random(7)\n    for _ in range(n):\n"
        "        yield rng.randint(low, high)\ndef count(data, n):\n    return n\n"
    ),
    "processor/main.py": (
        "import os, time\nME = os.urandom(8).hex()\ndef process(turns):\n    began = time.time()\n    x = 0\n"
        "    for i in range(turns):\n        x += i & 3\n    return ME, turns, began, time.time()\n"
    ),
    "merge.py": (
        "def merge(results, output):\n    ended, children = 0.0, {}\n    for me, turns, began, end in results:\n"
        "        child = children.setdefault(me, [0, 0.0])\n        child[0] += turns\n        child[1] += end - began\n"
        "        ended = max(ended, end)\n    return [ended, list(children.values())]\n"
    ),
}
PACKAGES = {"identity": _IDENTITY, "burn": _BURN, "spin": _SPIN, "echo": _ECHO, "uneven": _UNEVEN}


def blocks(count: int, size: int) -> list[bytes]:
    """What the split of the package ``echo`` yields."""
    return [i.to_bytes(8, "big") * (size // 8) for i in range(count)]


def arrays(count: int, size: int) -> list[Any]:
    """Numpy arrays of ``size`` bytes, each another one."""
    import numpy as np

    return [np.arange(i, i + size // 8, dtype=np.int64) for i in range(count)]


def is_same(found: list[Any], data: list[Any]) -> bool:
    """Whether these are what `negated` makes of the arrays."""
    return len(found) == len(data) and all(bool((a == -b).all()) for a, b in zip(found, data, strict=True))


def write_packages(folder: Path) -> dict[str, Path]:
    """The packages as folders, by name, and a small dataset beside them."""
    (folder / "data.txt").write_text("nothing\n")
    for name, files in PACKAGES.items():
        for path, source in files.items():
            target = folder / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source)
    return {name: folder / name for name in PACKAGES}
