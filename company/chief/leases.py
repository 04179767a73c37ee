"""Fragment path 5/9 - lock one slot for one batch (pure).

The lock is a lease: exclusive, time-limited where a deadline is given, numbered. The number is a fencing token: it only grows, across
restarts too (boot number, persisted, in the high bits), so a late result carrying an old one is refused even though its sender still
believes that it holds the lock. A slot runs one lease and has at most one queued ahead, so that the next batch is already there when
it finishes. The same range may be leased twice (a backup copy): what was accepted first counts, and the job's ranges know that.

Source: fencing tokens: Burrows 2006 (Chubby's sequencers); Gray, Cheriton 1989 (leases).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from company.chief.ranges import Piece, RangeSet
from p2p.base.clock import Monotonic
from p2p.base.errors import InvariantBroken, UsageError
from p2p.base.record import record

SlotKey = tuple[str, int]  # (worker id, slot number on that worker)

DEPTH = 2  # one running, one queued ahead: 1.00-1.01 × the lower bound, against 2.5-3.2 × with unbounded queues (simulated)
COUNTER_BITS = 40
MAX_BOOT = (1 << (64 - COUNTER_BITS)) - 1

AdoptRefusal = Literal["unknown-token", "range-differs", "already-accepted", "leased-again"]


class SlotBusy(UsageError):
    """The slot already runs one lease and has one queued."""

    def __init__(self, slot: SlotKey) -> None:
        super().__init__("slot-busy", f"slot {slot[1]} of worker {slot[0]} already holds {DEPTH} leases", worker=slot[0], slot=slot[1])


@record(kw_only=True)
class Lease:
    """One lock."""

    token: int  # fencing token, >= 1, strictly increasing per chief, across restarts
    slot: SlotKey
    job: str
    first: int
    count: int
    attempt: int  # 0 for the first try of this range
    granted_at: Monotonic
    running_since: Monotonic | None  # None while it is queued behind another
    expires_at: Monotonic | None

    @property
    def worker(self) -> str:
        """The worker whose slot is locked."""
        return self.slot[0]


class LeaseTable:
    """Every lease one chief has granted. Callers pass ``now``."""

    def __init__(self, *, boot: int) -> None:
        """``boot``: how often this chief has started, 1 or more, persisted before the first lease."""
        if not 1 <= boot <= MAX_BOOT:
            raise UsageError("boot-out-of-range", f"boot number must be 1..{MAX_BOOT}, got {boot}")
        self._last_token = boot << COUNTER_BITS
        self._boot = boot
        self._leases: dict[int, Lease] = {}
        self._done: dict[int, RangeSet] = {}
        self._slots: dict[SlotKey, list[int]] = {}  # tokens, the running one first
        self._workers: dict[str, set[int]] = {}
        self._jobs: dict[str, set[int]] = {}
        self._deadlines: list[tuple[float, int]] = []  # heap; entries of ended or renewed leases are dropped when met

    # -- granting ---------------------------------------------------------------------------------------------------------------
    def acquire(
        self, slot: SlotKey, job: str, first: int, count: int, *, attempt: int, now: Monotonic, deadline: Monotonic | None = None
    ) -> Lease:
        """Grant a lease, running if the slot is empty, else queued. Raises `SlotBusy`, `UsageError` for an empty range."""
        if first < 0 or count < 1:
            raise UsageError("lease-empty", f"a lease needs first >= 0 and count >= 1, got {first} and {count}")
        if self.depth(slot) >= DEPTH:
            raise SlotBusy(slot)
        token = self._last_token + 1
        if token >> COUNTER_BITS != self._boot:
            raise InvariantBroken("more leases in one boot than the counter can number", token=token)
        self._last_token = token
        return self._enter(token, slot, job, first, count, attempt, now, deadline)

    def adopt(
        self, token: int, slot: SlotKey, job: str, first: int, count: int, *, attempt: int, accepted: RangeSet, now: Monotonic,
        deadline: Monotonic | None = None,
    ) -> Lease | AdoptRefusal:  # fmt: skip
        """Take back a lease that a returning worker still holds, also one of an earlier boot; idempotent for one that never ended.

        It counts again unless everything of it is in ``accepted`` or anything of the rest was leased anew. The depth of the slot is not
        enforced: a worker may hold a finished lease, a running and a queued one; adopt them in that order.
        """
        if first < 0 or count < 1 or not 0 < token <= self._last_token:
            return "unknown-token"
        held = self._leases.get(token)
        if held is not None:
            same = (held.worker, held.job, held.first, held.count) == (slot[0], job, first, count)
            return held if same else "range-differs"
        rest = accepted.missing(first, count)
        if not rest:
            return "already-accepted"
        if any(other for a, n in rest for other in self.overlapping(job, a, n)):
            return "leased-again"
        lease = self._enter(token, slot, job, first, count, attempt, now, deadline)
        for a, n in accepted.intersection(first, count):
            self._done[token].add(a, n)
        return lease

    def renew(self, token: int, deadline: Monotonic | None) -> Lease:
        """Move the end of a lease. Raises `UsageError` when it is over."""
        lease = replace(self._of(token), expires_at=deadline)
        self._leases[token] = lease
        self._push(lease)
        return lease

    # -- ending -----------------------------------------------------------------------------------------------------------------
    def complete(self, token: int, first: int, count: int) -> list[Piece]:
        """Note that this part of the lease has its results; return the pieces that were new. Raises `UsageError` outside the lease."""
        lease = self._of(token)
        if count < 0 or first < lease.first or first + count > lease.first + lease.count:
            raise UsageError(
                "part-outside-lease", f"part {first}+{count} lies outside lease {lease.first}+{lease.count}", token=token, first=first
            )
        fresh = self._done[token].missing(first, count)
        self._done[token].add(first, count)
        return fresh

    def release(self, token: int, *, now: Monotonic) -> list[Piece]:
        """End a lease, finished or fenced; return the pieces that have no results. The slot's next lease begins to run.

        Raises `UsageError` when it is already over.
        """
        lease = self._of(token)
        rest = self.unfinished(token)
        del self._leases[token], self._done[token]
        queue = self._slots[lease.slot]
        queue.remove(token)
        if not queue:
            del self._slots[lease.slot]
        elif self._leases[queue[0]].running_since is None:
            self._leases[queue[0]] = replace(self._leases[queue[0]], running_since=now)
        _drop(self._workers, lease.worker, token)
        _drop(self._jobs, lease.job, token)
        return rest

    # -- asking -----------------------------------------------------------------------------------------------------------------
    def is_current(self, token: int, worker: str | None = None) -> bool:
        """Whether a result tagged ``token`` may still be accepted; with ``worker``: from that one."""
        lease = self._leases.get(token)
        return lease is not None and worker in (None, lease.worker)

    def get(self, token: int) -> Lease | None:
        """The lease of this token, None when it is over."""
        return self._leases.get(token)

    def unfinished(self, token: int) -> list[Piece]:
        """The pieces of this lease that have no results yet."""
        lease = self._of(token)
        return self._done[token].missing(lease.first, lease.count)

    def depth(self, slot: SlotKey) -> int:
        """How many leases this slot holds: 0 idle, 1 running, 2 with one queued ahead."""
        return len(self._slots.get(slot, ()))

    def of_slot(self, slot: SlotKey) -> tuple[Lease, ...]:
        """The slot's leases, the running one first."""
        return tuple(self._leases[token] for token in self._slots.get(slot, ()))

    def running(self, slot: SlotKey) -> Lease | None:
        """What this slot runs."""
        queue = self._slots.get(slot)
        return self._leases[queue[0]] if queue else None

    def of_worker(self, worker: str) -> tuple[Lease, ...]:
        """The worker's leases, oldest token first."""
        return tuple(self._leases[token] for token in sorted(self._workers.get(worker, ())))

    def of_job(self, job: str) -> tuple[Lease, ...]:
        """The job's leases, oldest token first."""
        return tuple(self._leases[token] for token in sorted(self._jobs.get(job, ())))

    def has_job(self, job: str) -> bool:
        """Whether the job has any lease."""
        return job in self._jobs

    @property
    def last_token(self) -> int:
        """The newest token granted; before the first one of a boot, the boot's floor."""
        return self._last_token

    def overlapping(self, job: str, first: int, count: int) -> tuple[Lease, ...]:
        """Leases of the job that share a fragment with this range, oldest token first."""
        return tuple(x for x in self.of_job(job) if x.first < first + count and first < x.first + x.count)

    def __iter__(self) -> Iterator[Lease]:
        return iter(tuple(self._leases.values()))

    def __len__(self) -> int:
        return len(self._leases)

    # -- time -------------------------------------------------------------------------------------------------------------------
    def next_deadline(self) -> Monotonic | None:
        """When the first lease runs out, None if none does."""
        while self._deadlines:
            at, token = self._deadlines[0]
            lease = self._leases.get(token)
            if lease is not None and lease.expires_at == at:
                return Monotonic(at)
            heapq.heappop(self._deadlines)
        return None

    def expired(self, now: Monotonic) -> tuple[Lease, ...]:
        """Leases with ``expires_at <= now``, oldest token first. They stay until released or renewed."""
        if (at := self.next_deadline()) is None or at > now:
            return ()
        late = (x for x in self._leases.values() if x.expires_at is not None and x.expires_at <= now)
        return tuple(sorted(late, key=lambda x: x.token))

    def validate(self) -> None:
        """Check that the indexes agree. Raises `InvariantBroken`; called after every event in tests and in the simulator."""
        for index in (self._slots, self._workers, self._jobs):
            tokens = sorted(token for group in index.values() for token in group)
            if tokens != sorted(self._leases) or not all(index.values()):
                raise InvariantBroken("an index of leases disagrees with the leases", index=tokens, leases=sorted(self._leases))
        for slot, queue in self._slots.items():
            running = [self._leases[token].running_since is not None for token in queue]
            if not running[0] or any(running[1:]) or any(self._leases[token].slot != slot for token in queue):
                raise InvariantBroken("exactly the first lease of a slot runs", slot=slot, tokens=queue)
        for token, lease in self._leases.items():
            if lease.token != token or token > self._last_token:
                raise InvariantBroken("a lease carries a token that was never given", token=token)
            done = list(self._done[token])
            if done and (done[0][0] < lease.first or sum(done[-1]) > lease.first + lease.count):
                raise InvariantBroken("results were noted outside their lease", token=token, done=done)

    # -- inside -----------------------------------------------------------------------------------------------------------------
    def _of(self, token: int) -> Lease:
        lease = self._leases.get(token)
        if lease is None:
            raise UsageError("stale-token", f"token {token} holds no lease", token=token)
        return lease

    def _enter(
        self, token: int, slot: SlotKey, job: str, first: int, count: int, attempt: int, now: Monotonic, deadline: Monotonic | None
    ) -> Lease:
        lease = Lease(
            token=token, slot=slot, job=job, first=first, count=count, attempt=attempt, granted_at=now,
            running_since=None if self.depth(slot) else now, expires_at=deadline,
        )  # fmt: skip
        self._leases[token] = lease
        self._done[token] = RangeSet()
        self._slots.setdefault(slot, []).append(token)
        self._workers.setdefault(slot[0], set()).add(token)
        self._jobs.setdefault(job, set()).add(token)
        self._push(lease)
        return lease

    def _push(self, lease: Lease) -> None:
        if lease.expires_at is None:
            return
        if len(self._deadlines) > 64 + 4 * len(self._leases):  # renewals leave dead entries behind
            self._deadlines = [(x.expires_at, x.token) for x in self._leases.values() if x.expires_at is not None]
            heapq.heapify(self._deadlines)
        else:
            heapq.heappush(self._deadlines, (lease.expires_at, lease.token))


def _drop(index: dict[str, set[int]], key: str, token: int) -> None:
    index[key].discard(token)
    if not index[key]:
        del index[key]
