"""The kademlia package as the wire under our core (I/O; one of the few modules that know asyncio).

`Overlay` is a `kademlia.network.Server` and `Wire` its `KademliaProtocol`: they open and close the socket, take and send datagrams, which
keep rpcudp's layout (a byte for request or answer, then 20 bytes of message id). No rule is here: each datagram goes to the core, and what
the core wants sent comes back. What the package would do by itself (tables, look-ups, storage, its own refresh, pickled state) is switched
off, because a stranger could crash or fill it; docs/protocol.md says what takes its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NoReturn

from kademlia.network import Server
from kademlia.protocol import KademliaProtocol
from trio_asyncio import aio_as_trio

from p2p.base.errors import Unavailable, UsageError
from p2p.dht.addressing import normal
from p2p.dht.directory import Address

_log = logging.getLogger("parallel.dht")
MAX_WAITING_BYTES = 1 << 20  # datagrams that the kernel does not take at once; beyond it they are lost, as datagrams may be

Receive = Callable[[bytes, Address], None]


class Wire(KademliaProtocol):  # type: ignore[misc]
    """Datagrams in and out. An error in what they cause is logged and ends nothing."""

    def __init__(self, node: Any, storage: Any, ksize: int, receive: Receive) -> None:
        super().__init__(node, storage, ksize)
        self._receive = receive
        self.errors = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Hand it to the core."""
        try:
            self._receive(data, normal(str(addr[0]), int(addr[1])))
        except Exception:  # noqa: BLE001 - the boundary: nothing that a stranger sends may end the daemon
            self.errors += 1
            if self.errors <= 100:
                _log.exception("a datagram could not be handled")

    def error_received(self, exc: Exception) -> None:
        """An ICMP error for something sent: the request will be late, which is known anyway."""
        _log.debug("the network says: %s", exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""

    def _timeout(self, msg_id: bytes) -> None:
        """The package's own requests do not exist here; their timer would raise on a cancelled call."""

    def __getattr__(self, name: str) -> NoReturn:
        """The package would turn any misspelt name into a call over the network."""
        raise AttributeError(name)


class Overlay(Server):  # type: ignore[misc]
    """The package's server with our core in the place of its protocol."""

    def __init__(self, node_id: bytes, receive: Receive) -> None:
        super().__init__(node_id=node_id)
        self._receive = receive
        self._is_v6 = False

    def _create_protocol(self) -> Wire:
        return Wire(self.node, self.storage, self.ksize, self._receive)

    def refresh_table(self, interval: int = 3600) -> None:
        """The core refreshes."""

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:
        """Open the socket."""
        self._is_v6 = ":" in interface
        await super().listen(port, interface)

    def send(self, data: bytes, address: Address) -> None:
        """Send one datagram, or lose it."""
        transport = self.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > MAX_WAITING_BYTES:
            return
        host, port = address
        if self._is_v6 and ":" not in host:
            host = f"::ffff:{host}"
        elif not self._is_v6 and ":" in host:
            return  # no way there from this socket
        try:
            transport.sendto(data, (host, port))
        except (OSError, ValueError) as error:
            _log.debug("could not send to %s: %s", address, error)

    def address(self) -> Address:
        """Where it listens."""
        host, port = self.transport.get_extra_info("sockname")[:2]
        return normal(host, port)

    async def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UsageError("dht-through-node", "the network is used through DhtNode, not through the package's own calls")

    get = set = set_digest = bootstrap = bootstrap_node = _refresh_table = _refuse


async def open_overlay(node_id: bytes, receive: Receive, host: str, port: int) -> Overlay:
    """Listen on UDP, from trio. Raises `Unavailable` when the address cannot be had."""
    overlay = Overlay(node_id, receive)
    try:
        await aio_as_trio(overlay.listen)(port, host)
    except OSError as error:
        raise Unavailable(
            "address-in-use", f"cannot listen on {host}:{port}/udp: {error.strerror or error}", hint="another port, or 0 for a free one",
            host=host, port=port,
        ) from None  # fmt: skip
    return overlay


async def close_overlay(overlay: Overlay) -> None:
    """Close the socket and let the loop notice."""

    async def stop() -> None:
        overlay.stop()
        await asyncio.sleep(0)

    await aio_as_trio(stop)()
