"""Named child generators, so that every random choice can be run again (pure).

One seed at the root; each part takes a child by name. A part that draws more or fewer numbers never shifts what another
part draws. Not for keys, nonces or secrets: those come from the operating system.
"""

from __future__ import annotations

import hashlib
from random import Random

from p2p.base.record import record


@record
class Seed:
    """A place in the tree of generators."""

    value: bytes

    @classmethod
    def of(cls, root: int | str | bytes) -> Seed:
        """The root of a tree; the same root gives the same tree on every machine and Python version."""
        raw = root if isinstance(root, bytes) else str(root).encode()
        return cls(hashlib.blake2b(raw, digest_size=32, person=b"parallel-seed").digest())

    def child(self, name: str) -> Seed:
        """The subtree called ``name``."""
        return Seed(hashlib.blake2b(name.encode(), digest_size=32, key=self.value).digest())

    def generator(self, name: str) -> Random:
        """A fresh generator for the part called ``name``; asking twice gives two that draw the same numbers."""
        return Random(int.from_bytes(self.child(name).value, "big"))
