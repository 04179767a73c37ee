"""The pages Home, Jobs and Job: what runs, why it waits, what to do next (I/O: through the chief)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from company import views
from company.chief.api.bodies import number
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import BadRequest
from company.web.grouping import groups_of
from company.web.headline import ACTIVE, headline_of, phases_of, title_of
from company.web.heatmap import strip_of
from company.web.pages import Pages, is_local, read_form, redirect
from p2p.net.http_types import Response

PER_PAGE: Final = 50
STRIP_CELLS: Final = 512
MAX_FAILURES: Final = 500
MAX_SHOWN_LINES: Final = 200
MAX_READ_LINES: Final = 2000
LINES_PER_PAGE: Final = 500
MAX_SHOWN_ARTIFACTS: Final = 200
STATES: Final = ("queued", "splitting", "running", "merging", "done", "failed", "cancelled")
ACTIONS: Final = ("pause", "resume", "cancel", "retry", "rm")


class JobPages:
    """What a browser sees of jobs."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def home(self, call: Call) -> Response:
        """What needs somebody, what runs, and the first steps on an empty company."""
        active = [job for state in ACTIVE for job in call.chief.list_jobs(state=state, limit=20, offset=0)[0]]
        newest, total = call.chief.list_jobs(state=None, limit=20, offset=0)
        recent = [job for job in newest if job.state not in ACTIVE][:5]
        workers = call.chief.list_workers()
        return self._pages.show(call, "home.html", active=active, recent=recent, total=total, workers=workers)

    async def index(self, call: Call) -> Response:
        """Jobs, a page of them."""
        offset = number(call.request, "offset", 0, 0, 1 << 40)
        state = call.request.query.get("state") or None
        if state is not None and state not in STATES:
            raise BadRequest("state-unknown", f"No state {state[:40]!r}.")
        jobs, total = call.chief.list_jobs(state=state, limit=PER_PAGE, offset=offset)
        return self._pages.show(call, "jobs.html", jobs=jobs, total=total, offset=offset, per_page=PER_PAGE, state=state, states=STATES)

    async def show(self, call: Call) -> Response:
        """One job."""
        chief = call.chief
        job = chief.job(call.arg("id"))
        failures, failed = await chief.failures(job.id, limit=MAX_FAILURES, offset=0)
        artifacts = await chief.artifacts(job.id)
        lines, has_more = await _newest_lines(call, job.id)
        reasons, percent = _reasons(job, chief.explain(job.id)), _percent(job)
        # the part alone is what an open page asks for again and again
        template = "job_live.html" if "live" in call.request.query else "job.html"
        return self._pages.show(
            call,
            template,
            job=job,
            reasons=reasons,
            headline=headline_of(job, reasons),
            phases=phases_of(job),
            tab=title_of(job, percent),
            strip=strip_of(await chief.heatmap(job.id, STRIP_CELLS)),
            groups=groups_of(failures),
            failed=failed,
            grouped=len(failures),
            artifacts=artifacts[:MAX_SHOWN_ARTIFACTS],
            artifacts_total=len(artifacts),
            lines=lines,
            has_more_lines=has_more,
            is_active=job.state in ACTIVE,
            percent=percent,
        )

    async def log(self, call: Call) -> Response:
        """The whole log, a page of it."""
        job = call.chief.job(call.arg("id"))
        after = number(call.request, "after", 0, 0, 1 << 40)
        fragment = number(call.request, "fragment", 0, 0, 1 << 40) if call.request.query.get("fragment") else None
        lines = [line async for line in call.chief.logs(job.id, fragment=fragment, limit=LINES_PER_PAGE, after=after)]
        return self._pages.show(call, "log.html", job=job, lines=lines, after=after, fragment=fragment, per_page=LINES_PER_PAGE)

    async def change(self, call: Call) -> Response:
        """Do what a button of the job page says."""
        fields = await read_form(call)
        action = call.arg("action")
        if action not in ACTIONS:
            raise BadRequest("action-unknown", f"No action {action[:40]!r}.")
        args: dict[str, Any] = {"failed": True} if action == "retry" else {}
        job = await call.chief.change_job(call.arg("id"), action, args, by=call.by)
        back = fields.get("back", "")
        return redirect(back if is_local(back) else "/jobs" if action == "rm" else f"/jobs/{quote(job.id, safe='')}")

    def endpoints(self) -> list[Endpoint]:
        """The routes."""
        return [
            Endpoint(method="GET", pattern="/", handler=self.home, need="viewer", summary="Home", is_hidden=True),
            Endpoint(method="GET", pattern="/jobs", handler=self.index, need="viewer", summary="Jobs", is_hidden=True),
            Endpoint(method="GET", pattern="/jobs/{id}", handler=self.show, need="viewer", summary="Job", is_hidden=True),
            Endpoint(method="GET", pattern="/jobs/{id}/log", handler=self.log, need="viewer", summary="Log of a job", is_hidden=True),
            Endpoint(
                method="POST",
                pattern="/jobs/{id}/{action}",
                handler=self.change,
                need="submitter",
                summary="Change a job",
                is_hidden=True,
                csrf="later",
            ),
        ]


def _reasons(job: views.JobView, explained: list[views.ReasonView]) -> list[views.ReasonView]:
    """The job's own reason and what explain adds, each once."""
    own = [job.reason] if job.reason is not None else []
    return own + [r for r in explained if all((r.code, r.text) != (o.code, o.text) for o in own)]


def _percent(job: views.JobView) -> int | None:
    """Whole percents of fragments done, or nil while nobody knows how many there are; 100 only when all are."""
    counts = job.fragments
    if job.state == "done":
        return 100
    if not counts.total:
        return None
    return min(99 if counts.done < counts.total else 100, 100 * counts.done // counts.total)


async def _newest_lines(call: Call, job_id: str) -> tuple[list[views.LogLine], bool]:
    """The newest of the first log lines, and whether there may be more, which the log page has."""
    lines = [line async for line in call.chief.logs(job_id, fragment=None, limit=MAX_READ_LINES, after=0)]
    return lines[-MAX_SHOWN_LINES:], len(lines) == MAX_READ_LINES
