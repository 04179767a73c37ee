"""Which slots are promised to whom, asked before any signature (pure).

Never two live commitments for one slot: a promise is entered before the acceptance is signed and taken out when the contract lets go.
"""

from __future__ import annotations

from collections.abc import Hashable

from p2p.base.errors import InvariantBroken, Unavailable


class SlotLedger:
    """Promises against a capacity, which the owner may lower at any time: what is promised then stays until it ends."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._promised: dict[Hashable, int] = {}

    @property
    def promised(self) -> int:
        """Slots of all promises."""
        return sum(self._promised.values())

    @property
    def free(self) -> int:
        """Slots that may still be promised."""
        return max(0, self.capacity - self.promised)

    def of(self, key: Hashable) -> int:
        """Slots promised under ``key``."""
        return self._promised.get(key, 0)

    def promise(self, key: Hashable, slots: int) -> None:
        """Promise ``slots`` in all under ``key``. Raises `Unavailable` ("no-free-slots") and changes nothing where they are not free."""
        more = slots - self.of(key)
        if more > self.free:
            raise Unavailable("no-free-slots", f"{more} slots more are asked for, {self.free} are free", free=self.free, asked=more)
        if slots > 0:
            self._promised[key] = slots

    def let_go(self, key: Hashable, slots: int = 0) -> None:
        """Keep only ``slots`` under ``key``."""
        if slots > 0:
            self._promised[key] = min(slots, self.of(key)) or slots
        else:
            self._promised.pop(key, None)

    def enter(self, key: Hashable, slots: int) -> None:
        """Enter what was promised before a restart, whatever the capacity is now."""
        if slots < 1:
            raise InvariantBroken(f"a promise of {slots} slots")
        self._promised[key] = slots
