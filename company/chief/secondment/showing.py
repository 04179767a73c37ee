"""Contract path 5/8 - who works on a job: own slots, and those of other companies (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from company import views
from company.chief.jobrun import JobRun
from company.chief.leases import Lease
from company.chief.slots import WorkerRun


class Clocks(Protocol):
    """The contracts, as far as their countdowns go."""

    def clocks(self, ref: str) -> tuple[float | None, float | None]: ...


def with_clocks(view: views.JobView, contracts: Clocks) -> views.JobView:
    """The same view, with the countdowns of the contracts that it uses."""
    for borrowed in view.borrowed:
        if borrowed.contract:
            borrowed.ends_in_s, borrowed.lease_left_s = contracts.clocks(borrowed.contract)
    return view


def show_slots(view: views.JobView, job: JobRun, leases: Iterable[Lease], workers: Mapping[str, WorkerRun]) -> None:
    """Fill in ``slots_own`` and ``borrowed``."""
    own: set[tuple[str, int]] = set()
    abroad: dict[str, set[tuple[str, int]]] = {}
    contracts: dict[str, str] = {}
    for worker in workers.values():
        if worker.spec.guest is not None and worker.connected:
            contracts[worker.spec.origin] = worker.spec.guest.contract
    for lease in leases:
        guest = workers[lease.worker].spec.guest if lease.worker in workers else None
        (own if guest is None else abroad.setdefault(guest.origin, set())).add(lease.slot)
    view.slots_own = len(own)
    foreign = job.foreign
    view.borrowed = [
        views.BorrowedView(
            company=origin, contract=contracts.get(origin, ""), slots=len(abroad.get(origin, ())), results=foreign.of(origin),
            provisional=foreign.provisional[origin].total if origin in foreign.provisional else 0,
        )
        for origin in sorted({*abroad, *foreign.origins()})
    ]  # fmt: skip
