"""A job in a notebook: a small table that follows it to its end (I/O: a thread that asks the chief once a second)."""

from __future__ import annotations

import html
import importlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from company.client.job import Job

EVERY_S = 1.0
_BAR = '<div style="background:#8884;width:16em;height:.7em;border-radius:.35em"><div style="background:#2a7;width:{:.0f}%;height:100%;border-radius:.35em"></div></div>'  # noqa: E501
_COLOURS = {"done": "#2a7", "failed": "#c33", "cancelled": "#b80"}


def page_of(view: dict[str, Any]) -> str:
    """A job's view as HTML; all that people have written is escaped."""
    counts = view.get("fragments") or {}
    done, failed, total = int(counts.get("done", 0)), int(counts.get("failed", 0)), counts.get("total")
    state = str(view.get("state", ""))
    reason = view.get("reason") or {}
    share = 100.0 if state == "done" else 100.0 * (done + failed) / total if total else 0.0
    of_total = f" of {int(total):,}" if total else ""
    cells = [
        ("job", f"<code>{html.escape(str(view['id']))}</code> {html.escape(str(view.get('name') or ''))}"),
        ("state", f'<b style="color:{_COLOURS.get(state, "#38c")}">{html.escape(state)}</b> {html.escape(str(reason.get("text") or ""))}'),
        ("fragments", f"{_BAR.format(min(100.0, share))}{done:,}{of_total} done" + (f", <b>{failed:,} failed</b>" if failed else "")),
    ]
    rows = "".join(f'<tr><td style="text-align:left">{name}</td><td style="text-align:left">{cell}</td></tr>' for name, cell in cells)
    return f"<table>{rows}</table>"


def follow(job: Job) -> threading.Thread:
    """Show the job in the cell that is being run, and keep what is shown true until it ends. Needs IPython."""
    display = importlib.import_module("IPython.display")
    handle = display.display(display.HTML(page_of(job.view)), display_id=True)

    def keep() -> None:
        from company.client.client import Client
        from company.client.job import Job
        from p2p.base.errors import ParallelError

        with Client(job._client.transport.address) as client:  # a client belongs to one thread
            mine, shown = Job(client, job.view), job.view
            while not mine.is_over:
                try:
                    mine.status(wait_s=EVERY_S)
                except ParallelError as error:
                    handle.update(display.HTML(page_of(shown) + f"<p>{html.escape(error.text)}</p>"))
                    return
                if mine.view != shown:
                    shown = mine.view
                    handle.update(display.HTML(page_of(shown)))

    thread = threading.Thread(target=keep, name="company-notebook", daemon=True)
    if not job.is_over:
        thread.start()
    return thread
