"""Every number of the network of companies that is a choice, in one place (pure).

Source: k, alpha and resiliency as in Kademlia (Maymounkov, Mazieres 2002) and go-libp2p's Amino; four disjoint paths from S/Kademlia
(Baumgart, Mies 2007); RTO = AVG + 4·VAR (Jacobson 1988; Rhea et al. 2004 for DHTs); write tokens from BEP 5.
"""

from __future__ import annotations

import hashlib

from p2p.base.envelope import NETWORK_ID_BYTES
from p2p.base.record import record


def make_network_id(name: str, work_bits: int = 0) -> bytes:
    """16 bytes that keep networks apart. The last says how many zero bits of work a key must show there (0: none)."""
    if not 0 <= work_bits <= 32:
        raise ValueError(f"work_bits lies in 0..32, got {work_bits}")
    return hashlib.blake2b(name.encode(), digest_size=NETWORK_ID_BYTES - 1, person=b"dht-network").digest() + bytes([work_bits])


PUBLIC_NETWORK = make_network_id("parallel public 1")


@record(kw_only=True)
class Parameters:
    """Defaults are meant for the public network; tests and private networks change some."""

    # look-ups
    k: int = 20  # contacts per bucket and per answer, and nodes that keep a record
    alpha: int = 8  # requests in flight per look-up; one past its RTO no longer counts
    read_alpha: int = 3  # the same for reads, which often end with the first answers
    resiliency: int = 3  # nearest nodes that must have answered before a read may end
    paths: int = 4  # disjoint paths
    replicas: int = 20  # nodes that a record is stored on
    queries_per_lookup: int = 240  # an adversary that invents contacts cannot keep a look-up busy for ever
    lookup_deadline_s: float = 15.0
    cache_s: float = 10.0  # found sets are reused for so long
    cached_keys: int = 256

    # requests
    first_rto_s: float = 0.5  # until a first round trip is known
    min_rto_s: float = 0.2
    max_rto_s: float = 3.0
    in_flight: int = 512
    drop_after_failures: int = 3
    back_off_s: float = 5.0  # after the first failure; doubles
    verifications_per_s: float = 10.0  # pings to nodes that asked us and are not in the table

    # table
    refresh_s: float = 600.0
    group_per_bucket: int = 2  # contacts of one /24 (IPv4) or /48 (IPv6)
    group_per_table: int = 10
    allow_private: bool = False  # private, loopback and link-local addresses; address groups do not count there
    saved_contacts: int = 128
    anchors: int = 8  # of these, the ones known longest

    # packets
    max_packet_bytes: int = 1200  # < 1,232, what IPv6 carries unfragmented
    padded_bytes: int = 400  # a request to a node whose token we do not hold
    amplification: int = 3  # answer bytes per request byte until the address has echoed a token
    window_s: int = 600  # accepted difference between clocks
    token_period_s: float = 300.0  # a token is good for one to two periods
    pages: int = 8  # datagrams with records per request, once the address is proved
    replays_kept: int = 16384  # message ids per generation, two generations

    # floods
    address_per_s: float = 40.0  # before any signature is checked
    address_burst: float = 160.0
    identity_per_s: float = 40.0
    identity_burst: float = 160.0
    unproved_per_s: float = 1000.0  # all addresses together that have not echoed a token
    unproved_burst: float = 2000.0
    buckets_kept: int = 4096

    # records
    lifetime_s: int = 1800  # of an advertisement; republished at a third, with jitter
    max_lifetime_s: int = 7200
    per_key: int = 64  # owners per key
    per_key_and_group: int = 4
    per_owner: int = 48  # records of one key pair on one node
    per_group: int = 1024  # records from one /24 or /48 on one node
    records: int = 16384
    record_bytes: int = 8 << 20
    equivocations: int = 64


DEFAULTS = Parameters()
