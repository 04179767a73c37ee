"""Contract path 5/8 - what a borrower has received under each contract (pure).

An outcome counts when it is on disk and acknowledged, which is also when the lender's worker counts it. More run time than has passed
since the batch was sent cannot have been spent on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgpack

from p2p.contracts.terms import Facts

MAX_OPEN = 16_384  # outcomes that wait for the disk, of one contract


@dataclass(slots=True)
class Account:
    """One contract. ``base``: what was counted before this start of the chief."""

    base: Facts
    fragments: int = 0
    run_us: int = 0
    bytes: int = 0
    passed: int = 0
    failed: int = 0
    told: tuple[Facts, int, int] | None = None
    _open: dict[tuple[str, int, int], tuple[int, int, int]] = field(default_factory=dict)

    def came(self, part: tuple[str, int, int], fragments: int, run_us: int, size: int, *, elapsed_us: float) -> None:
        """An outcome arrived. part: (worker, token, first)."""
        if len(self._open) < MAX_OPEN:
            self._open[part] = (fragments, min(run_us, max(0, int(elapsed_us))), size)

    def acked(self, part: tuple[str, int, int]) -> bool:
        """It is on disk; False when it was counted before or never came."""
        found = self._open.pop(part, None)
        if found is None:
            return False
        self.fragments += found[0]
        self.run_us += found[1]
        self.bytes += found[2]
        return True

    def left(self, worker: str) -> None:
        """Its channel is gone: what was not acknowledged comes again or never."""
        for part in [p for p in self._open if p[0] == worker]:
            del self._open[part]

    @property
    def facts(self) -> Facts:
        return Facts(self.base.fragments + self.fragments, self.base.core_ms + self.run_us // 1000, self.base.bytes + self.bytes)


def pack_account(account: Account) -> bytes:
    """For the database."""
    packed: bytes = msgpack.packb([*account.facts, account.passed, account.failed])
    return packed


def unpack_account(data: bytes | None, signed: Facts) -> Account:
    """Out of the database. ``signed``: what is co-signed already."""
    if data is None:
        return Account(signed)
    fragments, core_ms, size, passed, failed = msgpack.unpackb(data)
    return Account(Facts(*map(max, Facts(fragments, core_ms, size), signed)), passed=passed, failed=failed)
