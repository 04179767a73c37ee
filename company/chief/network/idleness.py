"""Whether this machine's owner uses it now, so that lending stays out of the way (pure).

Load is CPU time at normal priority and in the kernel, over all cores: guests run at the lowest priority, so they do not count; this
company's own work does, as everything else of the owner's. Lending stops as soon as the smoothed load passes the bound, or the mains are
gone, and begins again only after a quiet time, so that a load around the bound does not make offers come and go.
"""

from __future__ import annotations

from p2p.base.record import record

SMOOTH_S = 5.0  # half of a step in load is seen after about 3.5 s
QUIET_S = 60.0  # so long under the bound before lending begins again


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


class Owner:
    """Whether the owner leaves the machine alone, by the bounds of the policy."""

    def __init__(self) -> None:
        self._busy_until = 0.0
        self._why = ""

    def why_not(self, machine: Machine, *, max_load: float | None, needs_mains: bool, now: float) -> str:
        """Why nothing is lent now; empty where it may be."""
        found = ""
        if needs_mains and machine.on_mains is False:
            found = "this machine runs on its battery"
        elif max_load is not None and machine.load > max_load:
            found = f"its owner uses {machine.load:.0%} of this machine, more than {max_load:.0%}"
        if found:
            self._busy_until, self._why = now + QUIET_S, found
            return found
        if now < self._busy_until and (max_load is not None or needs_mains):
            return f"{self._why} until a moment ago; it begins again in {self._busy_until - now:.0f} s"
        return ""
