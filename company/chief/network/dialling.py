"""Ways to another chief: its own addresses, or a relay that it named (I/O).

Every address comes from a signed record of that company and is dialled with its key expected; private ranges only where the network is
private. A relay sees TLS between the two ends and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import trio

from company import peer_messages as pm
from company.chief.network.contact import Contact, names_only_private
from company.messages import MESSAGES, Refused
from p2p.base.errors import MalformedMessage, PeerError, Unavailable
from p2p.base.keys import Identity, company_id_text
from p2p.dht.addressing import is_dialable
from p2p.dht.advertisement import Relay
from p2p.net.addresses import join_address
from p2p.net.channel import Channel
from p2p.net.rpc import dial
from p2p.net.splice import Prefixed
from p2p.net.stream import ByteStream

REGISTRY = MESSAGES | pm.PEER_MESSAGES
CALLING = {code: cls for code, cls in REGISTRY.items() if cls is not Refused}  # so that a refusal is raised with its code
DIRECT_S = 4.0  # then the next way is tried
RELAYED_S = 12.0
ALLOW_PRIVATE = "if it is on a network of your own: company start --allow-private"


@dataclass(slots=True)
class PeerDialler:
    """Opens channels to other chiefs."""

    identity: Identity
    allow_private: bool

    async def open(self, contact: Contact, purpose: str = "peer", deadline_s: float = 20.0) -> Channel:
        """A channel by the first way that works. Raises `Unavailable` "company-unreachable", or `PeerError` where its key is another."""
        errors: list[str] = []
        ways: list[Callable[[], Awaitable[Channel]]] = [
            partial(self._direct, contact.key, host, port, purpose)
            for host, port in contact.endpoints
            if is_dialable((host, port), allow_private=self.allow_private)
        ]
        ways += [partial(self._relayed, contact.key, relay, purpose) for relay in contact.relays]
        with trio.move_on_after(deadline_s):
            for way in ways:
                try:
                    return await way()
                except (Unavailable, PeerError) as error:
                    errors.append(error.text)
        said, hint = "it names no address that may be dialled", "company network status says whether this chief itself can reach others"
        if not ways and names_only_private(contact):
            said, hint = "it names private addresses only, which this chief does not dial", ALLOW_PRIVATE
        raise Unavailable(
            "company-unreachable", f"cannot reach {company_id_text(contact.key)}: {'; '.join(errors)[:500] or said}", hint=hint
        )  # fmt: skip

    async def _direct(self, key: bytes, host: str, port: int, purpose: str) -> Channel:
        return await dial(
            join_address(host, port), identity=self.identity, expected_key=key, purpose=purpose, registry=CALLING, deadline_s=DIRECT_S
        )

    async def _relayed(self, key: bytes, relay: Relay, purpose: str) -> Channel:
        if not is_dialable((relay.host, relay.port), allow_private=self.allow_private):
            raise Unavailable("company-unreachable", f"the relay {relay.host} may not be dialled from here")
        with trio.move_on_after(RELAYED_S):
            near = await self._direct(relay.public, relay.host, relay.port, "relay")
            try:
                stream = await splice_in(near, pm.RelayTo(key))
            except BaseException:
                await near.aclose()
                raise
            label = f"{company_id_text(key)} by {join_address(relay.host, relay.port)}"
            return await dial(label, identity=self.identity, expected_key=key, purpose=purpose, registry=CALLING, through=stream)
        raise Unavailable("company-unreachable", f"the relay {relay.host} brought no connection within {RELAYED_S:g} s")


async def splice_in(channel: Channel, first: pm.RelayTo | pm.RelayTake) -> ByteStream:
    """Say who is wanted, or who was called, and take the stream over once the other side is there."""
    await channel.send(first)
    message, _ = await channel.receive()
    if not isinstance(message, pm.RelayReady):
        raise MalformedMessage(f"expected RelayReady, got {type(message).__name__}")
    return Prefixed(*await channel.detach())
