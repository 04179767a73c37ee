"""company job retry, cancel, pause, resume, edit, rm: change a job (I/O)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from company.cli.framework import DURATION, SIZE, Command, Session, pass_session
from company.cli.job_view import headline
from company.cli.output import print_json, say

if TYPE_CHECKING:
    from company.client import Job


def _tell(session: Session, job: Job) -> None:
    if session.as_json:
        print_json("job/1", job.view)
    else:
        say(headline(job.view))


@click.command(cls=Command)
@click.argument("id")
@click.option("--failed", is_flag=True, help="All fragments that failed for good; this is what happens without options.")
@click.option("--fragments", "chosen", metavar="LIST", help="Only these: 3,7-9")
@click.option("--merge", is_flag=True, help="Only the merge.")
@click.option("--max-fails", metavar="N|P%", help="From now on, how many fragments may fail: 0, 5 or 10%.")
@pass_session
def retry(session: Session, id: str, failed: bool, chosen: str | None, merge: bool, max_fails: str | None) -> None:
    """Try what failed again; results that are there are kept."""
    if sum((failed, chosen is not None, merge)) > 1:
        raise click.UsageError("give one of --failed, --fragments and --merge")
    numbers = parse_numbers(chosen) if chosen is not None else None
    _tell(session, session.job(id).retry(fragments=numbers, merge=merge, max_fails=max_fails))


@click.command(cls=Command)
@click.argument("id")
@pass_session
def cancel(session: Session, id: str) -> None:
    """End a job now: what runs of it is killed."""
    _tell(session, session.job(id).cancel())


@click.command(cls=Command)
@click.argument("id")
@pass_session
def pause(session: Session, id: str) -> None:
    """Give out no more fragments of a job; what runs finishes."""
    _tell(session, session.job(id).pause())


@click.command(cls=Command)
@click.argument("id")
@pass_session
def resume(session: Session, id: str) -> None:
    """Go on with a paused job."""
    _tell(session, session.job(id).resume())


@click.command(cls=Command)
@click.argument("id")
@click.option("--priority", type=int, help="Higher goes first within your own jobs.")
@click.option("--max-fails", metavar="N|P%", help="How many fragments may fail: 0, 5 or 10%.")
@click.option("--time-limit", type=DURATION, help="Per fragment: 90s, 10m.")
@click.option("--memory", type=SIZE, help="Per fragment: 512MiB, 2GiB.")
@pass_session
def edit(session: Session, id: str, priority: int | None, max_fails: str | None, time_limit: float | None, memory: int | None) -> None:
    """Change the limits of a job that has not ended."""
    wanted = {"priority": priority, "max_fails": max_fails, "time_limit_s": time_limit, "memory_bytes": memory}
    changes = {key: value for key, value in wanted.items() if value is not None}
    if not changes:
        raise click.UsageError("nothing to change: give --priority, --max-fails, --time-limit or --memory")
    _tell(session, session.job(id).edit(**changes))


@click.command("rm", cls=Command)
@click.argument("id")
@pass_session
def remove(session: Session, id: str) -> None:
    """Remove an ended job with its results."""
    job = session.job(id)
    job.remove()
    if session.as_json:
        print_json("removed/1", {"job": job.id})
    else:
        say(f"{job.id} removed")


def parse_numbers(text: str) -> list[int]:
    """Fragment numbers of ``3,7-9``. Raises `click.UsageError`."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise click.UsageError(f"{part.strip()!r} is no fragment number or range such as 7-9")
        end = int(last) if dash else int(first)
        if end < int(first) or end - int(first) > 1_000_000:
            raise click.UsageError(f"{part.strip()!r} is not a range of at most 1 000 000 fragments")
        numbers.extend(range(int(first), end + 1))
    return numbers
