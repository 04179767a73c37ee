"""The port through which everything else uses the network of companies, and the facts that pages show (pure).

`p2p.dht.node.DhtNode` keeps it over the network, `p2p.dht.memory.MemoryDirectory` within one process. Tests hold both to
one suite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from p2p.base.record import record
from p2p.dht.advertisement import Advertisement, Listing
from p2p.dht.records import Record

Address = tuple[str, int]  # (IP literal, port)


@record(kw_only=True)
class Peer:
    """One node in the table: it has answered a request of ours."""

    node_id: bytes
    address: Address
    answered_ago_s: float
    round_trip_s: float | None
    failures: int


@record(kw_only=True)
class Bucket:
    """Nodes that share so many leading bits with us."""

    shared_bits: int
    contacts: int
    replacements: int


@record(kw_only=True)
class Traffic:
    """What happened to the requests of one method since the start."""

    sent: int = 0
    answered: int = 0
    failed: int = 0  # no answer after the retransmission
    served: int = 0  # requests of others that we answered
    sent_per_s: float = 0.0  # over the last minute
    served_per_s: float = 0.0


@record(kw_only=True)
class DirectoryStatus:
    """Everything that `company network status` and the web page say about the DHT."""

    node_id: bytes
    address: Address | None
    network_size: float  # estimated number of nodes
    peers: tuple[Peer, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    rpc: Mapping[str, Traffic] = field(default_factory=dict)  # by method
    drops: Mapping[str, int] = field(default_factory=dict)  # datagrams thrown away, by reason
    records_held: int = 0
    published: tuple[str, ...] = ()  # capabilities that we advertise now
    skew_s: float | None = None  # median of peers' clocks minus ours; of those that are refused for their date where nobody answers
    equivocations: int = 0


@record(kw_only=True)
class Published:
    """Where an advertisement went: as many nodes took it as ``stored`` says, over all its keys."""

    keys: int
    stored: int


class Directory(Protocol):
    """Finds companies. Every call ends by its deadline; none raises because of what strangers send."""

    async def join(self, addresses: Sequence[Address]) -> int:
        """Ask these for the network, besides remembered ones; return how many nodes are known afterwards."""

    async def publish(self, advertisement: Advertisement) -> Published:
        """Advertise, and go on doing so until withdrawn or closed; a second one for the same capability replaces the first.

        Raises `UsageError` for one out of bounds.
        """

    async def withdraw(self, capability: str) -> None:
        """Stop advertising, and tell those who keep it. Nothing to withdraw is no error."""

    async def find(self, capability: str, wanted: int, deadline_s: float) -> tuple[Listing, ...]:
        """Up to ``wanted`` verified live advertisements, a random sample where there are more; what was found by the deadline."""

    async def put(self, kind: str, key: bytes, payload: bytes, lifetime_s: int) -> Published:
        """Store one record of another kind (the head of a receipt chain, say) until it expires; newer ones of ours replace it."""

    async def get(self, key: bytes, wanted: int, deadline_s: float) -> tuple[Record, ...]:
        """Verified live records under a key, at most one per owner."""

    async def ping(self, address: Address) -> float | None:
        """Seconds until a node answered, or None."""

    def status(self) -> DirectoryStatus:
        """Facts for people."""
