"""Reads what the owner's machine does: CPU time by priority, battery (I/O: psutil)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
import trio

from company.chief.network.idleness import Cpu, Load, Machine, Owner

EVERY_S = 1.0  # readings of /proc/stat and of the battery, at most


def read_cpu() -> Cpu:
    """Since the machine started. Time of niced processes is not the owner's."""
    times = psutil.cpu_times()
    owner_s = times.user + times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
    return Cpu(owner_s, owner_s + times.idle + getattr(times, "nice", 0.0) + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0))


def read_mains() -> bool | None:
    """Whether the machine is on mains; None where it has no battery, or nobody can say."""
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, RuntimeError):
        return None
    return bool(battery.power_plugged) if battery is not None and battery.power_plugged is not None else None


@dataclass(slots=True)
class OwnerLoad:
    """The chief's machine, read when somebody asks and at most once a second."""

    cpu: Callable[[], Cpu] = read_cpu
    mains: Callable[[], bool | None] = read_mains
    owner: Owner = field(default_factory=Owner)
    _load: Load = field(default_factory=Load)
    _machine: Machine = field(default_factory=Machine)
    _read_at: float = float("-inf")

    def machine(self) -> Machine:
        """How it is now."""
        now = trio.current_time()
        if now - self._read_at >= EVERY_S:
            self._read_at = now
            self._machine = Machine(self._load.add(self.cpu(), now), self.mains())
        return self._machine

    def why_not(self, max_load: float | None, needs_mains: bool) -> str:
        """Why nothing is lent now; empty where it may be."""
        return self.owner.why_not(self.machine(), max_load=max_load, needs_mains=needs_mains, now=trio.current_time())
