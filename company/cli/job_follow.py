"""company job watch, wait, logs: stay with a job (I/O). The first Ctrl-C leaves it running and says how to come back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from company.cli.framework import DURATION, Command, Session, pass_session
from company.cli.output import colour, note, print_json, safe, safe_lines, say, wants_colour
from company.errors import INTERRUPTED, exit_code_of_state

if TYPE_CHECKING:
    from company.client import Job


@click.command(cls=Command)
@click.argument("id", default="last")
@pass_session
def watch(session: Session, id: str) -> int:
    """Follow a job to its end: a bar on a terminal, a line on every change in a pipe. Ctrl-C detaches; the job runs on."""
    from company.cli.watching import watch_job

    return watch_job(session, session.job(id))


@click.command(cls=Command)
@click.argument("id", default="last")
@click.option("--timeout", type=DURATION, help="Give up waiting after this time (exit code 11); the job goes on.")
@pass_session
def wait(session: Session, id: str, timeout: float | None) -> int:
    """Wait silently for a job's end; the exit code tells how it went."""
    return finish_waiting(session, session.job(id), timeout)


@click.command(cls=Command)
@click.argument("id", default="last")
@click.option("--fragment", type=click.IntRange(0), help="Only this fragment.")
@click.option("--stream", type=click.Choice(["stdout", "stderr", "event"]), help="Only this stream; event is the job's own story.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@pass_session
def logs(session: Session, id: str, fragment: int | None, stream: str | None, follow: bool) -> int | None:
    """Print what a job's modules printed, and its story: split, workers, failures, merge."""
    job = session.job(id)
    with detaching(job.id):
        for line in job.logs(fragment=fragment, follow=follow):
            if stream is not None and line.get("stream") != stream:
                continue
            if session.as_json:
                print_json("log/1", line)
            else:
                _print_line(line, plain=fragment is not None)
        return None
    return INTERRUPTED


def finish_waiting(session: Session, job: Job, timeout_s: float | None) -> int:
    """Wait for the end, print it, and return the exit code."""
    with detaching(job.id):
        job.wait(timeout_s, progress=False)
        if session.as_json:
            print_json("job/1", job.view)
        else:
            from company.cli.watching import end_of

            say(end_of(job))
        return exit_code_of_state(job.state, int((job.view.get("fragments") or {}).get("failed", 0)))
    return INTERRUPTED


@contextlib.contextmanager
def detaching(job_id: str) -> Iterator[None]:
    """Turn Ctrl-C into leaving: the block ends, the job goes on, and how to come back is said."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"Detached. Re-attach: company job watch {job_id}")


def _print_line(line: dict[str, object], *, plain: bool) -> None:
    text = safe_lines(str(line.get("text", ""))) if wants_colour() else str(line.get("text", ""))
    text = text.removesuffix("\n")
    if line.get("stream") == "event":
        say(colour(f"-- {text}", "blue"))
        return
    prefix = "" if plain else f"[{safe(line.get('fragment'))}] "
    for part in text.split("\n"):
        say(colour(prefix + part, "red" if line.get("stream") == "stderr" else None))
