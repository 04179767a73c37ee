"""What every surface shows of contracts and reputation: the JSON objects of REST, CLI and web page (pure)."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from company.views import ReasonView

Section = Literal["drafts", "inbox", "sent", "active", "settled", "ended"]


class DifferenceView(msgspec.Struct, kw_only=True):
    """One field that another text has otherwise."""

    field: str
    was: str
    becomes: str


class BlockedView(msgspec.Struct, kw_only=True):
    """A company that this one deals with no more."""

    company: str
    name: str = ""


class WorkView(msgspec.Struct, kw_only=True):
    """Cumulative facts."""

    fragments: int = 0
    core_ms: int = 0
    bytes: int = 0


class ContractInfo(msgspec.Struct, kw_only=True):
    """One contract, draft or offer, as this company sees it."""

    id: str  # stays the same from the draft to the receipt
    contract: str = ""  # hash of offer and acceptance, once there is one
    section: Section
    state: str
    role: Literal["borrower", "lender"]
    company: str  # the other one
    name: str = ""
    slots: int = 0
    time_frame_s: int = 0
    summary: str = ""
    words: list[str] = []  # the terms in plain language
    text: list[list[str]] = []  # [field, value] of the exact text that is signed
    digest: str = ""  # of that text: what accepting binds to
    checks: str = ""  # what is checked, the bound on errors and what it costs
    differences: list[DifferenceView] = []  # against the text before: a counter-proposal, a revised offer, an amendment
    actions: list[str] = []
    can_accept: bool = False
    later: bool = False
    reason: ReasonView | None = None  # why it waits, was refused or ended
    ends_in_s: float | None = None  # time frame
    lease_left_s: float | None = None  # until silence ends it
    answer_in_s: float | None = None  # until the offer lapses
    started: float = 0.0
    ended: float = 0.0
    claimed: WorkView = msgspec.field(default_factory=WorkView)
    accepted: WorkView = msgspec.field(default_factory=WorkView)
    causes: dict[str, str] = {}
    receipt: str = "none yet"


class ContractRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/contracts: an offer to another company."""

    company: str  # whose slots: id, unique beginning, or name
    package: str | None = None  # digest, unique beginning or name; nil: the only one, or that of the newest job
    slots: int = 1
    time_frame_s: int = 7200
    memory_mib: int | None = None  # per fragment; nil: what the package says, else 512
    disk_mib: int = 64
    fragment_s: int | None = None  # nil: the package's time limit
    price_milli: int | None = None  # nil: what the lender asks
    check: Literal["none", "spot", "vote"] = "spot"
    lease_s: int = 60
    valid_s: int = 86_400  # how long the offer stands
    draft: bool = False  # keep it here, unsigned


class ContractAccept(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/contracts/{id}/accept."""

    digest: str  # of the text that was read; another text is a 409
    slots: int | None = None  # lender: fewer than asked for


class ContractReject(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/contracts/{id}/reject."""

    reason: str = ""
    retry_after_s: int = 0


class ContractCounter(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/contracts/{id}/counter: the same with other numbers; nil leaves one as it is."""

    slots: int | None = None
    time_frame_s: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    fragment_s: int | None = None
    price_milli: int | None = None
    reason: str = ""


class ContractRevoke(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/contracts/{id}/revoke."""

    notice_s: int | None = None  # for what runs; nil: as agreed
    text: str = ""


class ContractRenew(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /api/v1/contracts/{id}/renew: so much longer."""

    more_s: int


class BorrowPolicyView(msgspec.Struct, kw_only=True):
    """What this company borrows by itself, and what is left of today's limits."""

    mode: str  # never | ask | automatically
    max_slots: int
    contracts_per_day: int
    core_hours_per_day: float
    max_price_milli: int
    time_frame_s: int
    contracts_left: int = 0
    core_hours_left: float = 0.0
    signed: int = 0  # contracts that it signed by itself and that are not over


class BorrowPolicyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /api/v1/borrow/policy; what is left out stays."""

    mode: Literal["never", "ask", "automatically"] | None = None
    max_slots: int | None = None
    contracts_per_day: int | None = None
    core_hours_per_day: float | None = None
    max_price_milli: int | None = None
    time_frame_s: int | None = None


class ReceiptView(msgspec.Struct, kw_only=True):
    """One half of a receipt."""

    author: str
    role: str
    chain_sequence: int
    hash: str
    accepted: WorkView
    claimed: WorkView
    checks_passed: int
    checks_failed: int
    causes: dict[str, str]
    started: float
    ended: float
    names_peer_half: str


class ReputationView(msgspec.Struct, kw_only=True):
    """One company, as this one sees it."""

    company: str
    name: str = ""
    score: float
    good: float
    bad: float
    contracts: int
    completed: int
    hops: int
    credit_core_ms: int
    left_core_ms: int
    computed_for_us_core_ms: int
    given_core_ms: int
    favours_core_ms: float = 0.0  # owed to it: who comes first when slots do not do for everybody
    checks_passed: int = 0
    is_forked: bool = False
    chain: str = ""  # what is known of its chain of receipts
    why: list[str] = []
    over: dict[str, int] = {}  # companies that vouch for it, the largest: core-ms of the flow over each


class ReputationExplained(msgspec.Struct, kw_only=True):
    """The score with everything that it follows from; `p2p.reputation.trust.recompute` needs nothing else."""

    view: ReputationView
    inputs: dict[str, Any]
