"""Contract path 5/8 - ways to a borrower's chief: what the ticket names, with the key it names, and nothing else (I/O).

Directly, or through a relay that carries TLS between the two ends unread. Whether an address may be dialled at all was judged by this
worker's own chief, which signed the ticket.
"""

from __future__ import annotations

import trio

from company import messages as m
from company import peer_messages as pm
from company.ticket import Ticket
from p2p.base.errors import MalformedMessage, PeerError, Unavailable
from p2p.base.keys import Identity, company_id_text
from p2p.net.addresses import join_address
from p2p.net.channel import Channel, RefusedByPeer
from p2p.net.rpc import dial
from p2p.net.splice import Prefixed
from p2p.net.stream import ByteStream
from p2p.net.throttle import Pace

DIRECT_S = 4.0
RELAYED_S = 12.0
_CALLING = {code: cls for code, cls in (m.MESSAGES | pm.PEER_MESSAGES).items() if cls is not m.Refused}  # a refusal is raised


class GuestWays:
    """Opens channels to one borrower; the way that worked last comes first."""

    def __init__(self, identity: Identity, ticket: Ticket, pace: Pace | None = None) -> None:
        self._identity = identity
        self._pace = pace
        self._ticket = ticket
        self._ways: list[tuple[bytes | None, str]] = [(None, join_address(*e)) for e in ticket.endpoints]
        self._ways += [(key, join_address(host, port)) for key, host, port in ticket.relays]

    async def open(self, purpose: str) -> Channel:
        """Raises `Unavailable` borrower-unreachable when no way works, `RefusedByPeer` when the borrower itself says no."""
        errors: list[str] = []
        for way in list(self._ways):
            try:
                channel = await self._by(*way, purpose)
            except RefusedByPeer as error:
                if way[0] is None:
                    raise
                errors.append(error.text)
                continue
            except (Unavailable, PeerError) as error:
                errors.append(error.text)
                continue
            self._ways.remove(way)
            self._ways.insert(0, way)
            return channel
        who = company_id_text(self._ticket.borrower)
        raise Unavailable("borrower-unreachable", f"cannot reach {who}: {'; '.join(errors)[:500] or 'the contract names no address'}")

    async def _by(self, relay: bytes | None, address: str, purpose: str) -> Channel:
        if relay is None:
            return await dial(
                address, identity=self._identity, expected_key=self._ticket.borrower, purpose=purpose, registry=m.MESSAGES,
                deadline_s=DIRECT_S, pace=self._pace,
            )  # fmt: skip
        with trio.move_on_after(RELAYED_S):
            stream = await self._splice(relay, address)
            return await dial(
                f"{company_id_text(self._ticket.borrower)} by {address}", identity=self._identity, expected_key=self._ticket.borrower,
                purpose=purpose, registry=m.MESSAGES, through=stream, pace=self._pace,
            )  # fmt: skip
        raise Unavailable("borrower-unreachable", f"the relay {address} brought no connection within {RELAYED_S:g} s")

    async def _splice(self, relay: bytes, address: str) -> ByteStream:
        near = await dial(address, identity=self._identity, expected_key=relay, purpose="relay", registry=_CALLING, deadline_s=DIRECT_S)
        try:
            await near.send(pm.RelayTo(self._ticket.borrower))
            message, _ = await near.receive()
            if not isinstance(message, pm.RelayReady):
                raise MalformedMessage(f"expected RelayReady, got {type(message).__name__}")
            return Prefixed(*await near.detach())
        except BaseException:
            await near.aclose()
            raise
