"""Contract path 5/8 - whether a job may run on another company's worker, and why not (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from company.chief.specs import Guest, WorkerSpec
from company.wheel_list import beyond_curated
from p2p.base.errors import Action, Reason

if TYPE_CHECKING:
    from company.chief.jobrun import JobRun

ISOLATED = "bubblewrap"
_WAIT = Action("see what it waits for", "company explain JOB")


def why_not_abroad(job: JobRun, offer: WorkerSpec, guest: Guest) -> Reason | None:
    """The first thing that keeps a job from this guest."""
    spec, foreign = job.spec, job.foreign
    facts = {"worker": offer.name, "company": guest.origin}
    again = (Action("submit it again and say who may run it", "company job submit PACKAGE DATA --where any"),)

    def no(code: str, text: str, *actions: Action) -> Reason:
        return Reason(code, text, facts, actions or again)

    if spec.where == "own" or (spec.where == "trusted" and not guest.is_trusted):
        return no("where-own", f"{offer.name} belongs to {guest.origin}, and the job runs with --where {spec.where}.")
    if spec.is_private:
        return no("dataset-private", "The job's dataset is marked private: it never leaves this company.")
    if spec.is_stream:
        return no("stream-stays", "An executor's calls run on own workers only.")
    if guest.processor != spec.processor:
        borrow = Action("borrow for this package", "company borrow request OFFER --package PACKAGE")
        return no("processor-not-agreed", f"The contract with {guest.origin} names another processor.", borrow)
    if beyond_curated(spec.requirements):
        return no("requirements-stay", "The package asks for further packages, and those are not sent to other companies.")
    if spec.time_limit_s > guest.fragment_s:
        lower = Action("lower the job's limit", f"company job edit {spec.id} --time-limit {guest.fragment_s}s")
        return no("contract-too-tight", f"A fragment may take {spec.time_limit_s:g} s; the contract gives {guest.fragment_s} s.", lower)
    if offer.isolation != ISOLATED:
        return no("isolation-unknown", f"{offer.name} isolates modules by {offer.isolation!r}.")
    if guest.origin in foreign.caught:
        return no("company-caught", f"{guest.origin} gave a wrong answer in this job.")
    if guest.is_checked and foreign.abroad is not True:
        if foreign.abroad is None:
            return no(
                "abroad-unproven",
                "Two own runs of one fragment are compared first.",
                Action("see it go on", f"company job watch {spec.id}"),
            )
        return no("abroad-differs", f"Answers cannot be checked: {foreign.why}")
    return None
