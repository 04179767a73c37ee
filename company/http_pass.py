"""What lets a caller use the HTTP of a worker that has a channel: a few words that the worker's chief signed (pure).

A pass names the worker by its key, what is allowed, and until when; it is no use with another worker, for another purpose, or later.
It travels as ``Authorization: Bearer cmph1.BODY.SIGNATURE`` (base64url), over TLS that showed the same key, or on loopback.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from p2p.base.clock import UnixTime
from p2p.base.envelope import open_untrusted, seal
from p2p.base.errors import MalformedMessage
from p2p.base.keys import Signer

TYPE: Final = "worker-http"
PREFIX: Final = "cmph1"
VERSION: Final = 1
WORK: Final = "work"  # the calls of a chief: processors, batches, whether it lives
LIFE_S: Final = 300
MAX_LIFE_S: Final = 3600  # of one that a worker believes, so that none is good for ever
MAX_TEXT: Final = 1024
NO_NETWORK: Final = bytes(16)


def make_pass(chief: Signer, worker_key: bytes, *, now: UnixTime, allows: str = WORK) -> str:
    """The text of a pass for one worker, good for five minutes."""
    body, signature = seal(chief, TYPE, NO_NETWORK, [VERSION, worker_key, allows, now + LIFE_S])
    return ".".join((PREFIX, *(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (body, signature))))


def check_pass_untrusted(text: str, *, chief_key: bytes, worker_key: bytes, now: UnixTime, allows: str = WORK) -> None:
    """Whether the chief allows this. Raises only `MalformedMessage`, which says what is wrong."""
    prefix, *parts = text.split(".") if len(text) <= MAX_TEXT else [""]
    if prefix != PREFIX or len(parts) != 2 or not text.isascii():
        raise MalformedMessage("this is no pass")
    try:
        body, signature = (base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True) for part in parts)
    except (binascii.Error, ValueError):
        raise MalformedMessage("the pass is damaged") from None
    version, key, said, expires = open_untrusted(chief_key, TYPE, NO_NETWORK, body, signature, fields=4)
    if type(version) is not int or version != VERSION or type(expires) is not int:
        raise MalformedMessage(f"the pass is not of version {VERSION}")
    if key != worker_key or said != allows:
        raise MalformedMessage("the pass is for another worker, or for something else")
    if not now <= expires <= now + MAX_LIFE_S:
        raise MalformedMessage(f"the pass is over, or lasts longer than {MAX_LIFE_S} s; or this machine's clock is wrong")
