"""The command line: one file per noun, each imported when it is used, so that a simple command starts in well under 150 ms."""

from __future__ import annotations

from company import collector


def main() -> int:
    """Run the command line; returns the exit code."""
    collector.hold_back()
    from company.cli.app import run

    try:
        return run()
    finally:
        collector.at_end()
