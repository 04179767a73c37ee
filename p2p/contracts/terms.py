"""What two companies agree on: terms, cumulative facts, and why a contract ends (pure).

Terms are signed as bytes and travel verbatim inside offers and amendments; what a person confirms is the digest of those bytes. All
times are durations from t0, which each side anchors on its own monotonic clock, so clocks minutes apart do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, Self

import msgpack

from p2p.base.envelope import pack
from p2p.base.errors import MalformedMessage
from p2p.base.ids import digest
from p2p.base.schema import U64, Digest, Length, Message, Range, Word

MAX_TERMS_BYTES = 4096
MAX_EPOCHS = 20_000  # of one contract: its messages are kept for ever, so their number is bounded before anything is signed
PPM = 1_000_000
FactsArray = tuple[U64, U64, U64]


class Facts(NamedTuple):
    """What was done since t0, cumulative. Raw: favours are derived from them by each side for itself."""

    fragments: int
    core_ms: int
    bytes: int

    def covers(self, other: Facts) -> bool:
        """Whether every number is at least that of ``other``."""
        return self[0] >= other[0] and self[1] >= other[1] and self[2] >= other[2]

    def at_most(self, other: Facts) -> Facts:
        """The smaller of each number."""
        return Facts(min(self[0], other[0]), min(self[1], other[1]), min(self[2], other[2]))


NOTHING = Facts(0, 0, 0)


class Role(IntEnum):
    """Which side of a contract somebody is."""

    BORROWER = 1
    LENDER = 2

    @property
    def other(self) -> Role:
        return LENDER if self is BORROWER else BORROWER


BORROWER, LENDER = Role  # a member by its class costs 150 ns in Python 3.11, and machines ask millions of times


class Cause(IntEnum):
    """Why a side ended a contract, signed in its REVOKE. `COUNTING` ones lower trust in the other side, once per contract."""

    NONE = 0  # the time frame ran out, or the other side ended it
    PEER_SILENT = 1
    OVERRUN = 2
    BAD_RESULT = 3
    REFUSED_WORK = 4
    EQUIVOCATION = 5
    OWNER_RECLAIM = 6
    SHUTDOWN = 7
    DONE = 8
    POLICY = 9
    NEVER_STARTED = 10
    SELF_AWAY = 11  # "I was away for longer than the lease"
    UNACKED = 12  # work was not acknowledged for a lease; may be the network's fault, so it stops work and counts for nothing


COUNTING = frozenset({Cause.PEER_SILENT, Cause.OVERRUN, Cause.BAD_RESULT, Cause.REFUSED_WORK, Cause.EQUIVOCATION})


@dataclass(frozen=True, slots=True)
class Terms(Message, code=1):
    """What is agreed on. Everything else in a contract refers to the digest of these bytes."""

    package: Digest
    processor: Digest  # guests run this and nothing else
    slots: Annotated[int, Range(1, 1024)]
    memory_mib: Annotated[int, Range(16, 1 << 20, "MiB per fragment")]
    disk_mib: Annotated[int, Range(0, 1 << 20, "MiB of scratch per fragment")]
    fragment_s: Annotated[int, Range(1, 86_400, "s per fragment")]
    runtime: Word
    not_before_s: Annotated[int, Range(0, 30 * 86_400, "s after t0")]
    time_frame_s: Annotated[int, Range(1, 30 * 86_400, "s")]
    epoch_s: Annotated[int, Range(1, 3600, "s")]
    lease_s: Annotated[int, Range(3, 86_400, "s")]
    grace_s: Annotated[int, Range(0, 86_400, "s")]
    notice_s: Annotated[int, Range(0, 86_400, "s")]
    network: Word
    retention: Word
    check: Word
    error_ppm: Annotated[int, Range(0, PPM, "wrong results accepted per million fragments")]
    spot_ppm: Annotated[int, Range(0, PPM, "checks per million fragments")]
    assumed_bad_ppm: Annotated[int, Range(0, PPM, "assumed bad companies per million")]
    price_milli: Annotated[int, Range(0, 1_000_000, "thousandths of a favour per core-second")]
    endpoints: Annotated[tuple[tuple[Annotated[str, Length(1, 255)], Annotated[int, Range(1, 65535)]], ...], Length(0, 8)]

    def pack(self) -> bytes:
        """The bytes that are signed."""
        return pack(self.as_array())

    @classmethod
    @lru_cache(maxsize=64)  # one text is read by judging, folding and answering, and again for every contract that says the same
    def unpack_untrusted(cls, data: bytes) -> Self:
        """Read and judge a stranger's terms. Raises only `MalformedMessage`."""
        array = array_untrusted(data, MAX_TERMS_BYTES)
        terms = cls.parse_untrusted(array)
        if fault := terms.fault():
            raise MalformedMessage(fault)
        return terms

    def fault(self) -> str | None:
        """What contradicts itself or is not offered by anybody, in words."""
        if self.network != "none" or self.retention != "none":
            return f"network and retention must be 'none', got {self.network[:20]!r} and {self.retention[:20]!r}"
        if self.check not in ("none", "spot", "vote"):
            return f"check must be none, spot or vote, got {self.check[:20]!r}"
        if 3 * self.epoch_s > self.lease_s:
            return f"an epoch may last a third of the lease at most, got {self.epoch_s} s of {self.lease_s} s"
        if self.time_frame_s > MAX_EPOCHS * self.epoch_s:
            return f"a contract has {MAX_EPOCHS} epochs at most, got {self.time_frame_s} s in steps of {self.epoch_s} s"
        return None

    @property
    def window_core_ms(self) -> int:
        """Work that may be unacknowledged: one epoch on every slot. It bounds what either side loses when the other leaves."""
        return self.slots * self.epoch_s * 1000

    @property
    def end_s(self) -> int:
        """Seconds from t0 to the end of the time frame."""
        return self.not_before_s + self.time_frame_s


def terms_digest(packed: bytes) -> bytes:
    """What is shown beside the text, and what accepting binds to."""
    return digest(packed)


def array_untrusted(data: bytes, max_bytes: int) -> list[Any]:
    """A stranger's array in its one canonical form. Raises only `MalformedMessage`."""
    if len(data) > max_bytes:
        raise MalformedMessage(f"at most {max_bytes} bytes are read here, got {len(data)}")
    try:
        array = msgpack.unpackb(data, use_list=True, raw=False, strict_map_key=True)
        again = pack(array)
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"cannot be decoded: {type(error).__name__}") from None
    if type(array) is not list or again != data:
        raise MalformedMessage("not an array in its one canonical form")
    return array
