"""Whatever happens, at most one result per fragment comes out of a lease, and nothing is lost."""

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from company.chief.leases import DEPTH, LeaseTable, SlotBusy
from company.chief.ranges import RangeSet
from p2p.base.clock import Monotonic

SLOTS = [("a", 0), ("a", 1), ("b", 0)]


class Leases(RuleBasedStateMachine):
    """Grants, parts, ends and restarts in any order; each fragment is either pending, leased or accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable(boot=1)
        self.boot = 1
        self.pending = RangeSet([(0, 60)])
        self.accepted = RangeSet()
        self.tokens: list[int] = []
        self.now = Monotonic(0.0)

    @rule(slot=st.sampled_from(SLOTS), count=st.integers(1, 12))
    def lease(self, slot: tuple[str, int], count: int) -> None:
        first = next((a for a, _ in self.pending), None)
        if first is None:
            return
        count = min(count, self.pending.intersection(first, count)[0][1])
        try:
            lease = self.table.acquire(slot, "j", first, count, attempt=0, now=self.now)
        except SlotBusy:
            assert self.table.depth(slot) >= DEPTH
            return
        assert all(lease.token > token for token in self.tokens)
        self.tokens.append(lease.token)
        self.pending.discard(first, count)

    @precondition(lambda self: len(self.table))
    @rule(data=st.data())
    def part(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.table, key=lambda x: x.token)))
        first = data.draw(st.integers(lease.first, lease.first + lease.count - 1))
        count = data.draw(st.integers(0, lease.first + lease.count - first))
        for a, n in self.table.complete(lease.token, first, count):
            assert not self.accepted.intersection(a, n)
            self.accepted.add(a, n)

    @precondition(lambda self: len(self.table))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(sorted(self.table, key=lambda x: x.token)))
        self.now = Monotonic(self.now + 1)
        for a, n in self.table.release(lease.token, now=self.now):
            self.pending.add(a, n)

    @rule(come_back=st.booleans())
    def restart(self, come_back: bool) -> None:
        held = sorted(self.table, key=lambda x: x.token)
        self.boot += 1
        self.table = LeaseTable(boot=self.boot)
        for lease in held:
            if come_back:
                back = self.table.adopt(
                    lease.token, lease.slot, lease.job, lease.first, lease.count, attempt=0, accepted=self.accepted, now=self.now
                )
                assert (back == "already-accepted") == self.accepted.covers(lease.first, lease.count)
                assert back != "leased-again"
            else:
                for a, n in self.accepted.missing(lease.first, lease.count):
                    self.pending.add(a, n)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.table.validate()
        leased = RangeSet(piece for lease in self.table for piece in self.table.unfinished(lease.token))
        assert leased.total + self.pending.total + self.accepted.total == 60
        assert all(self.table.depth(slot) <= DEPTH for slot in SLOTS)


TestLeases = Leases.TestCase
