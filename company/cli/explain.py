"""company explain: why something waits, was refused or failed (I/O)."""

from __future__ import annotations

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.output import print_json, reason_lines, say


@click.command(cls=Command)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@pass_session
def explain(session: Session, ids: tuple[str, ...]) -> None:
    """Say why a job, a fragment (JOB/17) or a worker is where it is, and what can be done about it."""
    for ref in ids:
        reasons = session.client().explain(ref)
        if session.as_json:
            print_json("explain/1", {"ref": ref, "items": reasons, "total": len(reasons), "returned": len(reasons), "truncated": False})
            continue
        if len(ids) > 1:
            say(ref)
        for reason in reasons:
            say("\n".join(reason_lines(reason)))
        if not reasons:
            say(f"  nothing holds {ref} up")
