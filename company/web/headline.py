"""The one line that answers a look at a job: state, why, when, what next (pure)."""

from __future__ import annotations

from typing import Final

from company import views
from company.config import format_duration
from p2p.base.record import record

ACTIVE: Final = ("queued", "splitting", "running", "merging")
PHASES: Final = (("queued", "Wait"), ("splitting", "Split"), ("running", "Run"), ("merging", "Merge"), ("done", "Result"))


@record
class Phase:
    """One step of a job's way; ``mark`` is done, now, stopped or later."""

    state: str
    label: str
    mark: str


@record
class Headline:
    """What the line says, besides the state."""

    why: str
    when: str
    next: str
    href: str


def headline_of(job: views.JobView, reasons: list[views.ReasonView]) -> Headline:
    """Why it is so, how long it takes, and the next step with a link to it, where there is one."""
    step, href = _next(job)
    return Headline(reasons[0].text if reasons else "", when_text(job), step, href)


def when_text(job: views.JobView) -> str:
    """Time left as a range, or the time it took."""
    if job.state in ACTIVE:
        if job.eta is None or job.paused:
            return ""
        low, high = format_duration(job.eta.low_s), format_duration(job.eta.high_s)
        return f"{low} left" if low == high else f"{low} to {high} left"
    if job.finished:
        spent = format_duration(max(0.0, job.finished - (job.started or job.created)))
        return f"took {spent}" if job.state == "done" else f"ended after {spent}"
    return ""


def _next(job: views.JobView) -> tuple[str, str]:
    if job.paused:
        return "resume it", "#actions"
    match job.state:
        case "queued":
            return "split the data into fragments", ""
        case "splitting":
            return "run the fragments", ""
        case "running":
            return "merge the results", ""
        case "merging":
            return "download the result", ""
        case "done":
            return "download the result", "#files"
        case "failed":
            return ("see what failed, then retry", "#errors") if job.fragments.failed else ("see the log", "#log")
        case _:
            return "retry or remove it", "#actions"


def phases_of(job: views.JobView) -> tuple[Phase, ...]:
    """The steps of the way with the one it is at, or at which it ended early."""
    at = _reached(job)
    is_over = job.state in ("failed", "cancelled")

    def mark(index: int) -> str:
        if index < at or job.state == "done":
            return "done"
        return "later" if index > at else ("stopped" if is_over else "now")

    return tuple(Phase(state, label, mark(index)) for index, (state, label) in enumerate(PHASES))


def _reached(job: views.JobView) -> int:
    states = [state for state, _ in PHASES]
    if job.state in states:
        return states.index(job.state)
    counts = job.fragments  # a job that ended early does not say where: its counts do
    if job.started is None:
        return 0
    if counts.total is None:
        return 2 if counts.done + counts.failed else 1
    return 3 if counts.done + counts.failed >= counts.total and job.merge_attempt else 2


def title_of(job: views.JobView, percent: int | None) -> str:
    """The browser tab's text: what somebody wants to see there while working elsewhere."""
    name = job.name or job.id
    if job.state in ACTIVE and not job.paused and percent is not None:
        return f"{percent} % {name}"
    return f"{name}: {'paused' if job.paused else job.state}"
