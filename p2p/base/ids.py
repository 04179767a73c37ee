"""Identifiers as text, and the digests they are made of (pure).

An id is a short prefix that says what it names, and base32 without upper case, so that it can be read aloud and typed.
"""

from __future__ import annotations

import base64
import hashlib
from random import Random
from typing import NewType

NodeId = NewType("NodeId", bytes)  # 20 bytes; also a company's place in the DHT
CompanyId = NewType("CompanyId", str)  # "co-" + 16 characters
DIGEST_BYTES = 32
NODE_ID_BYTES = 20
ID_CHARS = 16  # 80 bits: enough against chance; who must exclude intent compares keys, not ids


def digest(data: bytes | memoryview) -> bytes:
    """BLAKE2b-256 of ``data``."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def base32_text(raw: bytes) -> str:
    """Lower-case base32 without padding."""
    return base64.b32encode(raw).decode("ascii").rstrip("=").lower()


def id_text(prefix: str, raw: bytes) -> str:
    """``prefix-`` and the first 16 base32 characters of ``raw`` (at least 10 bytes)."""
    if len(raw) < 10:
        raise ValueError(f"an id needs at least 10 bytes, got {len(raw)}")
    return f"{prefix}-{base32_text(raw[:10])}"


def random_id(prefix: str, rng: Random) -> str:
    """A fresh id of 80 random bits."""
    return id_text(prefix, rng.randbytes(10))
