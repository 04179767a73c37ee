"""Leases that are worth a row on disk, and the ranges that rows of before a restart hold back (pure).

Most leases last a fifth of a second and need no row: a restart runs them again. One older than `LONG_S` gets a row with the next group
commit. After a restart its range is held back until its worker has come back, with it or without it, or until the grace is over; so a
fragment of nine minutes is not run twice, also when its worker needs longer to come back than others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from company.chief.leases import LeaseTable
from p2p.base.clock import Monotonic
from p2p.base.record import record

LONG_S = 5.0  # from here on running it twice costs more than a row


@record(kw_only=True)
class LongLease:
    """What a row says: this worker has been running this range."""

    token: int
    job: str
    first: int
    count: int
    attempt: int
    worker: str
    slot: int


class LongLeases:
    """Which leases have rows, and which rows of before still wait for their workers."""

    def __init__(self, leases: LeaseTable) -> None:
        self._leases = leases
        self._young: deque[tuple[Monotonic, int]] = deque()  # granted at, token; in order of both
        self._rows: set[int] = set()  # tokens with a row, leases of now
        self._before: dict[str, list[LongLease]] = {}  # job -> rows of before that its job has not met yet
        self._held: dict[int, LongLease] = {}  # rows of before whose ranges are held back
        self._until: Monotonic | None = None
        self._over: list[int] = []

    # ---- rows ----------------------------------------------------------------------------------------------------------
    def granted(self, token: int, now: Monotonic) -> None:
        """A lease began."""
        self._young.append((now, token))

    def released(self, token: int) -> None:
        """A lease ended; its row, if it has one, is to go."""
        if token in self._rows:
            self._rows.discard(token)
            self._over.append(token)

    def grown_old(self, now: Monotonic) -> tuple[LongLease, ...]:
        """Leases that are to get their rows now."""
        found: list[LongLease] = []
        while self._young and self._young[0][0] + LONG_S <= now:
            _, token = self._young.popleft()
            lease = self._leases.get(token)
            if lease is not None and token not in self._rows:
                self._rows.add(token)
                found.append(
                    LongLease(
                        token=token, job=lease.job, first=lease.first, count=lease.count, attempt=lease.attempt, worker=lease.worker,
                        slot=lease.slot[1],
                    )
                )  # fmt: skip
        return tuple(found)

    def gone(self) -> tuple[int, ...]:
        """Tokens whose rows are to go, each said once."""
        over, self._over = tuple(self._over), []
        return over

    # ---- after a restart -----------------------------------------------------------------------------------------------
    def remember(self, rows: Iterable[LongLease], until: Monotonic) -> None:
        """Rows of before; their ranges are held back until then at most."""
        for row in rows:
            self._before.setdefault(row.job, []).append(row)
        self._until = until if self._before else None

    def job_added(self, job: str) -> list[LongLease]:
        """The rows of a job that is here again; their ranges are to be held back."""
        found = self._before.pop(job, []) if self._until is not None else []
        self._held.update((row.token, row) for row in found)
        return found

    def adopted(self, token: int, now: Monotonic) -> None:
        """A lease of before is one of now; a row that it has stays."""
        if self._held.pop(token, None) is not None:
            self._rows.add(token)
        else:
            self.granted(token, now)

    def of_worker(self, worker: str) -> list[LongLease]:
        """The rows of before that a worker may still be running."""
        waiting = [row for rows in self._before.values() for row in rows]
        return [row for row in (*self._held.values(), *waiting) if row.worker == worker]

    def let_go(self, *, worker: str = "", job: str = "") -> list[LongLease]:
        """Hold ranges back no longer for this worker, which came back without them, or this job, which is over."""
        return self._drop([row for row in self._held.values() if worker == row.worker or job == row.job])

    def run_out(self, now: Monotonic) -> list[LongLease]:
        """All that is still held back when the grace is over."""
        if self._until is None or now < self._until:
            return []
        self._until = None
        self._over += [row.token for rows in self._before.values() for row in rows]
        self._before.clear()
        return self._drop(list(self._held.values()))

    def _drop(self, rows: list[LongLease]) -> list[LongLease]:
        for row in rows:
            del self._held[row.token]
            self._over.append(row.token)
        return rows

    def of_job(self, job: str) -> list[LongLease]:
        """What is held back of a job."""
        return [row for row in self._held.values() if row.job == job] if self._held else []

    def next_deadline(self) -> Monotonic | None:
        """When a lease is to get its row, or the grace is over."""
        while self._young and self._leases.get(self._young[0][1]) is None:
            self._young.popleft()
        oldest = Monotonic(self._young[0][0] + LONG_S) if self._young else None
        return min((at for at in (oldest, self._until) if at is not None), default=None)
