"""How much a machine's owner uses it: what a chief and its workers measure alike (pure).

Load is CPU time at normal priority and in the kernel, over all cores: guests run at the lowest priority, so they do not count; own work
does, as everything else of the owner's.
"""

from __future__ import annotations

from p2p.base.record import record

SMOOTH_S = 5.0  # half of a step in load is seen after about 3.5 s


@record
class Cpu:
    """Seconds since the machine started, summed over all cores. ``owner``: at normal priority and in the kernel."""

    owner_s: float
    total_s: float


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

    def add(self, cpu: Cpu, now: float) -> float:
        """Take a reading; returns the load, 0..1. The first one says nothing."""
        if self._last is None:
            self._last = (cpu, now)
            return self.value
        before, at = self._last
        spent_s, passed_s = cpu.total_s - before.total_s, now - at
        if passed_s <= 0 or spent_s <= 0:
            return self.value
        share = min(1.0, max(0.0, (cpu.owner_s - before.owner_s) / spent_s))
        weight = 0.5 ** (passed_s / (SMOOTH_S * 0.7))
        self.value = weight * self.value + (1 - weight) * share
        self._last = (cpu, now)
        return self.value
