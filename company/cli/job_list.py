"""company job list, show, fragments, failures: look at jobs (I/O)."""

from __future__ import annotations

import time

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.job_view import details, group_lines, progress_text, state_text, strip
from company.cli.output import ago, note, print_json, safe, safe_lines, say, table, truncation

STATES = ("queued", "splitting", "running", "merging", "done", "failed", "cancelled")


@click.command("list", cls=Command)
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--mine", is_flag=True, help="Only my own jobs.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, help="How many to show.")
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to leave out first.")
@pass_session
def list_jobs(session: Session, state: str | None, mine: bool, limit: int, offset: int) -> None:
    """List jobs, newest first."""
    found = session.client().jobs(state=state, owner="me" if mine else None, limit=limit, offset=offset)
    if session.as_json:
        print_json("jobs/1", found)
        return
    now = time.time()
    rows = []
    for view in found["items"]:
        counts = view.get("fragments") or {}
        reason = (view.get("reason") or {}).get("text", "") if view["state"] != "done" else ""
        rows.append(
            [view["id"], safe(view.get("name", ""), 30), state_text(view), progress_text(view), str(counts.get("failed", 0)),
             ago(view.get("created"), now), safe(reason, 60)]
        )  # fmt: skip
    say(table(("ID", "NAME", "STATE", "FRAGMENTS", "FAILED", "CREATED", "WHY"), rows))
    if truncation(found):
        note(truncation(found))
    if not rows and not state:
        note("no jobs yet: company job submit PACKAGE DATA")


@click.command(cls=Command)
@click.argument("id", default="last")
@pass_session
def show(session: Session, id: str) -> None:
    """Show one job: state, progress, why it waits, limits, times."""
    view = session.job(id).view
    if session.as_json:
        print_json("job/1", view)
    else:
        say(details(view, time.time()))


@click.command(cls=Command)
@click.argument("id", default="last")
@click.option("--cells", type=click.IntRange(1, 4096), default=1024, help="How finely the fragments are summed up.")
@pass_session
def fragments(session: Session, id: str, cells: int) -> None:
    """Show the states of a job's fragments."""
    job = session.job(id)
    heatmap = job.heatmap(cells)
    if session.as_json:
        print_json("fragments/1", {"job": job.id, "fragments": job.view.get("fragments"), "heatmap": heatmap})
        return
    counts = job.view.get("fragments") or {}
    say(f"{job.id}  {progress_text(job.view)} fragments")
    for name in ("done", "failed", "leased", "waiting"):
        say(f"  {name:<8}{counts.get(name, 0)}")
    say("  " + strip(heatmap.get("cells") or [], 80))
    say("  █ done  ▒ running  · waiting  X failed")


@click.command(cls=Command)
@click.argument("id", default="last")
@click.option("--all", "each", is_flag=True, help="Every failure with its whole traceback, instead of groups.")
@click.option("--limit", type=click.IntRange(1, 1000), default=1000, help="How many to look at.")
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to leave out first.")
@pass_session
def failures(session: Session, id: str, each: bool, limit: int, offset: int) -> None:
    """Show which fragments failed and why, grouped by cause."""
    from company.client.waited import group_failures

    job = session.job(id)
    found = job.failures(limit=limit, offset=offset)
    groups = group_failures(found["items"])
    if session.as_json:
        print_json("failures/1", found | {"job": job.id, "groups": [{k: v for k, v in g.items() if k != "first"} for g in groups]})
        return
    if not found["items"]:
        say(f"no fragment of {job.id} has failed")
    elif each:
        for item in found["items"]:
            say(f"{job.id}/{item['fragment']}  {item['cause']}  after {item['tries']} tries on {safe(item.get('worker', ''))}")
            say(safe_lines(str(item.get("traceback") or item.get("message", ""))).rstrip())
            say()
    else:
        for group in groups:
            say("\n".join(group_lines(group)))
    if truncation(found):
        note(truncation(found))
