"""Contract path 5/8 - take back what a company computed in a job, and run it again (I/O).

Inputs of results that were on disk are gone, so the job goes the way that it goes after a restart of the chief: out of the machine, its
rows without the company's, and in again; split runs once more and is compared with what is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from company.chief import events as ev
from company.chief.commit import Committer
from company.chief.engine import Engine
from company.chief.merging import Merging
from company.chief.runtime import JobRuntime
from company.chief.secondment.believed import unmark
from company.chief.store.jobs import JobRow

_log = logging.getLogger("company.chief.secondment")


@dataclass(slots=True)
class Reopener:
    """``go_live``: builds the job's runtime from its rows, and keeps who waits for its end."""

    engine: Engine
    committer: Committer
    merging: Merging
    go_live: Callable[[JobRow, JobRuntime], Awaitable[None]]

    async def reopen(self, job: str, origins: set[str]) -> None:
        """Everything of these companies in this job is open again."""
        runtime = self.engine.runtimes.get(job)
        if runtime is None or job not in self.engine.state.jobs:
            return
        self.engine.post(ev.JobSetAside(job=job))
        done = trio.Event()
        self.committer.add(ops=[lambda conn: unmark(conn, job, origins)], then=done.set)
        await done.wait()
        if self.engine.runtimes.pop(job, None) is not runtime:
            return
        runtime.close()
        self.merging.discard(runtime)
        runtime.segments.close()
        runtime.logs.close()
        _log.warning("job %s: results of %s are computed again", job, ", ".join(sorted(origins)) or "other companies")
        await self.go_live(runtime.row, runtime)
        runtime.tell_news()
