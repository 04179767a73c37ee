"""What every surface shows of the network of companies: the JSON objects of REST, CLI and web page (pure)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from company.views import ReasonView


class PortView(msgspec.Struct, kw_only=True):
    """One port as others see it."""

    port: Literal["udp", "rpc", "http"]
    address: str  # where this chief listens
    verdict: Literal["open", "closed", "not-asked", "unknown"]
    witnesses: int = 0
    consequence: str = ""
    fix: str = ""


class BucketView(msgspec.Struct, kw_only=True):
    """Nodes that share so many leading bits with this one."""

    shared_bits: int
    contacts: int
    replacements: int


class TrafficView(msgspec.Struct, kw_only=True):
    """Requests of one method of the DHT since the start."""

    method: str
    sent: int
    answered: int
    failed: int
    served: int
    sent_per_s: float
    served_per_s: float


class RelayView(msgspec.Struct, kw_only=True):
    """Relaying: for others, and by others for us."""

    serves: bool
    kept_for: int = 0
    streams: int = 0
    carried_bytes: int = 0
    used: list[str] = []  # addresses of the relays that this chief keeps


class NetworkView(msgspec.Struct, kw_only=True):
    """GET /api/v1/network."""

    state: Literal["off", "unknown", "public", "outbound-only", "offline"]
    reason: ReasonView | None = None
    company: str
    network: str  # hex network id
    address: str | None = None  # of the DHT
    seen_as: str = ""
    allow_private: bool = False
    peers: int = 0
    companies: int = 0
    estimated_size: float = 0.0
    records_held: int = 0
    published: list[str] = []
    skew_s: float | None = None
    equivocations: int = 0
    ports: list[PortView] = []
    buckets: list[BucketView] = []
    rpc: list[TrafficView] = []
    drops: dict[str, int] = {}
    relay: RelayView
    trackers: list[dict[str, Any]] = []  # {"url", "ok", "text", "at"}
    tracker_entries: int = 0


class PeerView(msgspec.Struct, kw_only=True):
    """One node in the table of the DHT."""

    company: str
    address: str
    answered_ago_s: float
    round_trip_s: float | None
    failures: int


class KnownCompanyView(msgspec.Struct, kw_only=True):
    """One company that was heard of. The name is its own choice."""

    company: str
    key: str
    name: str = ""
    endpoints: list[str] = []
    relays: list[str] = []
    seen_ago_s: float = 0.0
    source: str = ""  # contact | offer | tracker
    round_trip_s: float | None = None


class OfferView(msgspec.Struct, kw_only=True):
    """One signed, live advertisement, ranked."""

    company: str
    key: str
    name: str = ""
    capability: str
    slots: int
    idle_slots: int | None = None  # as it answered just now; nil: not asked
    cores: int = 0
    memory_bytes: int = 0  # per slot
    pythons: list[str] = []
    isolation: str = ""
    speed: int = 0
    price_milli: int = 0
    max_frame_s: int = 0
    min_trust: float = 0.0
    schedule: str = ""
    trust: float | None = None
    round_trip_s: float | None = None
    score: float = 0.0
    expires: float = 0.0
    own: bool = False
    answer: str = ""  # "idle", "busy", a code why it did not answer, or "" when not asked
    outlier: str = ""


class SpreadView(msgspec.Struct, kw_only=True):
    """What the answers say of one quantity."""

    quantity: str
    count: int
    mean: float
    spread: float
    dropped: int


class SearchRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/borrow/search."""

    slots: int = 1
    memory_bytes: int = 0
    python: str | None = None  # 3.11; nil: the chief's own
    arch: str | None = None
    isolation: str = "bubblewrap"
    ask: bool = True  # ask the best what is idle now
    wanted: int = 100


class SearchView(msgspec.Struct, kw_only=True):
    """What a search brought."""

    capability: str
    offers: list[OfferView] = []
    found: int = 0
    asked: int = 0
    spreads: list[SpreadView] = []
    took_s: float = 0.0
    reason: ReasonView | None = None  # why there are none


class LendRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /api/v1/lending."""

    max_workers: int  # slots
    until: float | None = None
    schedule: str = ""
    min_trust: float = 0.0
    only_to: list[str] = []
    price_milli: int = 0
    max_frame_s: int = 0
    max_load: float = 0.0  # only while the owner's own use of a worker's machine is no more than this share of it; 0: always
    only_on_mains: bool = False
    max_memory_bytes: int = 0  # for all guests together; 0: as much as slots have
    max_disk_bytes: int = 0
    max_bandwidth_bytes: int = 0  # a second, of all guests together, both directions
    auto_accept: Literal["never", "trusted", "any"] = "never"  # sign offers that fit without asking
    preview: bool = False  # only say what would be


class LendingView(msgspec.Struct, kw_only=True):
    """What is lent."""

    state: str  # lending, or why not
    text: str
    max_workers: int = 0
    slots: int = 0
    machines: int = 0
    until: float | None = None
    schedule: str = ""
    min_trust: float = 0.0
    only_to: list[str] = []
    price_milli: int = 0
    max_frame_s: int = 0
    max_load: float = 0.0
    only_on_mains: bool = False
    max_memory_bytes: int = 0
    max_disk_bytes: int = 0
    max_bandwidth_bytes: int = 0  # a second, of all guests together, both directions
    auto_accept: str = "never"
    promised: int = 0  # slots under contracts now
    supply: float = 1.0  # share of what may be lent that is offered: less where favours are not returned
    supply_why: str = ""  # why not all
    who: str = ""  # may ask, in words
    gives: str = ""  # what a company has of a contract
    never: list[str] = []  # what a guest can never reach
    capabilities: list[str] = []
    published: list[str] = []
    stored_on: int = 0
    preview: bool = False


class BootstrapView(msgspec.Struct, kw_only=True):
    """One node that is asked for the network at every start."""

    address: str
    source: Literal["option", "added", "given"]  # given: in the question alone, kept nowhere
    answered: bool | None = None  # nil: not tested
    round_trip_s: float | None = None
    text: str = ""


class BootstrapRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/network/bootstrap."""

    address: str


class PingRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/network/ping."""

    company: str


class PingView(msgspec.Struct, kw_only=True):
    """Whether a company's chief answers."""

    company: str
    answered: bool
    round_trip_s: float | None = None
    way: str = ""  # the address, or the relay
    text: str = ""
