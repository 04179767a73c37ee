"""How much a machine's owner uses it: what a chief and its workers measure alike (pure).

Load is CPU time at normal priority and in the kernel, over all cores, without what this company's own processes take (`company.own_use`):
guests and own jobs are work that was let in, and do not count.
"""

from __future__ import annotations

from p2p.base.record import record

SMOOTH_S = 5.0  # half of a step in load is seen after about 3.5 s


@record
class Cpu:
    """Seconds since the machine started, summed over all cores. ``owner``: at normal priority and in the kernel.

    ``own``: seconds of those that went into this company's own processes, since any moment; None: not read.
    """

    owner_s: float
    total_s: float
    own_s: float | None = None


@record
class Machine:
    """What is known of the owner's machine now. ``on_mains``: None where there is no battery."""

    load: float = 0.0
    on_mains: bool | None = None


class Load:
    """A smoothed share of all cores, from readings as often as anybody likes."""

    def __init__(self) -> None:
        self._last: tuple[Cpu, float] | None = None
        self.value = 0.0
        self.is_known = False

    def share(self, cpu: Cpu) -> float:
        """Of all cores since the last reading, own processes included; 0 before there is one."""
        if self._last is None or (spent_s := cpu.total_s - self._last[0].total_s) <= 0:
            return 0.0
        return min(1.0, max(0.0, (cpu.owner_s - self._last[0].owner_s) / spent_s))

    def add(self, cpu: Cpu, now: float, *, least: float = 1.0) -> float:
        """Take a reading; returns the load, 0..1. The first one says nothing, nor does one without ``own`` above ``least``."""
        if self._last is None:
            self._last = (cpu, now)
            return self.value
        before, at = self._last
        spent_s, passed_s = cpu.total_s - before.total_s, now - at
        if passed_s <= 0 or spent_s <= 0:
            return self.value
        share = self.share(cpu)
        self._last = (cpu, now)
        if cpu.own_s is not None and before.own_s is not None:
            share = max(0.0, share - (cpu.own_s - before.own_s) / spent_s)
        elif share > least:
            return self.value
        weight = 0.5 ** (passed_s / (SMOOTH_S * 0.7))
        self.value = weight * self.value + (1 - weight) * share
        self.is_known = True
        return self.value
