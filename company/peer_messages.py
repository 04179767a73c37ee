"""Every message between the chiefs of two companies, with its bounds (pure). docs/protocol.md lists them.

They travel on channels of purpose "peer" (questions and answers, one at a time), "contract" (either side sends at any time), "relay-keep"
(a chief that cannot be dialled keeps it to a public one) and "relay" (its stream is taken over once both ends are there). Whoever opens
such a channel has proved a key, and nothing else: everything here is a stranger's.
"""

from __future__ import annotations

from typing import Annotated

from p2p.base.record import record
from p2p.base.schema import U16, U32, U64, Digest, Key, Length, Line, Message, Range, Signature, Word, registry

SignedBody = Annotated[bytes, Length(1, 1024)]
Ticket = Annotated[bytes, Length(16, 16)]


@record
class Ask(Message, code=100):
    """A signed question: what is idle now, and on which terms (`company.chief.network.questions`)."""

    body: SignedBody
    signature: Signature


@record
class Told(Message, code=101):
    """The signed answer; it names the digest of the question."""

    body: SignedBody
    signature: Signature


@record
class DialBack(Message, code=102):
    """Dial me at the address this channel comes from, on these ports; 0: not that one. From no other address, ever."""

    udp: U16
    rpc: U16
    http: U16


@record
class DialedBack(Message, code=103):
    """Each "open", "closed" or "not-asked"; ``seen_as``: where the caller's channel comes from."""

    udp: Word
    rpc: Word
    http: Word
    seen_as: Line


@record
class FindOffers(Message, code=104):
    """Look this capability up in the DHT for me: my UDP is blocked."""

    capability: Word
    wanted: U16


@record
class OffersAre(Message, code=105):
    """Items: the signed records, at most 128, to be verified by who asked."""


@record
class ContractWire(Message, code=120):
    """A message of one contract as it was signed, or the word that it is on disk (`p2p.contracts.signing`)."""

    wire: Annotated[bytes, Length(1, 16 << 10)]


@record
class ContractTurned(Message, code=121):
    """A message about this nonce or contract was not taken, and why. Unsigned: a hint for people, it changes no contract."""

    about: Digest
    code_word: Word
    text: Annotated[str, Length(0, 256)]
    retry_after_s: Annotated[int, Range(0, 7 * 86_400, "s")]


@record
class AskHalves(Message, code=122):
    """Show me your chain of receipt halves from this place on."""

    first: Annotated[int, Range(1, 2**32 - 1)]


@record
class HalvesAre(Message, code=123):
    """Items: [body, signature] of one half each, at most 200, in order; and how many there are."""

    total: U32


@record
class RelayKeep(Message, code=110):
    """Pass channels for my key on to me, on this connection's word."""


@record
class RelayKept(Message, code=111):
    """Agreed: so many bytes per stream, at this rate."""

    byte_cap: U64
    rate_bytes_per_s: U32


@record
class RelayCall(Message, code=112):
    """Somebody wants to reach you: come back on a channel of purpose "relay" with this ticket."""

    ticket: Ticket


@record
class RelayTo(Message, code=113):
    """Connect me with the company that holds this key."""

    key: Key


@record
class RelayTake(Message, code=114):
    """I am the one that was called with this ticket."""

    ticket: Ticket


@record
class RelayReady(Message, code=115):
    """Both are here: what follows is carried unread to the other side."""


PEER_MESSAGES = registry(
    Ask, Told, DialBack, DialedBack, FindOffers, OffersAre, RelayKeep, RelayKept, RelayCall, RelayTo, RelayTake, RelayReady, ContractWire,
    ContractTurned, AskHalves, HalvesAre,
)  # fmt: skip
