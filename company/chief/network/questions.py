"""The one question of `solicit` and its answer: signed, small, and bound to both companies (pure)."""

from __future__ import annotations

from p2p.base.clock import UnixTime
from p2p.base.envelope import open_untrusted, seal
from p2p.base.errors import MalformedMessage
from p2p.base.ids import digest
from p2p.base.keys import Signer
from p2p.base.record import record
from p2p.dht.solicit import Answer

QUESTION, ANSWER = "solicit-question", "solicit-answer"
VERSION = 1
SKEW_S = 600
VALID_S = 30
NONCE_BYTES = 16
_MOST = 2**40


@record(kw_only=True)
class Question:
    """What is asked: would you lend so much now?"""

    asker: bytes
    asked: bytes
    nonce: bytes
    capability: str
    slots: int
    memory_mib: int
    frame_s: int
    created: UnixTime


def sign_question(signer: Signer, network_id: bytes, q: Question) -> tuple[bytes, bytes]:
    """Body and signature."""
    fields = [VERSION, q.asker, q.asked, q.nonce, q.capability, q.slots, q.memory_mib, q.frame_s, q.created, q.created + VALID_S]
    return seal(signer, QUESTION, network_id, fields)


def open_question_untrusted(body: bytes, signature: bytes, network_id: bytes, *, asker: bytes, own: bytes, now: UnixTime) -> Question:
    """The question of whoever proved ``asker``. Raises only `MalformedMessage`."""
    fields = open_untrusted(asker, QUESTION, network_id, body, signature, fields=10)
    version, by, to, nonce, capability, slots, memory, frame, created, expires = fields
    if version != VERSION or by != asker or to != own or type(nonce) is not bytes or len(nonce) != NONCE_BYTES:
        raise MalformedMessage("this question is not of this channel")
    if type(capability) is not str or len(capability) > 64 or not all(_is_count(n) for n in (slots, memory, frame, created, expires)):
        raise MalformedMessage("a field of the question is out of its bounds")
    if not created - SKEW_S <= now <= expires + SKEW_S or expires - created != VALID_S:
        raise MalformedMessage("the question is too old, or a clock is wrong")
    return Question(
        asker=by, asked=to, nonce=nonce, capability=capability, slots=slots, memory_mib=memory, frame_s=frame, created=UnixTime(created)
    )


def sign_answer(signer: Signer, network_id: bytes, question_body: bytes, answer: Answer) -> tuple[bytes, bytes]:
    """Body and signature."""
    a = answer
    fields = [VERSION, digest(question_body), signer.public, a.idle_slots, a.speed, a.price_milli, a.queued, a.max_frame_s]
    return seal(signer, ANSWER, network_id, fields)


def open_answer_untrusted(
    body: bytes, signature: bytes, network_id: bytes, *, question_body: bytes, asked: bytes, round_trip_s: float
) -> Answer:
    """The answer of the company that was asked. Raises only `MalformedMessage`."""
    version, to, by, *counts = open_untrusted(asked, ANSWER, network_id, body, signature, fields=8)
    if version != VERSION or to != digest(question_body) or by != asked:
        raise MalformedMessage("this is no answer to the question")
    if not all(_is_count(n) for n in counts):
        raise MalformedMessage("a field of the answer is out of its bounds")
    idle, speed, price, queued, frame = counts
    return Answer(key=asked, idle_slots=idle, speed=speed, price_milli=price, queued=queued, max_frame_s=frame, round_trip_s=round_trip_s)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST
