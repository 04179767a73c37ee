"""One datagram: who signed it, what it asks or answers (pure).

``kind 1 | message id 20 | token 8 | public key 32 | signature 64 | body``. Kind and message id stand where rpcudp has them. The signature
covers ``"parallel/v1/dht-packet" 00 network id``, then everything but itself. Bodies are msgpack arrays:

request ``[unix time, to, flags, work, method, arguments, padding]``: ``to`` is the node id it is meant for (empty when not known), so that
nobody else answers it; ``token`` is the one the answering node gave this address before, else zeros.
answer ``[unix time, part, parts, result]``; its ``token`` proves, when it comes back, that packets to that address arrive.

| method | arguments | result |
|---|---|---|
| 1 ping | | the asker's address as seen |
| 2 find node | target | contacts |
| 3 find value | key, target, after (8 bytes), pages | contacts, records, total |
| 4 store | record | 1 kept, 2 full, 3 no valid token, 4 refused, 5 older than what is kept |

Contacts are two byte strings, 26 bytes each for IPv4 and 38 for IPv6: node id, address, port.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from p2p.base.envelope import signed_bytes
from p2p.base.errors import MalformedMessage
from p2p.base.ids import NODE_ID_BYTES, NodeId
from p2p.base.keys import PUBLIC_BYTES, SIGNATURE_BYTES, Signer, is_signed_by, node_id
from p2p.base.record import record
from p2p.dht.addressing import V4_BYTES, V6_BYTES
from p2p.dht.records import MAX_RECORD_BYTES, Verify

REQUEST, REPLY = 0, 1
PING, FIND_NODE, FIND_VALUE, STORE = 1, 2, 3, 4
METHODS = {PING: "ping", FIND_NODE: "find node", FIND_VALUE: "find value", STORE: "store"}
KEPT, FULL, NO_TOKEN, REFUSED, OLDER = 1, 2, 3, 4, 5
READ_ONLY = 1  # flag: the sender cannot be reached and must not be put in tables
TOKEN_BYTES, MESSAGE_ID_BYTES, CURSOR_BYTES = 8, 20, 8
NO_TOKEN_BYTES = bytes(TOKEN_BYTES)
MIN_PACKET_BYTES, MAX_PACKET_BYTES = 130, 1231
MAX_PAGES = 8
_TOKEN_AT = 1 + MESSAGE_ID_BYTES
_KEY_AT = _TOKEN_AT + TOKEN_BYTES
_SIGNATURE_AT = _KEY_AT + PUBLIC_BYTES
BODY_AT = _SIGNATURE_AT + SIGNATURE_BYTES
OVERHEAD_BYTES = BODY_AT + 24  # header and the fixed parts of a body
_ARGUMENTS = {PING: 0, FIND_NODE: 1, FIND_VALUE: 4, STORE: 1}
_RESULTS = {PING: 1, FIND_NODE: 2, FIND_VALUE: 4, STORE: 1}
MAX_WORK_BYTES = 8


@record
class Request:
    """A request whose signature held."""

    message_id: bytes
    token: bytes
    sender: NodeId
    unix: int
    to: bytes
    flags: int
    work: bytes
    method: int
    arguments: list[Any]


@record
class Reply:
    """An answer whose signature held; ``result`` has the types of its method."""

    message_id: bytes
    token: bytes
    sender: NodeId
    unix: int
    part: int
    parts: int
    result: list[Any]


class Sealer:
    """Makes and opens datagrams of one network."""

    def __init__(self, signer: Signer, network_id: bytes, verify: Verify = is_signed_by) -> None:
        self._signer = signer
        self._domain = signed_bytes("dht-packet", network_id, b"")
        self._verify = verify

    def request(
        self,
        message_id: bytes,
        token: bytes,
        *,
        unix: int,
        to: bytes,
        flags: int,
        work: bytes,
        method: int,
        arguments: Sequence[Any],
        size: int,
    ) -> bytes:
        """A request of at least ``size`` bytes."""
        parts: list[Any] = [unix, to, flags, work, method, arguments]
        body: bytes = msgpack.packb([*parts, b""])
        missing = size - BODY_AT - len(body)
        if missing > 0:
            body = msgpack.packb([*parts, bytes(missing)])
        return self._seal(REQUEST, message_id, token, body)

    def reply(self, message_id: bytes, token: bytes, *, unix: int, part: int, parts: int, result: Sequence[Any]) -> bytes:
        """An answer."""
        return self._seal(REPLY, message_id, token, msgpack.packb([unix, part, parts, result]))

    def _seal(self, kind: int, message_id: bytes, token: bytes, body: bytes) -> bytes:
        head = bytes([kind]) + message_id + token + self._signer.public
        return head + self._signer.sign(self._domain + head + body) + body

    def _open_untrusted(self, data: bytes, fields: int) -> list[Any]:
        """The body, after the signature held; its integers are checked by the caller."""
        if not MIN_PACKET_BYTES <= len(data) <= MAX_PACKET_BYTES:
            raise MalformedMessage(f"a packet has {MIN_PACKET_BYTES}..{MAX_PACKET_BYTES} bytes")
        signed = self._domain + data[:_SIGNATURE_AT] + data[BODY_AT:]
        if not self._verify(data[_KEY_AT:_SIGNATURE_AT], signed, data[_SIGNATURE_AT:BODY_AT]):
            raise MalformedMessage("the signature of this packet does not hold")
        try:
            body = msgpack.unpackb(data[BODY_AT:], use_list=True, raw=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
        except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
            raise MalformedMessage(f"packet cannot be decoded: {type(error).__name__}") from None
        if type(body) is not list or len(body) != fields or type(body[0]) is not int:
            raise MalformedMessage(f"a body is an array of {fields} that begins with a time")
        return body

    def open_request_untrusted(self, data: bytes) -> Request:
        """Read a request. Raises `MalformedMessage`."""
        unix, to, flags, work, method, arguments, _padding = self._open_untrusted(data, 7)
        if type(to) is not bytes or len(to) not in (0, NODE_ID_BYTES) or type(flags) is not int or type(work) is not bytes:
            raise MalformedMessage("a request has a receiver, flags and work")
        if type(method) is not int or type(arguments) is not list or _ARGUMENTS.get(method) != len(arguments) or len(work) > MAX_WORK_BYTES:
            raise MalformedMessage("a request has a method and its arguments")
        if method == STORE:
            if type(arguments[0]) is not bytes or len(arguments[0]) > MAX_RECORD_BYTES:
                raise MalformedMessage("a store brings one record")
        elif method != PING:
            for id_ in arguments[:2]:
                if type(id_) is not bytes or len(id_) != NODE_ID_BYTES:
                    raise MalformedMessage(f"an id has {NODE_ID_BYTES} bytes")
        if method == FIND_VALUE:
            after, pages = arguments[2:]
            if type(after) is not bytes or len(after) != CURSOR_BYTES or type(pages) is not int or not 0 <= pages <= MAX_PAGES:
                raise MalformedMessage("a read has a cursor and a number of pages")
        sender = node_id(data[_KEY_AT:_SIGNATURE_AT])
        return Request(data[1:_TOKEN_AT], data[_TOKEN_AT:_KEY_AT], sender, unix, to, flags, work, method, arguments)

    def open_reply_untrusted(self, data: bytes, method: int) -> Reply:
        """Read an answer to a request of ``method``. Raises `MalformedMessage`."""
        unix, part, parts, result = self._open_untrusted(data, 4)
        if type(part) is not int or type(parts) is not int or not 0 <= part < parts <= MAX_PAGES:
            raise MalformedMessage("an answer has parts")
        if type(result) is not list or len(result) != _RESULTS[method]:
            raise MalformedMessage("a result of another shape")
        if method == PING:
            if type(result[0]) is not bytes or len(result[0]) not in (6, 18):
                raise MalformedMessage("a ping is answered with an address")
        elif method == STORE:
            if type(result[0]) is not int or not KEPT <= result[0] <= OLDER:
                raise MalformedMessage("a store is answered with a verdict")
        elif type(result[0]) is not bytes or len(result[0]) % V4_BYTES or type(result[1]) is not bytes or len(result[1]) % V6_BYTES:
            raise MalformedMessage("contacts of a wrong size")
        if method == FIND_VALUE:
            records, total = result[2:]
            if type(records) is not list or not all(type(r) is bytes for r in records) or type(total) is not int or not 0 <= total < 2**31:
                raise MalformedMessage("records and their number")
        sender = node_id(data[_KEY_AT:_SIGNATURE_AT])
        return Reply(data[1:_TOKEN_AT], data[_TOKEN_AT:_KEY_AT], sender, unix, part, parts, result)


def contacts_in(v4: bytes, v6: bytes) -> Iterator[tuple[int, bytes]]:
    """(node id, packed address) of each contact."""
    for data, size in ((v4, V4_BYTES), (v6, V6_BYTES)):
        for at in range(0, len(data), size):
            yield int.from_bytes(data[at : at + NODE_ID_BYTES], "big"), data[at + NODE_ID_BYTES : at + size]


def shows_work(public: bytes, work: bytes, bits: int) -> bool:
    """Whether enough leading bits of the hash of key and work are zero."""
    if bits == 0:
        return True
    drawn = hashlib.blake2b(public + work, digest_size=8, person=b"dht-work").digest()
    return int.from_bytes(drawn, "big") >> (64 - bits) == 0


def find_work(public: bytes, bits: int) -> bytes:
    """Work for a key: about 2^bits hashes, once per key and network."""
    if bits == 0:
        return b""
    nonce = 0
    while not shows_work(public, work := nonce.to_bytes(MAX_WORK_BYTES, "big"), bits):
        nonce += 1
    return work


def public_of(data: bytes) -> bytes:
    """The key that a datagram claims, before anything is checked."""
    return data[_KEY_AT:_SIGNATURE_AT]


def token_of(data: bytes) -> bytes:
    """The token that a datagram carries, before anything is checked."""
    return data[_TOKEN_AT:_KEY_AT]
