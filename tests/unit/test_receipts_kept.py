"""How many receipts a chief keeps in memory: its own for ever, those of others up to a bound, the latest."""

from __future__ import annotations

from typing import Any

import pytest

from company.chief.contracts import trust
from p2p.base.clock import UnixTime
from p2p.base.errors import InvariantBroken
from p2p.base.keys import Identity
from p2p.contracts import messages as m
from p2p.contracts.signing import Signed, Signer
from p2p.contracts.terms import Role
from p2p.reputation.evidence import Evidence

ME, VIA, J = (Signer(Identity(bytes([n]) * 32), b"n" * 16) for n in range(1, 4))


def worked(lender: Signer, borrower: Signer, number: int) -> Signed:
    facts, contract, ended = (1, 1000, 0), number.to_bytes(32, "big"), UnixTime(9)
    half = m.Half(1, borrower.public, lender.public, contract, int(Role.BORROWER), 1, m.ZERO, facts, facts, 0, 0, 0, 0, 0, ended, m.ZERO)
    return borrower.sign(half)


def test_what_is_new_is_counted_however_much_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "MAX_HALVES", 3)
    nothing: Any = None
    found = trust.Trust(
        driver=nothing, store=nothing, directory=nothing, unix_time=nothing, open_channel=nothing, find=nothing, name_of=nothing,
        evidence=Evidence(ME.public),
    )  # fmt: skip
    for number in range(10):
        found.on_half(worked(J, VIA, number))
        found.on_half(worked(VIA, ME, 100 + number))
    evidence = found.evidence
    assert evidence.computed(VIA.public, ME.public) == 10_000  # own experience, all of it
    assert evidence.computed(J.public, VIA.public) == 3000
    assert sorted(int.from_bytes(c, "big") for c in evidence.entries if c < (100).to_bytes(32, "big")) == [7, 8, 9]
    with pytest.raises(InvariantBroken, match="its own receipts"):
        evidence.forget((100).to_bytes(32, "big"))
