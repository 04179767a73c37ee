"""Rules of leases: fencing, depth, parts, adoption after a restart."""

import pytest

from company.chief.leases import Lease, LeaseTable, SlotBusy
from company.chief.ranges import RangeSet
from p2p.base.clock import Monotonic
from p2p.base.errors import UsageError

SLOT, OTHER = ("w1", 0), ("w2", 0)
T0, T1, T2 = Monotonic(0.0), Monotonic(1.0), Monotonic(2.0)


def table(boot: int = 1) -> LeaseTable:
    return LeaseTable(boot=boot)


def grant(leases: LeaseTable, slot: tuple[str, int] = SLOT, first: int = 0, count: int = 10) -> Lease:
    return leases.acquire(slot, "job", first, count, attempt=0, now=T0)


def test_tokens_only_grow_across_restarts() -> None:
    old, new = table(1), table(2)
    tokens = [grant(old).token, grant(old).token, grant(new).token]
    assert tokens == sorted(set(tokens)) and tokens[0] == (1 << 40) + 1


def test_a_slot_holds_one_running_and_one_queued_lease() -> None:
    leases = table()
    first, second = grant(leases), grant(leases, first=10)
    assert (first.running_since, second.running_since) == (T0, None)
    with pytest.raises(SlotBusy):
        grant(leases, first=20)
    assert leases.depth(SLOT) == 2 and len(leases) == 2
    leases.validate()


def test_the_queued_lease_begins_to_run_when_the_first_ends() -> None:
    leases = table()
    first, second = grant(leases), grant(leases, first=10)
    leases.release(first.token, now=T1)
    assert [(x.token, x.running_since) for x in leases.of_slot(SLOT)] == [(second.token, T1)]
    leases.validate()


def test_stale_token_is_refused() -> None:
    leases = table()
    lease = grant(leases)
    assert leases.is_current(lease.token, "w1") and not leases.is_current(lease.token, "w2")
    leases.release(lease.token, now=T1)
    assert not leases.is_current(lease.token)
    with pytest.raises(UsageError, match="holds no lease"):
        leases.complete(lease.token, 0, 1)
    with pytest.raises(UsageError, match="holds no lease"):
        leases.release(lease.token, now=T1)
    with pytest.raises(UsageError, match="holds no lease"):
        leases.renew(lease.token, T2)


def test_release_gives_back_what_has_no_results() -> None:
    leases = table()
    lease = grant(leases)
    assert leases.complete(lease.token, 0, 4) == [(0, 4)]
    assert leases.complete(lease.token, 2, 4) == [(4, 2)]
    assert leases.release(lease.token, now=T1) == [(6, 4)]
    assert len(leases) == 0 and leases.of_worker("w1") == () and leases.of_job("job") == ()


def test_a_part_outside_the_lease_is_refused_and_changes_nothing() -> None:
    leases = table()
    lease = grant(leases, first=10)
    for first, count in [(9, 2), (19, 2), (10, -1)]:
        with pytest.raises(UsageError):
            leases.complete(lease.token, first, count)
    assert leases.unfinished(lease.token) == [(10, 10)]
    leases.validate()


def test_a_range_may_be_leased_twice_as_a_backup() -> None:
    leases = table()
    one, two = grant(leases), grant(leases, OTHER, first=5)
    assert [x.token for x in leases.overlapping("job", 0, 6)] == [one.token, two.token]
    assert [x.token for x in leases.overlapping("job", 10, 1)] == [two.token]
    assert leases.overlapping("other", 0, 6) == ()


def test_deadlines_follow_renewal_and_release() -> None:
    leases = table()
    lease = leases.acquire(SLOT, "job", 0, 1, attempt=0, now=T0, deadline=T1)
    assert leases.next_deadline() == T1 and leases.expired(T0) == ()
    assert [x.token for x in leases.expired(T1)] == [lease.token]
    leases.renew(lease.token, T2)
    assert leases.next_deadline() == T2 and leases.expired(T1) == ()
    for number in range(1000):
        leases.renew(lease.token, Monotonic(3.0 + number))
    assert leases.next_deadline() == 1002.0
    leases.release(lease.token, now=T2)
    assert leases.next_deadline() is None


def test_an_old_token_is_adopted_after_a_restart_and_keeps_what_was_accepted() -> None:
    token = grant(table(1)).token
    leases = table(2)
    lease = leases.adopt(token, SLOT, "job", 0, 10, attempt=0, accepted=RangeSet([(0, 4)]), now=T0)
    assert isinstance(lease, Lease) and leases.is_current(token, "w1")
    assert leases.unfinished(token) == [(4, 6)]
    assert leases.adopt(token, SLOT, "job", 0, 10, attempt=0, accepted=RangeSet(), now=T1) == lease, "idempotent"
    leases.validate()


def test_adoption_is_refused_with_the_reason() -> None:
    old = table(1)
    token, late = grant(old).token, grant(old, OTHER).token
    leases = table(2)
    grant(leases, OTHER, first=8)

    def adopt(token: int, first: int = 0, accepted: RangeSet | None = None) -> object:
        return leases.adopt(token, SLOT, "job", first, 10, attempt=0, accepted=accepted or RangeSet(), now=T0)

    assert adopt(token) == "leased-again"
    assert adopt(token, accepted=RangeSet([(0, 20)])) == "already-accepted"
    assert adopt((2 << 40) + 99) == "unknown-token", "never given"
    assert adopt(0) == "unknown-token"
    assert isinstance(adopt(late, accepted=RangeSet([(8, 2)])), Lease), "only the rest must be free"
    assert adopt(late, first=30) == "range-differs"
    assert len(leases) == 2
    leases.validate()


def test_boot_number_is_bounded() -> None:
    for boot in (0, 1 << 24):
        with pytest.raises(UsageError):
            table(boot)
    assert grant(table((1 << 24) - 1)).token < 1 << 64
