"""What a chief and its own worker say about lending that worker to another company; part of `company.messages` (pure)."""

from __future__ import annotations

from typing import Annotated

from p2p.base.record import record
from p2p.base.schema import U16, U32, U64, Digest, Length, Line, Message, Signature, Word


@record
class Second(Message, code=55):
    """Chief to its own worker: work for another company under this ticket. The same ticket again begins nothing."""

    network: Annotated[bytes, Length(16, 16)]
    ticket: Annotated[bytes, Length(1, 4096)]
    signature: Signature
    bytes_per_s: U32  # to and from the borrower; 0: no bound. Sent again, it may be another


@record
class Unsecond(Message, code=56):
    """Chief to its own worker: no more of this contract. What runs has ``grace_s`` to finish; 0: it is killed now."""

    contract: Digest
    grace_s: U32
    reason: Word


@record
class Seconded(Message, code=57):
    """Worker to its own chief: how a ticket stands (dialling, working, over, overrun). Cumulative within ``run``; kept until heard."""

    contract: Digest
    serial: U64
    run: U64
    state: Word
    fragments: U64
    core_ms: U64
    bytes: U64
    slots: U16
    results: Digest
    reason: Word
    text: Line


@record
class SecondedHeard(Message, code=58):
    """Chief to worker: what the last Seconded of this ``run`` said is on disk; until then the worker says it on every new channel."""

    contract: Digest
    serial: U64
    run: U64
