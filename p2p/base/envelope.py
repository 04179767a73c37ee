"""Signed bytes: what is signed travels verbatim, and is read only after the signature held (pure).

msgpack promises no canonical form. So a body is an array of int, bin, str, bool, nil and arrays of these; the bytes that
were signed are kept as they are; the reader verifies them and then requires ``packb(unpackb(b)) == b``. The signature covers
``b"parallel/v1/" + type + b"\\0" + network id (16 bytes) + body``, so that nothing signed for one purpose or network can be
shown as something else. Ids are hashes of bodies, never of signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgpack

from p2p.base.errors import MalformedMessage, PeerError, UsageError
from p2p.base.keys import Signer, is_signed_by

DOMAIN = b"parallel/v1/"
NETWORK_ID_BYTES = 16
MAX_BODY_BYTES = 64 << 10
MAX_NESTING = 8
MAX_TYPE_CHARS = 64
_PLAIN = frozenset({bytes, str, bool, type(None)})  # what needs no second look
_BUFFER_BYTES = 1024  # msgpack's own 256 KiB cost twice what packing a message does; it grows where one needs more


def pack(value: Any) -> bytes:
    """The msgpack of a small value."""
    packed: bytes = msgpack.Packer(use_bin_type=True, buf_size=_BUFFER_BYTES).pack(value)
    return packed


def signed_bytes(type_: str, network_id: bytes, body: bytes) -> bytes:
    """What a signature covers. Raises `UsageError` for a type or network id that would make it ambiguous."""
    return _prefix(type_, network_id) + body


@lru_cache(maxsize=256)
def _prefix(type_: str, network_id: bytes) -> bytes:
    if not type_.isascii() or not 1 <= len(type_) <= MAX_TYPE_CHARS or "\0" in type_:
        raise UsageError("bad-envelope-type", f"an envelope type is 1..{MAX_TYPE_CHARS} ASCII characters without NUL, got {type_[:80]!r}")
    if len(network_id) != NETWORK_ID_BYTES:
        raise UsageError("bad-network-id", f"a network id has {NETWORK_ID_BYTES} bytes, got {len(network_id)}")
    return DOMAIN + type_.encode("ascii") + b"\0" + network_id


def seal(identity: Signer, type_: str, network_id: bytes, array: Sequence[Any]) -> tuple[bytes, bytes]:
    """Return (body, signature). Raises `UsageError` when ``array`` holds what a body may not."""
    wrong = _wrong_part(array, 0)
    if wrong is not None:
        raise UsageError("bad-envelope-body", f"a signed body cannot hold {wrong}")
    body = pack(list(array))
    if len(body) > MAX_BODY_BYTES:
        raise UsageError("bad-envelope-body", f"a signed body may have {MAX_BODY_BYTES} bytes, got {len(body)}")
    return body, identity.sign(signed_bytes(type_, network_id, body))


def open_untrusted(
    public: bytes,
    type_: str,
    network_id: bytes,
    body: bytes,
    signature: bytes,
    *,
    fields: int | None = None,
    verify: Callable[[bytes, bytes, bytes], bool] = is_signed_by,
) -> list[Any]:
    """Return the array of a stranger's envelope; ``fields``: how many it must have; ``verify``: the simulator's is cheaper.

    Raises `MalformedMessage`, and its subclass `BadSignature` when the signature does not hold.
    """
    if len(body) > MAX_BODY_BYTES:
        raise MalformedMessage(f"a signed body may have {MAX_BODY_BYTES} bytes, got {len(body)}")
    if not verify(public, signed_bytes(type_, network_id, body), signature):
        raise BadSignature(f"the signature of this {type_} does not hold")
    try:
        array = msgpack.unpackb(body, use_list=True, raw=False, strict_map_key=True)
        again = pack(array)
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"signed body cannot be decoded: {type(error).__name__}") from None
    if type(array) is not list or again != body:
        raise MalformedMessage("signed body is not an array in its one canonical form")
    wrong = _wrong_part(array, 0)
    if wrong is not None:
        raise MalformedMessage(f"a signed body cannot hold {wrong}")
    if fields is not None and len(array) != fields:
        raise MalformedMessage(f"this {type_} has {fields} fields, got {len(array)}")
    return array


class BadSignature(MalformedMessage):
    """The bytes were not signed by this key, for this type and network."""

    def __init__(self, text: str, **facts: Any) -> None:
        PeerError.__init__(self, "bad-signature", text, **facts)


def _wrong_part(value: Any, depth: int) -> str | None:
    """The name of the first part that a body may not hold."""
    kind = type(value)
    if kind in _PLAIN:
        return None
    if kind is int:
        return None if -(2**63) <= value < 2**64 else "an int past 64 bits"
    if kind not in (list, tuple):
        return f"a {kind.__name__}"
    if depth >= MAX_NESTING:
        return f"arrays nested deeper than {MAX_NESTING}"
    for part in value:
        if type(part) not in _PLAIN and (wrong := _wrong_part(part, depth + 1)) is not None:
            return wrong
    return None
