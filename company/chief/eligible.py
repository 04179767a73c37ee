"""Whether a worker may run a job at all, and why not (pure). The same words on every surface (B4)."""

from __future__ import annotations

from functools import lru_cache

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from company.chief.jobrun import JobRun
from company.chief.slots import WorkerRun
from p2p.base.errors import Action, Reason


@lru_cache(maxsize=1024)
def _python_fits(specifier: str, version: str) -> bool:
    try:
        return version in SpecifierSet(specifier) if specifier and version else True
    except InvalidSpecifier:
        return False


def why_not(job: JobRun, worker: WorkerRun) -> Reason | None:
    """None when the worker may run the job's fragments; else the first thing that stands against it."""
    spec, offer = job.spec, worker.spec
    blocked = job.blocked.get(offer.id)
    if blocked is not None:
        return blocked
    if worker.quarantined:
        return Reason(
            "worker-quarantined", f"{offer.name} is quarantined.", {"worker": offer.name}, (Action("let it work again", f"company worker release {offer.id}"),)
        )
    if worker.paused or worker.draining:
        word = "paused" if worker.paused else "draining"
        return Reason(f"worker-{word}", f"{offer.name} is {word}.", {"worker": offer.name}, (Action("let it work again", f"company worker resume {offer.id}"),))
    if offer.memory_bytes and spec.memory_bytes > offer.memory_bytes:
        need, has = spec.memory_bytes >> 20, offer.memory_bytes >> 20
        return Reason(
            "not-enough-memory",
            f"the job needs {need} MiB for a fragment; {offer.name} gives {has} MiB.",
            {"needed_bytes": spec.memory_bytes, "offered_bytes": offer.memory_bytes},
            (Action("lower the job's memory", f"company job edit {spec.id} --memory {has}MiB"),),
        )
    if not _python_fits(spec.python, offer.python):
        return Reason(
            "python-mismatch",
            f"the package asks for Python {spec.python}; {offer.name} has {offer.python}.",
            {"wanted": spec.python, "found": offer.python},
        )
    return None
