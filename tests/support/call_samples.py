"""Functions that tests send to a company; standard library only, since their module is imported in a sandbox."""

from __future__ import annotations

import os
import time


def square(x: int) -> int:
    return x * x


def add(a: int, b: int = 0, *, c: int = 0) -> int:
    return a + b + c


def divide(a: float, b: float) -> float:
    print("dividing", a, b)
    quotient = a / b
    return quotient  # noqa: RET504 - tests look at the variable


def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def die_at(x: int) -> int:
    if x == 3:
        os._exit(9)
    return x


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


class Unpicklable:
    def __reduce__(self) -> str:
        raise RuntimeError("not me")


def make_unpicklable(x: int) -> object:
    return Unpicklable() if x else 1


class Custom(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a, self.b = a, b


def raise_custom(x: int) -> int:
    raise Custom(x, 2)


def leave(code: int) -> int:
    raise SystemExit(code)
