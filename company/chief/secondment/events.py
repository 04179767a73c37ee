"""Contract path 5/8 - what the chief's machine hears of lent and borrowed workers (pure)."""

from __future__ import annotations

from p2p.base.record import record


@record(kw_only=True)
class WorkerLent:
    """So many of a worker's slots, the last ones, work for another company now."""

    worker: str
    slots: int


@record(kw_only=True)
class AbroadJudged:
    """Own runs of one fragment were compared: whether other companies may compute the job."""

    job: str
    may: bool
    why: str = ""
    caught: tuple[str, ...] = ()  # companies that gave a wrong answer in it


@record(kw_only=True)
class Believed:
    """A company passed its checks in this job: what it computed so far counts."""

    job: str
    origin: str


@record(kw_only=True)
class JobSetAside:
    """Take the job out of the machine, not to its end: it comes back by `JobAdded` with what counts of it."""

    job: str
