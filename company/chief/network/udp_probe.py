"""Whether a DHT node answers a socket that it never spoke to (I/O).

The node's own socket would not do: where two nodes have talked, a NAT lets answers through that it keeps from everybody else.
"""

from __future__ import annotations

import ipaddress
import os

import trio

from p2p.base.errors import MalformedMessage
from p2p.base.keys import Signer
from p2p.dht import packets as pk
from p2p.net.clock import read_unix

TRIES = 3
TRY_S = 1.0


class UdpProbe:
    """Pings from a fresh socket each time. ``work``: this chief's proof of work in the network."""

    def __init__(self, signer: Signer, network_id: bytes, work: bytes) -> None:
        self._sealer = pk.Sealer(signer, network_id)
        self._work = work

    async def __call__(self, host: str, port: int) -> bool:
        """Whether an answer came within 3 s."""
        family = trio.socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else trio.socket.AF_INET
        with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as socket:
            try:
                await socket.connect((host, port))
                for _ in range(TRIES):
                    message_id = os.urandom(pk.MESSAGE_ID_BYTES)
                    await socket.send(
                        self._sealer.request(
                            message_id, pk.NO_TOKEN_BYTES, unix=read_unix(), to=b"", flags=pk.READ_ONLY, work=self._work, method=pk.PING,
                            arguments=[], size=0,
                        )
                    )  # fmt: skip
                    with trio.move_on_after(TRY_S):
                        while not self._is_answer(await socket.recv(2048), message_id):
                            continue
                        return True
            except OSError:
                return False  # refused: nobody listens there
        return False

    def _is_answer(self, data: bytes, message_id: bytes) -> bool:
        try:
            return self._sealer.open_reply_untrusted(data, pk.PING).message_id == message_id
        except MalformedMessage:
            return False
