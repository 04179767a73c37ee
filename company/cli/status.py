"""company status: one screen (I/O)."""

from __future__ import annotations

import time

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.job_view import headline, waiting_lines
from company.cli.output import ago, print_json, reason_lines, safe, say, size

SHOWN_USERS = 4


@click.command(cls=Command)
@pass_session
def status(session: Session) -> None:
    """Show the company: addresses, workers, jobs, and what needs you."""
    client = session.client()
    view = client.company()
    running = [job for state in ("running", "splitting", "merging", "queued") for job in client.jobs(state=state, limit=5)["items"]]
    if session.as_json:
        print_json("status/1", view | {"running": running})
        return
    say(f"{safe(view['name'])}  {safe(view['id'])}")
    for name, value in (
        ("version", f"{view['version']} on Python {view['python']}, started {ago(view.get('started'), time.time())}"),
        ("web page", f"{client.transport.address.url}   (company open)"),
        ("workers", f"connect to {view['rpc']}"),
        ("network", view.get("dht") or "off"),
        ("home", f"{safe(view['home'])}, {size(view.get('disk_free_bytes'))} free"),
        ("uploads", kept_text(view.get("kept_bytes") or {}, view.get("quota_bytes"))),
        ("isolation", view.get("isolation") or "unknown"),
        ("slots", f"{view.get('slots_busy', 0)} of {view.get('slots', 0)} busy, workers: {counts_text(view.get('workers') or {})}"),
        ("jobs", counts_text(view.get("jobs") or {})),
    ):
        say(f"  {name:<10}{value}")
    for job in running:
        say("  " + headline(job))
        for line in waiting_lines(job):
            say("  " + line)
    needs = view.get("needs_you") or []
    for reason in needs:
        say("\n".join(reason_lines(reason, "! ")))
    if not view.get("slots"):
        say("  No worker yet. Next: company token create --role worker")


def kept_text(kept: dict[str, int], quota: int | None) -> str:
    """``1.2 GiB of ann, 3 MiB of bob; at most 20 GiB each``."""
    shown = ", ".join(f"{size(number)} of {safe(user or '?')}" for user, number in list(kept.items())[:SHOWN_USERS]) or "none"
    more = f", {len(kept) - SHOWN_USERS} more users" if len(kept) > SHOWN_USERS else ""
    return shown + more + (f"; at most {size(quota)} for each user but owners" if quota is not None else "")


def counts_text(counts: dict[str, int]) -> str:
    """``2 idle, 1 busy``, or ``none``."""
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items()) if number) or "none"
