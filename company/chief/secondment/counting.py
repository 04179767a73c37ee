"""Contract path 5/8 - what a borrower has received under each contract (pure).

An outcome counts with the very write that puts it on disk, and is acknowledged afterwards, which is when the lender's worker counts it:
a borrower that is killed between the two has lost nothing of the lender's. More run time than has passed since a batch was sent cannot
have been spent on it, and a part that is sent twice counts once. Beside what was measured stands what own workers would have taken, by what
they took for fragments of the same job: favours are owed for that, so that slowness does not pay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgpack

from p2p.contracts.terms import Facts

MAX_TOKENS = 4096  # leases under way of one contract; a batch's parts come in order, so one number tells which have come
PRUNE_AT = 32


@dataclass(slots=True)
class Account:
    """One contract. ``facts``: on disk. ``coming``: with what has been handed to the disk, in microseconds of run time."""

    facts: Facts
    passed: int = 0
    failed: int = 0
    told: tuple[Facts, int, int] | None = None
    coming: tuple[int, int, int] = (0, 0, 0)
    worth_us: float = 0.0  # of ``coming``, at what own workers took for fragments of the same jobs
    tokens: dict[int, tuple[int, int]] = field(default_factory=dict)  # token -> where the next part begins, run time so far
    _prune_at: int = PRUNE_AT

    def __post_init__(self) -> None:
        self.coming = (self.facts.fragments, self.facts.core_ms * 1000, self.facts.bytes)
        self.worth_us = self.worth_us or float(self.coming[1])

    def came(
        self, token: int, first: int, fragments: int, run_us: int, size: int, *, elapsed_us: float, is_live: Callable[[int], bool],
        own_us: float | None = None,
    ) -> Facts:  # fmt: skip
        """A part of a batch goes to the disk; returns what stands there once it is on it.

        is_live: whether a token's lease is. own_us: what a fragment of this job takes on own workers; None: they ran none.
        """
        begins, spent_us = self.tokens.pop(token, (first, 0))
        if first >= begins:
            run_us = max(0, min(run_us, int(elapsed_us) - spent_us))
            self.coming = (self.coming[0] + fragments, self.coming[1] + run_us, self.coming[2] + size)
            self.worth_us += run_us if own_us is None else fragments * own_us
            begins, spent_us = first + fragments, spent_us + run_us
        self.tokens[token] = (begins, spent_us)
        if len(self.tokens) > self._prune_at:
            self.tokens = {known: ends for known, ends in list(self.tokens.items())[-MAX_TOKENS:] if is_live(known)}
            self._prune_at = 2 * len(self.tokens) + PRUNE_AT
        return self._sum

    @property
    def _sum(self) -> Facts:
        return Facts(self.coming[0], self.coming[1] // 1000, self.coming[2])

    @property
    def own_core_ms(self) -> float | None:
        """Core-milliseconds of one of these fragments on own workers, or as measured where those ran none; None before the first."""
        return self.worth_us / 1000 / self.coming[0] if self.coming[0] else None

    def on_disk(self, total: Facts) -> None:
        """What `came` returned is there."""
        self.facts = Facts(*map(max, self.facts, total))

    def pack(self) -> bytes:
        """For the database, with what goes to it now: whatever is packed later is written later."""
        tokens = [[token, *ends] for token, ends in self.tokens.items()]
        packed: bytes = msgpack.packb([*self._sum, self.passed, self.failed, tokens, self.worth_us])
        return packed


def unpack_account(data: bytes | None, signed: Facts) -> Account:
    """Out of the database. ``signed``: what is co-signed already."""
    if data is None:
        return Account(signed)
    fragments, core_ms, size, passed, failed, *rest = msgpack.unpackb(data)
    tokens = {token: (begins, spent_us) for token, begins, spent_us in rest[0]} if rest else {}
    worth_us = float(rest[1]) if len(rest) > 1 else 0.0
    return Account(
        Facts(*map(max, Facts(fragments, core_ms, size), signed)), passed=passed, failed=failed, worth_us=worth_us, tokens=tokens
    )
