"""What this company's own processes take of a machine, so that it is not taken for its owner's use (pure).

A tree's time is that of all living processes in it, with what each has taken over from children that ended. Guests are of low priority, and
what such processes take is not the owner's in the first place (`company.machine_use`): only their time in the kernel is counted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from p2p.base.record import record


@record
class Process:
    """One process. ``gone_…``: of children of its own that ended, with theirs. ``start``: tells two with one pid apart."""

    parent: int
    start: float
    is_nice: bool
    user_s: float
    system_s: float
    gone_user_s: float = 0.0
    gone_system_s: float = 0.0

    @property
    def nice_user_s(self) -> float:
        return self.user_s + self.gone_user_s if self.is_nice else 0.0

    @property
    def counted_s(self) -> float:
        return self.user_s + self.system_s + self.gone_user_s + self.gone_system_s - self.nice_user_s


def tree_of(processes: Mapping[int, Process], roots: Iterable[int]) -> dict[int, Process]:
    """The roots with all that descends from them."""
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: dict[int, Process] = {}
    waiting = [pid for pid in roots if pid in processes]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found[pid] = processes[pid]
            waiting += children.get(pid, [])
    return found


class OwnUse:
    """Seconds of CPU that the trees have taken since the first reading."""

    def __init__(self) -> None:
        self.tree: dict[int, Process] = {}
        self.value_s = 0.0
        self._sum_s: float | None = None
        self._gone_nice_s = 0.0
        self._was_complete = False

    def add(self, tree: dict[int, Process], *, is_complete: bool) -> float:
        """Take a reading. is_complete: processes that are new would be in it."""
        new = {pid: p for pid, p in tree.items() if pid not in self.tree or self.tree[pid].start != p.start}
        for pid, process in self.tree.items():
            parent = self.tree.get(process.parent)
            if (pid not in tree or pid in new) and process.is_nice and not (parent is not None and parent.is_nice):
                self._gone_nice_s += process.nice_user_s  # its parent takes it over, as time like any other
        total_s = sum(p.counted_s for p in tree.values()) - self._gone_nice_s
        if self._sum_s is not None:
            late_s = 0.0 if self._was_complete else sum(p.counted_s for p in new.values())  # nobody knows since when
            self.value_s += max(0.0, total_s - self._sum_s - late_s)
        self.tree, self._sum_s, self._was_complete = tree, total_s, is_complete
        return self.value_s
