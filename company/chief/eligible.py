"""Whether a worker may run a job at all, and why not (pure). The same words on every surface (B4)."""

from __future__ import annotations

from functools import lru_cache

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion

from company.chief.jobrun import JobRun
from company.chief.secondment.abroad import why_not_abroad
from company.chief.slots import WorkerRun
from p2p.base.errors import Action, Reason

RUNGS = frozenset({"", "bubblewrap", "landlock", "none"})  # all of them may run the own company's work; "" is a worker that did not say


@lru_cache(maxsize=1024)
def _python_fits(specifier: str, version: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True) if specifier and version else True
    except (InvalidSpecifier, InvalidVersion):
        return False


def why_not(job: JobRun, worker: WorkerRun) -> Reason | None:
    """None when the worker may run the job's fragments; else the first thing that stands against it."""
    return _of_worker(worker) or _of_job(job, worker)


def _of_worker(worker: WorkerRun) -> Reason | None:
    offer = worker.spec
    facts = {"worker": offer.name}
    again = Action("let it work again", f"company worker resume {offer.id}")
    if not worker.connected:
        start = Action("start it there", "company worker join")
        return Reason("worker-offline", f"{offer.name} is not connected; it resumes by itself when it can.", facts, (start,))
    if worker.quarantined:
        release = Action("let it work again", f"company worker release {offer.id}")
        return Reason("worker-quarantined", f"{offer.name} is quarantined.", facts, (release,))
    if worker.paused:
        return Reason("worker-paused", f"{offer.name} is paused.", facts, (again,))
    if worker.draining:
        return Reason("worker-draining", f"{offer.name} finishes what it holds and leaves.", facts, (again,))
    if offer.isolation not in RUNGS:
        return Reason(
            "isolation-unknown", f"{offer.name} isolates modules by {offer.isolation!r}, which this chief does not know.",
            {**facts, "isolation": offer.isolation}, (Action("see what its machine can do", "company doctor"),),
        )  # fmt: skip
    return None


def _of_job(job: JobRun, worker: WorkerRun) -> Reason | None:
    spec, offer = job.spec, worker.spec
    facts = {"worker": offer.name}
    if offer.guest is not None and (stays := why_not_abroad(job, offer, offer.guest)) is not None:
        return stays
    blocked = job.blocked.get(offer.id)
    if blocked is not None:
        return blocked
    if offer.id in job.kicked:
        return Reason(
            "worker-kicked", f"{offer.name} answered too late and gets none of this job for a while, as --failure seed-z4 asks.", facts,
            (Action("submit with the default rule", "company job submit --failure log-z"),),
        )  # fmt: skip
    if offer.memory_bytes and spec.memory_bytes > offer.memory_bytes:
        need, has = spec.memory_bytes >> 20, offer.memory_bytes >> 20
        return Reason(
            "not-enough-memory",
            f"the job needs {need} MiB for a fragment; {offer.name} gives {has} MiB.",
            {**facts, "needed_bytes": spec.memory_bytes, "offered_bytes": offer.memory_bytes},
            (Action("lower the job's memory", f"company job edit {spec.id} --memory {has}MiB"),),
        )
    if not _python_fits(spec.python, offer.python):
        return Reason(
            "python-mismatch",
            f"the package asks for Python {spec.python}; {offer.name} has {offer.python}.",
            {**facts, "wanted": spec.python, "found": offer.python},
            (Action("widen the package's python, or add a worker that has it", "company token create --role worker"),),
        )
    return None
