"""A whole contract as one file, and its verification on any machine, without a chief or a network (pure).

The file holds every message of both sides in the order in which the exporting side took them, verbatim, with signatures. Verifying
runs them through the same judging and folding as a living contract, once from each side, so a message that a living machine would
have refused is named here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgpack

from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage
from p2p.base.keys import PUBLIC_BYTES, company_id_text
from p2p.contracts import messages as m
from p2p.contracts.agreement import MAX_MESSAGES, Agreement, Kind, Record
from p2p.contracts.chain import receipt_faults
from p2p.contracts.forks import verify_fork_untrusted
from p2p.contracts.judging import fault_of
from p2p.contracts.signing import Reader, Signed
from p2p.contracts.table import State
from p2p.contracts.terms import Role, array_untrusted, terms_digest
from p2p.contracts.words import causes_in_words, terms_in_words

FORMAT = "company-contract/1"
MAX_FILE_BYTES = 64 << 20
MAX_FAULTS = 100


@dataclass(frozen=True, slots=True)
class Exported:
    """A file's parts; nothing in it is verified yet."""

    network_id: bytes
    role: Role  # of the side that exported it
    keys: tuple[bytes, bytes]  # borrower, lender
    nonce: bytes
    messages: tuple[tuple[int, int, bytes, bytes], ...]  # role of the author, code, body, signature
    proofs: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Verdict:
    """What holds and what does not."""

    faults: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not self.faults


def export_contract(a: Agreement, network_id: bytes, journal: Iterable[bytes], proofs: Iterable[bytes] = ()) -> bytes:
    """The file of one contract, from its journal."""
    rows = []
    for record in map(Record.unpack, journal):
        if record.signed is not None:
            author = a.role if record.kind is Kind.OUT else a.role.other
            rows.append([int(author), record.signed.message.code, record.signed.body, record.signed.signature])
    keys = [a.me, a.peer] if a.role is Role.BORROWER else [a.peer, a.me]
    packed: bytes = msgpack.packb([FORMAT, network_id, int(a.role), keys, a.nonce, rows, list(proofs)], use_bin_type=True)
    return packed


def read_export_untrusted(data: bytes) -> Exported:
    """Cut a stranger's file into its parts. Raises only `MalformedMessage`."""
    array = array_untrusted(data, MAX_FILE_BYTES)
    if len(array) != 7 or array[0] != FORMAT:
        raise MalformedMessage(f"this is no {FORMAT} file")
    _, network_id, role, keys, nonce, rows, proofs = array
    if type(network_id) is not bytes or len(network_id) != 16 or role not in (1, 2) or type(nonce) is not bytes or len(nonce) != 32:
        raise MalformedMessage("network id, role or nonce of the file is malformed")
    if type(keys) is not list or len(keys) != 2 or not all(type(k) is bytes and len(k) == PUBLIC_BYTES for k in keys) or keys[0] == keys[1]:
        raise MalformedMessage("a contract has two different keys")
    if type(rows) is not list or len(rows) > 2 * MAX_MESSAGES or type(proofs) is not list or len(proofs) > MAX_FAULTS:
        raise MalformedMessage("too many messages, or none that can be read")
    for row in rows:
        kinds = (int, int, bytes, bytes)
        if type(row) is not list or len(row) != 4 or any(type(v) is not k for v, k in zip(row, kinds, strict=True)) or row[0] not in (1, 2):
            raise MalformedMessage("a message of the file is [role, code, body, signature]")
    if not all(type(p) is bytes for p in proofs):
        raise MalformedMessage("a proof is bytes")
    return Exported(network_id, Role(role), (keys[0], keys[1]), nonce, tuple(tuple(row) for row in rows), tuple(proofs))


def verify_export(exported: Exported) -> Verdict:
    """Check every signature, hash, number and rule; name each that does not hold."""
    verdict = Verdict()
    reader = Reader(exported.network_id)
    borrower, lender = exported.keys
    views = {
        Role.BORROWER: Agreement(Role.BORROWER, borrower, lender, exported.nonce),
        Role.LENDER: Agreement(Role.LENDER, lender, borrower, exported.nonce),
    }
    for number, (role, code, body, signature) in enumerate(exported.messages, 1):
        author = Role(role)
        name = f"message {number} (the {author.name.lower()}'s {m.MESSAGES[code].__name__ if code in m.MESSAGES else code})"
        try:
            signed = reader.open_untrusted(exported.keys[author - 1], code, body, signature)
        except MalformedMessage as error:
            verdict.faults.append(f"{name}: {error.text}")
            break  # what follows hangs on it
        if (fault := fault_of(views[author.other], signed, reader)) is not None:
            verdict.faults.append(f"{name}: {fault}")
            break
        for view in views.values():
            kind = Kind.OUT if view.role is author else Kind.IN
            view.apply(Record(kind, UnixTime(0), 0, signed))
    _whole(verdict, views[exported.role])
    for number, proof in enumerate(exported.proofs, 1):
        try:
            fork = verify_fork_untrusted(exported.network_id, proof)
            verdict.facts.setdefault("forks", []).append({"company": company_id_text(fork.author), "what": fork.what})
        except MalformedMessage as error:
            verdict.faults.append(f"proof {number}: {error.text}")
    return verdict


def _whole(verdict: Verdict, a: Agreement) -> None:
    """What the messages together say, and what is missing for a whole contract."""
    borrower, lender = (a.me, a.peer) if a.role is Role.BORROWER else (a.peer, a.me)
    verdict.facts |= {"borrower": company_id_text(borrower), "lender": company_id_text(lender), "messages": len(a.out) + len(a.came)}
    if a.offer is None or a.accept is None or a.commit is None or a.terms is None:
        verdict.faults.append("offer, acceptance and commitment are not all there: nobody was bound by this")
        return
    verdict.facts |= {
        "contract": a.contract.hex(), "terms": terms_in_words(a.terms), "terms_digest": terms_digest(a.terms_bytes).hex(),
        "revision": a.revision, "slots": a.slots, "epochs": a.epoch + 1, "state": str(a.state),
        "accepted": a.acked._asdict(), "claimed": a.claimed._asdict(), "causes": causes_in_words(a.causes),
    }  # fmt: skip
    halves = [a.halves[role] for role in (Role.LENDER, Role.BORROWER) if role in a.halves]
    if len(halves) == 2:
        verdict.faults += receipt_faults(halves[0], halves[1])
        for half in halves:
            verdict.faults += _half_against(half, a)
    verdict.facts["receipt"] = ("none yet", "one half alone", "both halves")[len(halves)]
    verdict.facts["is_settled"] = a.countersettle is not None or a.state in (State.SETTLED, State.RATED)


def _half_against(signed: Signed, a: Agreement) -> list[str]:
    """Where a half departs from what was signed before it."""
    half = signed.message
    if isinstance(half, m.Half) and tuple(half.accepted) != tuple(a.acked):
        return [f"a half says {tuple(half.accepted)} was accepted, the contract itself {tuple(a.acked)}"]
    return []
