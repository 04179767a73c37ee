"""Reads what a machine does: CPU time by priority and of own processes, battery (I/O: /proc, or psutil where there is none)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from company.home_lock import holder_pid
from company.machine_use import Cpu, Load, Machine
from company.own_use import OwnUse, Process, tree_of

EVERY_S = 1.0  # readings, at most
LEAST_LOAD = 0.05  # below it nobody looks whose it is
SCAN_EVERY = 50  # between two looks at all processes of the machine lies so many times what the last one took
_TICKS = os.sysconf("SC_CLK_TCK")
_STAT, _POWER = Path("/proc/stat"), Path("/sys/class/power_supply")


def read_cpu() -> Cpu:
    """Since the machine started. Time of niced processes is not the owner's."""
    try:
        with _STAT.open() as file:
            user, nice, system, idle, iowait, irq, softirq, steal = (int(x) for x in file.readline().split()[1:9])
    except (OSError, ValueError):
        return _read_cpu_elsewhere()
    owner = user + system + irq + softirq
    return Cpu(owner / _TICKS, (owner + nice + idle + iowait + steal) / _TICKS)


def _read_cpu_elsewhere() -> Cpu:
    import psutil

    times = psutil.cpu_times()
    owner_s = times.user + times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
    return Cpu(owner_s, owner_s + times.idle + getattr(times, "nice", 0.0) + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0))


def read_processes(pids: Iterable[int] | None = None) -> dict[int, Process]:
    """These processes as far as they are there, or all of the machine."""
    if not _STAT.exists():
        return _read_processes_elsewhere()
    found = {}
    for pid in pids if pids is not None else [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended, or is hidden: then it is not one of ours
        user, system, gone_user, gone_system = (int(ticks) / _TICKS for ticks in fields[11:15])
        found[pid] = Process(int(fields[1]), int(fields[19]), int(fields[16]) > 0, user, system, gone_user, gone_system)
    return found


def _read_processes_elsewhere() -> dict[int, Process]:
    import psutil

    found = {}
    for process in psutil.process_iter(["ppid", "create_time", "nice", "cpu_times"]):
        info = process.info
        if (times := info["cpu_times"]) is not None:
            gone = getattr(times, "children_user", 0.0), getattr(times, "children_system", 0.0)
            is_nice = isinstance(info["nice"], int) and 0 < info["nice"] < 32  # elsewhere a priority class stands there
            found[process.pid] = Process(info["ppid"] or 0, info["create_time"] or 0.0, is_nice, times.user, times.system, *gone)
    return found


def roots_of(home: Path) -> list[int]:
    """This process, and the chief and the workers of this home."""
    trees = [home / "chief", *sorted((home / "workers").glob("*"))]
    return [os.getpid(), *(pid for tree in trees if (pid := holder_pid(tree)) is not None)]


@dataclass(slots=True)
class OwnReader:
    """Seconds of CPU that own processes took. Looking for new ones costs the machine at most a fiftieth of a core."""

    roots: Callable[[], list[int]]
    clock: Callable[[], float] = time.monotonic
    processes: Callable[[Iterable[int] | None], dict[int, Process]] = read_processes
    _use: OwnUse = field(default_factory=OwnUse)
    _roots: list[int] = field(default_factory=list)
    _scan_at: float = float("-inf")

    def __call__(self) -> float:
        began = self.clock()
        if began < self._scan_at:
            return self._use.add(tree_of(self.processes(self._use.tree), self._roots), is_complete=False)
        self._roots = self.roots()
        value = self._use.add(tree_of(self.processes(None), self._roots), is_complete=True)
        self._scan_at = self.clock() + SCAN_EVERY * (self.clock() - began)
        return value


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
    own: Callable[[], float] = lambda: 0.0
    _load: Load = field(default_factory=Load)
    _machine: Machine = field(default_factory=Machine)
    _read_at: float = float("-inf")

    def machine(self) -> Machine:
        """How it is now."""
        now = self.clock()
        if now - self._read_at >= EVERY_S:
            self._read_at = now
            cpu = self.cpu()
            if self._load.share(cpu) > LEAST_LOAD:
                cpu = replace(cpu, own_s=self.own())
            self._machine = Machine(self._load.add(cpu, now, least=LEAST_LOAD), self.mains())
        return self._machine

    @property
    def is_known(self) -> bool:
        """Whether something can be said of the load."""
        return self._load.is_known
