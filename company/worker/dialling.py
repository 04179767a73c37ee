"""Ways to the chief: directly, or through another worker that carries the stream unread (I/O).

The address dialled is one that the join token or the chief itself named, and the key is compared before a byte is sent. A relaying
worker's key is not known beforehand and need not be: the TLS to the chief runs inside, end to end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from company import messages as m
from p2p.base.errors import MalformedMessage, PeerError, Unavailable
from p2p.base.keys import Identity
from p2p.net.channel import Channel, RefusedByPeer
from p2p.net.local import dial_local
from p2p.net.rpc import dial
from p2p.net.splice import Prefixed
from p2p.net.stream import ByteStream

log = logging.getLogger(__name__)
DIAL_DEADLINE_S = 5.0
NO_KEY = bytes(32)  # no Ed25519 key: dialling it shows which one the other side has


class Dialler:
    """Opens channels to one chief; remembers which way worked last, so that a dead one is not tried first every time."""

    def __init__(
        self, identity: Identity, *, chief_key: bytes, addresses: Sequence[str], via: str | None, via_first: bool = False,
        socket: Path | None = None,
    ) -> None:  # fmt: skip
        """``socket``: where the chief may be found on this machine, tried before all else each time."""
        self._identity = identity
        self._chief_key = chief_key
        self._socket = socket
        ways: list[tuple[str | None, str]] = [(None, address) for address in addresses]
        relayed: list[tuple[str | None, str]] = [(via, addresses[0])] if via else []
        self._ways = relayed + ways if via_first else ways + relayed
        self.used_via: str | None = None

    async def open(self, purpose: str) -> Channel:
        """A channel to the chief by the first way that works.

        Raises: `Unavailable` when none does; `PeerError` at once when the chief itself refuses or holds another key.
        """
        errors: list[str] = []
        wrong: PeerError | None = None
        if (channel := await self._by_socket(purpose)) is not None:
            self.used_via = None
            return channel
        for way in list(self._ways):
            via, address = way
            try:
                channel = await self._by(via, address, purpose)
            except Unavailable as error:
                errors.append(error.text)
                continue
            except RefusedByPeer:
                raise
            except PeerError as error:
                wrong = wrong or error  # another machine may have got this address; the next one may still be right
                continue
            self._ways.remove(way)
            self._ways.insert(0, way)
            self.used_via = via
            return channel
        if wrong is not None:
            raise wrong
        raise Unavailable("chief-unreachable", "; ".join(errors)[:500] or "no address of the chief is known")

    async def _by_socket(self, purpose: str) -> Channel | None:
        """None where nobody serves it: no chief runs here, or it is not ours. Raises `RefusedByPeer`."""
        if self._socket is None:
            return None
        try:
            return await dial_local(
                self._socket, identity=self._identity, expected_key=self._chief_key, purpose=purpose, registry=m.MESSAGES,
                deadline_s=DIAL_DEADLINE_S,
            )  # fmt: skip
        except RefusedByPeer:
            raise
        except (Unavailable, PeerError, MalformedMessage) as error:
            log.debug("not by the socket: %s", error.text)
            return None

    async def _by(self, via: str | None, address: str, purpose: str) -> Channel:
        through = await open_relay(via, self._identity) if via is not None else None
        return await dial(
            address, identity=self._identity, expected_key=self._chief_key, purpose=purpose, registry=m.MESSAGES,
            deadline_s=DIAL_DEADLINE_S, through=through,
        )  # fmt: skip


async def open_relay(via: str, identity: Identity) -> ByteStream:
    """Ask the worker at ``via`` to carry a stream to its chief. Raises `Unavailable`, `PeerError`."""
    key = await _key_at(via, identity)
    channel = await dial(via, identity=identity, expected_key=key, purpose="relay", registry=m.MESSAGES, deadline_s=DIAL_DEADLINE_S)
    try:
        await channel.send(m.Ping(0))
        answer, _ = await channel.receive()
        if isinstance(answer, m.Refused):
            raise Unavailable(answer.code_word or "relay-refused", f"{via} will not relay: {answer.text}")
        if not isinstance(answer, m.Pong):
            raise PeerError("relay-confused", f"{via} answered with {type(answer).__name__}")
        stream, leftover = await channel.detach()
    except BaseException:
        await channel.aclose()
        raise
    return Prefixed(stream, leftover)


async def _key_at(address: str, identity: Identity) -> bytes:
    try:
        channel = await dial(
            address, identity=identity, expected_key=NO_KEY, purpose="relay", registry=m.MESSAGES, deadline_s=DIAL_DEADLINE_S
        )
    except PeerError as error:
        if error.code == "wrong-key":
            try:
                return bytes.fromhex(str(error.facts["actual"]))
            except ValueError:
                pass
        raise
    await channel.aclose()
    return NO_KEY
