"""Python's garbage collector while a command imports, and afterwards (I/O: none; it changes the interpreter).

A short command makes fifty thousand objects, nearly all by importing, and no garbage among them: looking at them is a seventh of its
time. Whoever runs for long, or runs a program of somebody else, goes back to what Python does by itself.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000
_USUAL = gc.get_threshold()


def hold_back() -> None:
    """Collect rarely: this process is probably about to end."""
    gc.set_threshold(YOUNG_OBJECTS)


def as_usual() -> None:
    """From now on at Python's own pace, also when the interpreter ends."""
    gc.set_threshold(*_USUAL)


def at_end() -> None:
    """Before the interpreter ends: nothing is worth a look, unless this process collects as usual and may hold what others must close."""
    if gc.get_threshold() != _USUAL:
        gc.freeze()
