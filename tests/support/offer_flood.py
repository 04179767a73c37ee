"""A stranger that sends offers as fast as it is read, over a real channel to a lender's chief (I/O)."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass

import trio

from company import peer_messages as pm
from company.chief.network.dialling import CALLING
from p2p.base.errors import PeerError
from p2p.base.keys import Identity, company_id_text
from p2p.contracts import messages as m
from p2p.contracts.signing import GOT, Signer, got_wire, split_wire_untrusted
from p2p.contracts.terms import Role
from p2p.dht.parameters import PUBLIC_NETWORK
from p2p.net.channel import Channel
from p2p.net.rpc import dial
from tests.support.contract_world import terms

LAST = b"l" * 32  # asked about at the end: its answer says that everything before it was read
VALID_S = 600
WAIT_S = 120.0


@dataclass
class Flood:
    """Who sent, and what was said: the code of each refusal, "taken" for an offer that is on the lender's disk."""

    company: str
    answers: dict[str, int]
    seconds: float


def flood(rpc: str, key: bytes, offers: int, *, seed: bytes = b"s" * 32) -> Flood:
    """Send so many different offers to the chief at ``rpc`` that has ``key``, and return when all were read."""
    return trio.run(_flood, rpc, key, offers, Identity(seed))


async def _flood(rpc: str, key: bytes, offers: int, stranger: Identity) -> Flood:
    signer = Signer(stranger, PUBLIC_NETWORK)
    wires = [offer_of(signer, key) for _ in range(offers)]
    answers: Counter[str] = Counter()
    channel = await dial(rpc, identity=stranger, expected_key=key, purpose="contract", registry=CALLING)
    began = time.monotonic()
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, channel, wires)
            while (answer := await _answer(channel)) != "last":
                answers[answer] += 1
    await channel.aclose()
    return Flood(company_id_text(stranger.public), dict(answers), time.monotonic() - began)


async def _send(channel: Channel, wires: list[bytes]) -> None:
    for wire in [*wires, got_wire(LAST, 0)]:
        await channel.send(pm.ContractWire(wire))


async def _answer(channel: Channel) -> str:
    message, _ = await channel.receive()
    match message:
        case pm.ContractTurned():
            return "last" if message.about == LAST else message.code_word
        case pm.ContractWire() if split_wire_untrusted(message.wire)[0] == GOT:
            return "taken"
        case pm.ContractWire():
            return "answered"  # an offer of before was refused, in words that are signed
    raise PeerError("unexpected", f"a lender answered an offer with {type(message).__name__}")


def offer_of(signer: Signer, lender: bytes) -> bytes:
    """One signed offer with a nonce of its own."""
    now = int(time.time())
    signed = signer.sign(
        m.Offer(
            1, signer.public, lender, os.urandom(32), int(Role.BORROWER), 1, m.ZERO, 0, m.ZERO, now, now + VALID_S,
            terms=terms().pack(), valid_s=VALID_S,
        )
    )  # fmt: skip
    return signed.wire
