"""The command line: one file per noun, each imported when it is used, so that a simple command starts in well under 150 ms."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000  # a simple command makes about as many, nearly all of them by importing, and no garbage among them


def main() -> int:
    """Run the command line; returns the exit code."""
    gc.set_threshold(YOUNG_OBJECTS)
    from company.cli.app import run

    try:
        return run()
    finally:
        gc.freeze()  # the interpreter is about to collect twice more
