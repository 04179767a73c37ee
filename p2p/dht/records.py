"""Signed records: what the network keeps under a key, one per owner, and how two sets of them merge (pure).

A record is ``public key (32) | signature (64) | body``, at most 900 bytes, and travels and is stored as those very bytes. The body is
``[version, kind, key, sequence, expires, payload]``. Per owner the higher sequence wins; of two bodies with one sequence the smaller
digest wins everywhere, and the pair is kept as a proof of equivocation. So a set merges to the same content in whatever order and
however often records arrive (a join semilattice; Shapiro et al. 2011), and whoever stores them can withhold but not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from p2p.base.clock import UnixTime
from p2p.base.envelope import open_untrusted, seal
from p2p.base.errors import MalformedMessage, UsageError
from p2p.base.ids import NODE_ID_BYTES, CompanyId, digest
from p2p.base.keys import PUBLIC_BYTES, SIGNATURE_BYTES, Signer, company_id_text, is_signed_by

MAX_RECORD_BYTES = 900  # one record, a token and some contacts fit one packet
MAX_KIND_CHARS = 16
MAX_SEQUENCE = 2**63 - 1
RECORD_VERSION = 1
ENVELOPE_TYPE = "dht-record"
_HEAD_BYTES = PUBLIC_BYTES + SIGNATURE_BYTES

Verify = Callable[[bytes, bytes, bytes], bool]


@dataclass(frozen=True, slots=True)
class Record:
    """A record whose signature held. ``raw`` is what travels and is stored."""

    key: bytes  # 20 bytes: where it lies in the network
    owner: bytes  # public key
    kind: str
    sequence: int
    expires: UnixTime
    payload: bytes
    raw: bytes

    @property
    def company(self) -> CompanyId:
        """The owner's name."""
        return company_id_text(self.owner)

    @property
    def body_digest(self) -> bytes:
        """What tells two bodies apart; never made from the signature, of which one key can give several."""
        return digest(self.raw[_HEAD_BYTES:])


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two bodies under one key, sequence and signature key: a proof that anybody can check."""

    first: Record
    second: Record

    @property
    def owner(self) -> bytes:
        """Who signed both."""
        return self.first.owner


def sign_record(signer: Signer, network_id: bytes, *, key: bytes, kind: str, sequence: int, expires: UnixTime, payload: bytes) -> Record:
    """Make a record. Raises `UsageError` when it would break a bound."""
    body, signature = seal(signer, ENVELOPE_TYPE, network_id, [RECORD_VERSION, kind, key, sequence, expires, payload])
    raw = signer.public + signature + body
    wrong = _wrong_field([RECORD_VERSION, kind, key, sequence, expires, payload])
    if wrong is not None:
        raise UsageError("bad-record", f"a record cannot be made: {wrong}")
    if len(raw) > MAX_RECORD_BYTES:
        raise UsageError("record-too-large", f"a record may have {MAX_RECORD_BYTES} bytes, this has {len(raw)}", size_bytes=len(raw))
    return Record(key, signer.public, kind, sequence, expires, payload, raw)


def open_record_untrusted(raw: bytes, network_id: bytes, *, verify: Verify = is_signed_by) -> Record:
    """Return the record in a stranger's bytes. Raises `MalformedMessage`."""
    if type(raw) is not bytes or not _HEAD_BYTES < len(raw) <= MAX_RECORD_BYTES:
        raise MalformedMessage(f"a record has {_HEAD_BYTES + 1}..{MAX_RECORD_BYTES} bytes")
    owner, signature, body = raw[:PUBLIC_BYTES], raw[PUBLIC_BYTES:_HEAD_BYTES], raw[_HEAD_BYTES:]
    fields = open_untrusted(owner, ENVELOPE_TYPE, network_id, body, signature, fields=6, verify=verify)
    wrong = _wrong_field(fields)
    if wrong is not None:
        raise MalformedMessage(f"a record is refused: {wrong}")
    _, kind, key, sequence, expires, payload = fields
    return Record(key, owner, kind, sequence, UnixTime(expires), payload, raw)


def merge_records(held: Mapping[bytes, Record], coming: Iterable[Record]) -> tuple[dict[bytes, Record], list[Equivocation]]:
    """Return owner → record after taking what is newer, and the equivocations seen. All must lie under one key."""
    merged = dict(held)
    proofs: list[Equivocation] = []
    for record in coming:
        old = merged.get(record.owner)
        if old is not None and is_equivocation(old, record):
            proofs.append(Equivocation(old, record) if old.raw < record.raw else Equivocation(record, old))
        if old is None or supersedes(record, old):
            merged[record.owner] = record
    return merged, proofs


def supersedes(new: Record, old: Record) -> bool:
    """Whether ``new`` takes the place of ``old`` of the same owner under the same key; a total order, so merging commutes.

    Of several signatures over one body the smaller bytes win, for the same reason.
    """
    if new.sequence != old.sequence:
        return new.sequence > old.sequence
    if new.raw == old.raw:
        return False
    return (new.body_digest, new.raw) < (old.body_digest, old.raw)


def is_equivocation(one: Record, other: Record) -> bool:
    """Whether the owner said two things under one key and sequence."""
    return (
        one.raw != other.raw
        and (one.owner, one.key, one.sequence) == (other.owner, other.key, other.sequence)
        and one.body_digest != other.body_digest
    )


def open_equivocation_untrusted(first: bytes, second: bytes, network_id: bytes, *, verify: Verify = is_signed_by) -> Equivocation:
    """Return the proof in two strangers' records. Raises `MalformedMessage` when they prove nothing."""
    one, other = (open_record_untrusted(raw, network_id, verify=verify) for raw in sorted((first, second)))
    if not is_equivocation(one, other):
        raise MalformedMessage("these two records do not contradict each other")
    return Equivocation(one, other)


def _wrong_field(fields: list[object]) -> str | None:
    version, kind, key, sequence, expires, payload = fields
    if version != RECORD_VERSION or type(version) is not int:
        return f"version {version!r:.20} is unknown"
    if type(kind) is not str or not kind.isascii() or not kind.isprintable() or not 1 <= len(kind) <= MAX_KIND_CHARS:
        return f"a kind is 1..{MAX_KIND_CHARS} printable ASCII characters"
    if type(key) is not bytes or len(key) != NODE_ID_BYTES:
        return f"a key has {NODE_ID_BYTES} bytes"
    if type(sequence) is not int or not 0 <= sequence <= MAX_SEQUENCE:
        return f"a sequence number lies in 0..{MAX_SEQUENCE}"
    if type(expires) is not int or not 0 <= expires < 2**53:
        return "an expiry lies in 0..2^53 seconds"
    if type(payload) is not bytes:
        return "a payload is bytes"
    return None
