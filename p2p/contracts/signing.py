"""Contract path 4/8 - messages become bytes and signatures, and come back (pure).

What was signed is kept as it came; a message is read only after its signature held. Ids are hashes of bodies, never of signatures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import msgpack

from p2p.base.envelope import open_untrusted, pack, seal
from p2p.base.errors import MalformedMessage
from p2p.base.ids import digest
from p2p.base.keys import Identity, is_signed_by
from p2p.base.record import record
from p2p.base.schema import Message
from p2p.contracts.messages import MESSAGES, TYPES
from p2p.contracts.terms import array_untrusted

MAX_WIRE_BYTES = 16 << 10
GOT = 0  # first element of the unsigned word "I have this on disk", which only stops the other from sending it again


@record
class Signed:
    """A message with the bytes that were signed."""

    message: Message
    body: bytes
    signature: bytes
    hash: bytes  # of the body

    @property
    def wire(self) -> bytes:
        """The form that travels."""
        return pack([self.message.code, self.body, self.signature])


class Reader:
    """Reads what companies of one network have signed."""

    def __init__(self, network_id: bytes) -> None:
        self.network_id = network_id

    def open_untrusted(self, author: bytes, code: int, body: bytes, signature: bytes) -> Signed:
        """Verify, then read. Raises only `MalformedMessage`."""
        return open_signed_untrusted(self.network_id, author, code, body, signature)


class Signer(Reader):
    """Signs as one company in one network, and reads what others of that network signed."""

    def __init__(self, identity: Identity, network_id: bytes) -> None:
        super().__init__(network_id)
        self._identity = identity
        self.public = identity.public

    def sign(self, message: Message) -> Signed:
        """Pack and sign."""
        body, signature = seal(self._identity, TYPES[message.code], self.network_id, message.as_array())
        return Signed(message, body, signature, digest(body))


def open_signed_untrusted(
    network_id: bytes, author: bytes, code: int, body: bytes, signature: bytes, *,
    verify: Callable[[bytes, bytes, bytes], bool] = is_signed_by,
) -> Signed:  # fmt: skip
    """Verify that ``author`` signed ``body`` in this network, then read it; ``verify``: the simulator's is cheaper.

    Raises only `MalformedMessage`.
    """
    cls = MESSAGES.get(code) if type(code) is int else None
    if cls is None:
        raise MalformedMessage(f"unknown contract message {str(code)[:20]!r}")
    array = open_untrusted(author, TYPES[code], network_id, body, signature, verify=verify)
    message = cls.parse_untrusted(array)
    if getattr(message, "author", None) != author:
        raise MalformedMessage("a message must name the key that signed it")
    return Signed(message, body, signature, digest(body))


@lru_cache(maxsize=256)  # a half is read where its message is judged, folded, and folded again after a restart
def trusted(code: int, body: bytes, signature: bytes) -> Signed:
    """Read a message from one's own journal, where it was verified before it was written."""
    return Signed(MESSAGES[code].parse_untrusted(msgpack.unpackb(body, raw=False)), body, signature, digest(body))


def got_wire(about: bytes, sequence: int) -> bytes:
    """The unsigned word that everything up to ``sequence`` is on disk here."""
    return pack([GOT, about, sequence])


def split_wire_untrusted(wire: bytes) -> tuple[int, bytes, bytes | int]:
    """Cut a wire form into (code, body, signature), or (0, about, sequence). Raises only `MalformedMessage`."""
    array = array_untrusted(wire, MAX_WIRE_BYTES)
    if len(array) != 3 or type(array[0]) is not int or type(array[1]) is not bytes:
        raise MalformedMessage("a contract message travels as [code, body, signature]")
    code, body, last = array
    if code == GOT:
        if type(last) is not int or not 0 <= last < 2**32 or len(body) != 32:
            raise MalformedMessage("a word of receipt is [0, about, sequence]")
        return code, body, last
    if type(last) is not bytes:
        raise MalformedMessage("a signature is bytes")
    return code, body, last


def contract_id(offer_body: bytes, accept_body: bytes) -> bytes:
    """The hash of both bodies, each with its length before it."""
    return digest(len(offer_body).to_bytes(4, "big") + offer_body + accept_body)
