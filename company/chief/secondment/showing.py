"""Contract path 5/8 - who works on a job: own slots, and those of other companies (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from company import views
from company.chief.jobrun import JobRun
from company.chief.leases import Lease
from company.chief.secondment.foreign import Worked
from company.chief.secondment.naming import origin_of
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


def show_shares(view: views.JobView, worked: Iterable[Worked]) -> None:
    """Fill in who worked for a job that is over: own workers did what no other company's did."""
    view.borrowed = [
        views.BorrowedView(company=w.company, contract=w.contract, results=w.results, run_s=w.run_us / 1e6) for w in worked
    ]  # fmt: skip
    view.results_own = max(0, view.fragments.done - sum(b.results for b in view.borrowed))


def show_slots(
    view: views.JobView, job: JobRun, leases: Iterable[Lease], workers: Mapping[str, WorkerRun], guests: Mapping[str, str]
) -> None:  # fmt: skip
    """Fill in who works on a job that lives. ``guests``: those that ever sent a result of it, and under which contract."""
    own: set[tuple[str, int]] = set()
    abroad: dict[str, set[tuple[str, int]]] = {}
    contracts = {origin_of(guest): contract for guest, contract in guests.items()}  # the newest of each company
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
    view.results_own = max(0, view.fragments.done - sum(b.results for b in view.borrowed))
