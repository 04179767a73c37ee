"""Follow one job on a terminal or in a pipe (I/O).

On a terminal a bar is redrawn once a second; in a pipe a line is printed when something changed, every three seconds at most; with
--json a view on every change. The chief may go away meanwhile (a restart): it is asked again for a minute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from company.cli.framework import Session
from company.cli.job_view import ending, eta_text, fraction_of, headline, progress_text, rate_text, state_text, waiting_lines
from company.cli.output import note, print_json, safe, say
from company.errors import INTERRUPTED, ChiefUnreachable, exit_code_of_state

if TYPE_CHECKING:
    from rich.console import RenderableType

    from company.client import Job

POLL_S = 1.0
LINE_EVERY_S = 3.0
PATIENCE_S = 60.0  # how long a chief may be away
Show = Callable[[dict[str, Any]], None]


def watch_job(session: Session, job: Job) -> int:
    """Show the job until it ends. Returns the exit code: how the job went, or 130 when the watcher left."""
    try:
        if session.as_json:
            _follow(job, _json_lines())
        elif sys.stdout.isatty():
            _follow_on_terminal(job)
        else:
            _follow(job, _plain_lines())
    except KeyboardInterrupt:
        note(f"Detached. Re-attach: company job watch {job.id}")
        return INTERRUPTED
    if not session.as_json:
        say(end_of(job))
    return exit_code_of_state(job.state, int((job.view.get("fragments") or {}).get("failed", 0)))


def end_of(job: Job) -> str:
    """The closing lines of an ended job, with its largest group of errors if it has any."""
    has_failures = job.state == "failed" or (job.view.get("fragments") or {}).get("failed")
    return ending(job.view, job.errors() if has_failures else [])


def _follow(job: Job, show: Show) -> None:
    away_since: float | None = None
    show(job.view)
    while not job.is_over:
        try:
            job.status(wait_s=POLL_S)
        except ChiefUnreachable as error:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE_S:
                raise
            note(f"{error.text}; the job is safe on its disk, trying again")
            time.sleep(2.0)
            continue
        away_since = None
        show(job.view)


def _json_lines() -> Show:
    last: list[Any] = [None]

    def show(view: dict[str, Any]) -> None:
        if view != last[0]:
            print_json("job/1", view)
            sys.stdout.flush()
            last[0] = dict(view)

    return show


def _plain_lines(clock: Callable[[], float] = time.monotonic) -> Show:
    last_text, last_state, last_at = "", "", 0.0

    def show(view: dict[str, Any]) -> None:
        nonlocal last_text, last_state, last_at
        text = "\n".join([headline(view), *(waiting_lines(view) if view["state"] in ("queued", "splitting", "running") else [])])
        now = clock()
        if text == last_text or (view["state"] == last_state and now - last_at < LINE_EVERY_S):
            return
        last_text, last_state, last_at = text, str(view["state"]), now
        say(text)
        sys.stdout.flush()

    return show


def _follow_on_terminal(job: Job) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(view: dict[str, Any]) -> None:
            live.update(_panel(view, console.width), refresh=True)

        _follow(job, show)


def _panel(view: dict[str, Any], width: int) -> RenderableType:
    """The bar and what belongs to it."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    counts = view.get("fragments") or {}
    fraction = fraction_of(view)
    grid = Table.grid(padding=(0, 2))
    share = Text(f"{fraction * 100:.0f} %") if fraction is not None else Text("")
    bar = ProgressBar(total=1.0, completed=fraction or 0.0, pulse=fraction is None, width=max(10, min(40, width - 60)))
    name = Text(f"{view['id']} {safe(view.get('name', ''), 30)}")
    grid.add_row(name, Text(state_text(view), "cyan"), bar, Text(progress_text(view)), share)
    facts = [rate_text(view), f"ETA {eta_text(view)}" if view["state"] in ("splitting", "running") else ""]
    facts.append(f"{counts.get('leased', 0)} running" if counts.get("leased") else "")
    lines = [Text("  " + "   ".join(f for f in facts if f))]
    if counts.get("failed"):
        lines.append(Text(f"  {counts['failed']} failed: company job failures {view['id']}", "red"))
    lines += [Text(line, "yellow") for line in waiting_lines(view)]
    lines += [Text(f"  [{s.get('fragment')}] {safe(s.get('text', ''), 100)}", "dim") for s in (view.get("status") or [])[:3]]
    lines.append(Text("Ctrl-C to detach (the job keeps running).", "dim"))
    return Group(grid, *lines)
