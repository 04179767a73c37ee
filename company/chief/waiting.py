"""Jobs that wait for their turn to begin (pure).

They have shown nothing of themselves yet, so within one user the higher priority goes first and then the older; between users
the fair share decides. A list per user is kept sorted: ten thousand waiting jobs cost nothing when one ends.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from company.chief.jobrun import JobRun
from company.chief.queue import FairShare

_Entry = tuple[int, float, str]


class WaitingLine:
    """Queued jobs that are not paused, by user."""

    def __init__(self) -> None:
        self._lines: dict[str, list[_Entry]] = {}
        self._entries: dict[str, tuple[str, _Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job: str) -> bool:
        return job in self._entries

    def put(self, job: JobRun) -> None:
        """Stand in line, or move to the place that a new priority gives."""
        self.drop(job.id)
        entry = (-job.spec.priority, float(job.added_at), job.id)
        self._entries[job.id] = (job.spec.owner, entry)
        insort(self._lines.setdefault(job.spec.owner, []), entry)

    def drop(self, job: str) -> None:
        """Leave the line; nothing happens if it is not in it."""
        found = self._entries.pop(job, None)
        if found is not None:
            line = self._lines[found[0]]
            del line[bisect_left(line, found[1])]
            if not line:
                del self._lines[found[0]]

    def in_order(self, share: FairShare) -> Iterator[tuple[str, str]]:
        """(user, job) in the order of their turns: one user after the other, each with the first of its jobs, then the rest."""
        users = sorted(self._lines, key=share.rank)
        for user in users:
            yield user, self._lines[user][0][2]
        for user in users:
            for entry in self._lines[user][1:]:
                yield user, entry[2]

    def place(self, job: str) -> int:
        """How many jobs of the same user stand before this one."""
        found = self._entries.get(job)
        return 0 if found is None else bisect_left(self._lines[found[0]], found[1])
