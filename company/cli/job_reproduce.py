"""company job reproduce: run one failed fragment here, in the sandbox or under the debugger (I/O)."""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.output import note, print_json, safe_lines, say
from company.errors import SOME_FRAGMENTS_FAILED
from p2p.base.errors import ParallelError


@click.command(cls=Command)
@click.argument("ref", metavar="ID/FRAGMENT")
@click.option("--pdb", is_flag=True, help="Run it without sandbox in this process and stop in the debugger where it fails.")
@pass_session
def reproduce(session: Session, ref: str, pdb: bool) -> int | None:
    """Run one fragment here with the same package, input and parameters. Its input is kept when it failed."""
    from company.client.reproduce import fetch, run_in_process, run_in_sandbox

    job_ref, slash, number = ref.rpartition("/")
    if not slash or not number.isdecimal():
        raise click.UsageError(f"{ref!r} is not ID/FRAGMENT, such as j-7f3k/17")
    with tempfile.TemporaryDirectory(prefix="company-reproduce-") as folder:
        case = fetch(session.client(), session.job(job_ref), int(number), Path(folder))
        if not pdb:
            try:
                _tell(session, run_in_sandbox(case))
                return None
            except ParallelError as error:
                if error.code != "fragment-failed":
                    raise
                return _tell_failure(session, error.text, str(error.facts.get("traceback", "")))
        note("WARNING: without sandbox: the package's code runs with all your rights, on this machine, now.")
        try:
            _tell(session, run_in_process(case))
            return None
        except Exception as error:  # noqa: BLE001 - whatever the package raises is what the user came to see
            traceback.print_exc()
            if sys.stdin.isatty():
                import pdb as debugger

                debugger.post_mortem(error.__traceback__)
            return SOME_FRAGMENTS_FAILED


def _tell(session: Session, value: Any) -> None:
    if session.as_json:
        print_json("reproduced/1", {"ok": True, "result": repr(value)[:10_000]})
    else:
        say("it worked here; the result:")
        say(repr(value)[:2000])


def _tell_failure(session: Session, text: str, trace: str) -> int:
    if session.as_json:
        print_json("reproduced/1", {"ok": False, "error": text, "traceback": trace})
    else:
        say("it fails here too:")
        say(safe_lines(trace or text).rstrip())
    return SOME_FRAGMENTS_FAILED
