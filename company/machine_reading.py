"""Reads what a machine does: CPU time by priority, battery (I/O: /proc, or psutil where there is none)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from company.machine_use import Cpu, Load, Machine

EVERY_S = 1.0  # readings, at most
_STAT, _POWER = Path("/proc/stat"), Path("/sys/class/power_supply")


def read_cpu() -> Cpu:
    """Since the machine started. Time of niced processes is not the owner's."""
    try:
        with _STAT.open() as file:
            user, nice, system, idle, iowait, irq, softirq, steal = (int(x) for x in file.readline().split()[1:9])
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return _read_cpu_elsewhere()
    owner = user + system + irq + softirq
    return Cpu(owner / tick, (owner + nice + idle + iowait + steal) / tick)


def _read_cpu_elsewhere() -> Cpu:
    import psutil

    times = psutil.cpu_times()
    owner_s = times.user + times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
    return Cpu(owner_s, owner_s + times.idle + getattr(times, "nice", 0.0) + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0))


def read_mains() -> bool | None:
    """Whether the machine is on mains; None where it has no battery, or nobody can say."""
    if _STAT.exists() and not any(_POWER.glob("BAT*")):
        return None
    import psutil

    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, RuntimeError):
        return None
    return bool(battery.power_plugged) if battery is not None and battery.power_plugged is not None else None


@dataclass(slots=True)
class MachineReader:
    """This machine, read when somebody asks and at most once a second."""

    clock: Callable[[], float]
    cpu: Callable[[], Cpu] = read_cpu
    mains: Callable[[], bool | None] = read_mains
    _load: Load = field(default_factory=Load)
    _machine: Machine = field(default_factory=Machine)
    _read_at: float = float("-inf")
    readings: int = 0  # with the second one, something is known

    def machine(self) -> Machine:
        """How it is now."""
        now = self.clock()
        if now - self._read_at >= EVERY_S:
            self._read_at = now
            self._machine = Machine(self._load.add(self.cpu(), now), self.mains())
            self.readings += 1
        return self._machine
