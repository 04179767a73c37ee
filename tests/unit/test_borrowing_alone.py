"""Borrowing without being asked each time: what is wanted, of whom, and never beyond the limits of the owner."""

from __future__ import annotations

from dataclasses import replace

import pytest

from company.chief.contracts.needing import need_of
from company.chief.contracts.wanting import (
    BorrowPolicy,
    Found,
    Need,
    Want,
    checked,
    choose,
    left,
    mode_of,
    state_as_json,
    state_of_json,
    wanted,
)
from company.chief.events import JobSpec
from company.chief.jobrun import JobRun
from company.foreign_words import foreign_words
from p2p.base.errors import UsageError

POLICY = BorrowPolicy(mode="automatically", max_slots=8, contracts_per_day=3, core_hours_per_day=20.0, max_price_milli=1000)
NEED = Need(
    job="j-1", name="one", package=b"p", processor=b"q", where="any", waiting=100, own_slots=0, home_s=None, memory_bytes=1 << 20
)  # fmt: skip
NOW = 1e9


def slots(
    *needs: Need, policy: BorrowPolicy = POLICY, borrowed: dict[bytes, int] | None = None, spent: list[tuple[float, int]] | None = None
) -> list[int]:  # fmt: skip
    return [w.slots for w in wanted(needs, policy, borrowed or {}, spent or [], NOW)]


def test_a_job_wants_as_many_slots_as_fragments_wait_beyond_what_it_has() -> None:
    assert slots(NEED) == [8], "no more than the owner gives at a time"
    assert slots(replace(NEED, waiting=3)) == [3]
    assert slots(replace(NEED, waiting=3), borrowed={b"q": 2}) == [1]
    assert slots(replace(NEED, waiting=3), borrowed={b"q": 3}) == []
    assert slots(NEED, borrowed={b"other": 6}) == [2]
    assert slots(replace(NEED, waiting=5), replace(NEED, job="j-2", processor=b"r", waiting=9)) == [5, 3]
    assert slots(replace(NEED, waiting=5), replace(NEED, job="j-2", waiting=7)) == [5, 2], "guests of one processor serve both jobs"
    assert slots(NEED, policy=replace(POLICY, mode="never")) == []


def test_what_is_soon_done_at_home_is_not_borrowed_for() -> None:
    assert slots(replace(NEED, own_slots=2, home_s=59.0)) == []
    assert slots(replace(NEED, own_slots=2, home_s=None)) == [], "first it is seen how fast it is here"
    assert slots(replace(NEED, own_slots=2, home_s=600.0)) == [8]


def test_a_job_may_be_more_careful_than_its_company_and_never_less() -> None:
    for job, company, expected in (
        ("", "ask", "ask"), ("never", "automatically", "never"), ("ask", "automatically", "ask"), ("automatically", "automatically",
        "automatically"), ("automatically", "ask", "ask"), ("automatically", "never", "never"),
    ):  # fmt: skip
        assert mode_of(replace(NEED, mode=job), replace(POLICY, mode=company)) == expected
    assert slots(replace(NEED, mode="never"), replace(NEED, job="j-2")) == [8], "what one job does not want another one may have"
    assert slots(replace(NEED, mode="automatically"), policy=replace(POLICY, mode="never")) == []


def test_no_limit_of_a_day_is_passed() -> None:
    spent = [(NOW - 90_000, 10**9), (NOW - 100, 3600), (NOW - 50, 7 * 3600)]
    assert left(POLICY, spent, NOW) == (12.0, 1), "what is older than a day counts no more"
    assert slots(NEED, policy=replace(POLICY, max_slots=100), spent=spent) == [12], "one contract may cost what is left"
    assert slots(NEED, spent=[(NOW, 1)] * 3) == []
    assert slots(NEED, spent=[(NOW, 20 * 3600)]) == []


def test_who_is_asked_is_idle_known_enough_cheap_enough_and_has_not_just_refused() -> None:
    a, b, c = (Found(f"co-{n}", "", 4, 0, None, 0) for n in "abc")

    def picked(want: Want, *offers: Found, resting: set[str] = frozenset(), most: int = 3) -> list[tuple[str, int, int]]:  # type: ignore[assignment]
        return [(p.found.company, p.slots, p.time_frame_s) for p in choose(want, offers, POLICY, resting=resting, contracts_left=most)]

    want = Want(NEED, 6)
    assert picked(want, a, b, c) == [("co-a", 4, 3600), ("co-b", 2, 3600)]
    assert picked(want, a, b, c, resting={"co-a"}) == [("co-b", 4, 3600), ("co-c", 2, 3600)]
    assert picked(want, a, b, most=1) == [("co-a", 4, 3600)]
    assert picked(want, replace(a, price_milli=1001), replace(b, idle=0), replace(c, max_frame_s=600)) == [("co-c", 4, 600)]
    trusted = Want(replace(NEED, where="trusted"), 6)
    assert picked(trusted, a, replace(b, trust=0.49), replace(c, trust=0.5)) == [("co-c", 4, 3600)]


def test_a_policy_that_cannot_be_meant_is_refused_and_a_restart_finds_what_was_signed() -> None:
    for bad in ({"mode": "sometimes"}, {"max_slots": 0}, {"time_frame_s": 5}, {"core_hours_per_day": -1.0}, {"max_price_milli": 10**9}):
        with pytest.raises(UsageError, match=r"mode|lies in"):
            checked(replace(POLICY, **bad))  # type: ignore[arg-type]
    assert state_of_json(state_as_json(POLICY, [(NOW, 3600)], {"c-1": "j-1"})) == (POLICY, [(NOW, 3600)], {"c-1": "j-1"})


def test_a_job_that_may_not_leave_needs_nobody() -> None:
    def need(job_phase: str = "running", **changed: object) -> Need | None:
        spec = JobSpec(id="j-1", owner="o", package=b"p", processor=b"q", dataset=b"d", name="one", where="any")
        job = JobRun(replace(spec, **changed), phase=job_phase, produced=10)  # type: ignore[arg-type]
        job.done.add(0, 4)
        return need_of(job, 2)

    found = need()
    assert found is not None and (found.waiting, found.own_slots, found.home_s) == (6, 2, None)
    careful = need(borrow="ask")
    assert careful is not None and (found.mode, careful.mode) == ("", "ask")
    assert need(is_private=True) is None, "a private dataset never leaves"
    assert need(where="own") is None and need(is_stream=True) is None and need(requirements=("torch==2.0",)) is None
    assert need("queued") is None and need("merging") is None


def test_the_words_that_are_confirmed_say_who_sees_what() -> None:
    words = " ".join(foreign_words("any", ("Lab (co-x)",)))
    assert "fragments" in words and "processor" in words and "parameters" in words and "Lab (co-x)" in words and "never see" in words
