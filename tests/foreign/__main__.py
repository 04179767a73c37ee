"""Run programs of others alone and by ``company run-script``, and compare: output, exit code, files left behind.

``python -m tests.foreign [--only TEXT] [--local]`` prints a row for each, as docs/programs.md has them. Needs pip's usual network for the
distributions; what cannot be fetched is said and left out. ``--home`` takes a company that runs, else each program gets one of its own.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.foreign.programs import PROGRAMS, Missing, Program

LIMIT_S = 120
_VARIES = re.compile(r"\d+\.\d+(e[-+]?\d+)?|0x[0-9a-f]+|\b\d+ ?s\b| \(\d+:\d\d:\d\d\)")


def run(program: Program, command: list[str], fetched: Path, environ: dict[str, str]) -> tuple[str, int, str, list[str], float]:
    """Standard output without what differs from run to run, exit code, errors, files left behind, seconds."""
    script = program.script(fetched)
    if not script.exists():
        raise Missing(f"{script.name} is not on this machine")
    with tempfile.TemporaryDirectory(prefix="foreign-") as name:
        folder = Path(name)
        for path, content in program.files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        began = time.monotonic()
        more = {"PYTHONPATH": str(fetched / program.path)} if program.path else {}
        try:
            done = subprocess.run(
                [*command, str(script), *program.arguments], cwd=folder, env=environ | more, capture_output=True, text=True,
                timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "", -1, f"not over after {LIMIT_S} s", [], float(LIMIT_S)
        took = time.monotonic() - began
        left = sorted(
            f"{p.relative_to(folder)} {p.suffix == '.pyc' or p.read_text('utf-8', 'replace')}" for p in folder.rglob("*") if p.is_file()
        )
    return _VARIES.sub("#", done.stdout), done.returncode, done.stderr, left, took


def compare(program: Program, fetched: Path, home: Path | None) -> tuple[str, str]:
    """The outcome in a word, and why."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")} | {"PYTHONWARNINGS": "ignore"}
    place = ["--home", str(home)] if home is not None else ["--local", "--workers", "2"]
    try:
        alone = run(program, [sys.executable], fetched, environ)
        there = run(program, [sys.executable, "-m", "company", "run-script", *place], fetched, environ)
    except Missing as error:
        return "left out", str(error)
    said = [line for line in there[2].splitlines() if line.startswith("company: ")]
    if alone[1] != 0:
        return "left out", f"it fails alone: exit code {alone[1]}: {_last(alone[2] or alone[0])}"
    for what, here, far in (("exit code", alone[1], there[1]), ("output", alone[0], there[0]), ("files left behind", alone[3], there[3])):
        if here != far:
            again = run(program, [sys.executable], fetched, environ)
            if (again[0], again[1], again[3]) != (alone[0], alone[1], alone[3]):
                return "varies", f"two runs alone differ, too; exit code {there[1]}"
            why = f"{what} {far!r} instead of {here!r}" if what == "exit code" else f"another {what}"
            return "differs", f"{why}; {_last(there[2] or there[0])}"
    return "same", "; ".join(said) or f"{alone[4]:.1f} s alone, {there[4]:.1f} s there with the company's start"


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def main() -> int:
    """Print the table; the exit code counts those that differ."""
    options = argparse.ArgumentParser(prog="python -m tests.foreign")
    options.add_argument("--only", default="")
    options.add_argument("--home", type=Path)
    chosen = options.parse_args()
    differing = 0
    print("| program | uses | outcome | why, or what was said |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="foreign-fetched-") as name:
        for program in PROGRAMS:
            if chosen.only in program.name:
                outcome, why = compare(program, Path(name), chosen.home)
                differing += outcome == "differs"
                print(f"| {program.name} | {program.uses} | {outcome} | {why} |", flush=True)
    return differing


if __name__ == "__main__":
    sys.exit(main())
