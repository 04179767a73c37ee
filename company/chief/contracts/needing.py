"""Contract path 1/8 - which jobs lack slots that other companies may give (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from company.chief.contracts.wanting import Need
from company.wheel_list import beyond_curated

if TYPE_CHECKING:
    from company.chief.jobrun import JobRun
    from company.chief.state import ChiefState

LEAST_DONE = 8  # results before a rate is believed


def needs_of(state: ChiefState) -> list[Need]:
    """Jobs that may leave this company and have work that waits, the oldest first."""
    own = sum(w.spec.slots for w in state.slots.workers.values() if w.connected and not w.paused and w.spec.guest is None)
    found = [need_of(job, own) for job in sorted(state.jobs.values(), key=lambda j: (j.spec.created, j.id))]
    return [need for need in found if need is not None]


def need_of(job: JobRun, own_slots: int) -> Need | None:
    """One job's need; None where nobody else may or can compute it."""
    spec = job.spec
    stays = spec.where == "own" or spec.is_private or spec.is_stream or job.foreign.abroad is False or beyond_curated(spec.requirements)
    if stays or job.phase not in ("splitting", "running"):
        return None
    waiting = (job.total if job.total is not None else job.produced) - job.settled
    if waiting <= 0 and job.split == "ended":
        return None
    if job.paused:
        waiting = 0  # it asks for nothing and keeps what it has
    home_s = None
    if job.done.total >= LEAST_DONE and job.first_lease is not None and job.last_result is not None and job.last_result > job.first_lease:
        home_s = waiting * (job.last_result - job.first_lease) / job.done.total
    return Need(
        job=job.id, name=spec.name, package=spec.package, processor=spec.processor, where=spec.where, waiting=max(0, waiting),
        own_slots=own_slots, home_s=home_s, memory_bytes=spec.memory_bytes, mode=spec.borrow,
    )  # fmt: skip
