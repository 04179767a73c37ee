"""Whether the owners of machines use them now, so that lending stays out of their way (pure).

Load is that of `company.machine_use`, of each worker's own machine. Lending stops as soon as the smoothed load passes the bound, or the
mains are gone, and begins again only after a quiet time, so that a load around the bound does not make offers come and go.
"""

from __future__ import annotations

from collections.abc import Mapping

from company.machine_use import Machine

QUIET_S = 60.0  # so long under the bound before lending begins again


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


class Owners:
    """One `Owner` for the machine of each worker that is here."""

    def __init__(self) -> None:
        self._of: dict[str, Owner] = {}

    def busy(self, machines: Mapping[str, Machine], *, max_load: float | None, needs_mains: bool, now: float) -> dict[str, str]:
        """Of which workers nothing is lent now, and why."""
        self._of = {worker: self._of.get(worker) or Owner() for worker in machines}
        found = {w: self._of[w].why_not(machine, max_load=max_load, needs_mains=needs_mains, now=now) for w, machine in machines.items()}
        return {worker: why for worker, why in found.items() if why}
