"""What is fixed about a job when it is submitted, and about a worker when it comes (pure)."""

from __future__ import annotations

from p2p.base.record import record

Range = tuple[int, int]  # first, count


@record(kw_only=True)
class JobSpec:
    """All that is fixed about a job when it is submitted."""

    id: str
    owner: str
    package: bytes
    processor: bytes
    dataset: bytes
    name: str
    priority: int = 0
    max_fails: str = "0"
    time_limit_s: float = 600.0
    memory_bytes: int = 512 << 20
    batching: str = "adaptive"
    matching: str = "stable"
    failure: str = "log-z"
    retries: int = 3
    requirements: tuple[str, ...] = ()
    python: str = ""
    is_stream: bool = False  # its fragments come from its client: there is no split child
    created: float = 0.0  # Unix seconds, for views only
    where: str = "own"  # own, trusted, any: whose workers may run it
    borrow: str = ""  # never, ask, automatically: how carefully slots are borrowed for it; empty: as the company does
    is_private: bool = False  # its dataset never leaves this company


@record(kw_only=True)
class Guest:
    """Whose worker it is, and what its contract allows."""

    origin: str  # company id
    contract: str  # hex
    processor: bytes
    fragment_s: int
    is_checked: bool = True
    is_trusted: bool = False


@record(kw_only=True)
class WorkerSpec:
    """What a worker's machine offers."""

    id: str
    name: str
    slots: int
    cores: int = 1
    memory_bytes: int = 0
    python: str = ""
    platform: str = ""
    isolation: str = ""
    requirements_allowed: bool = False
    version: str = ""
    guest: Guest | None = None  # set for another company's worker

    @property
    def origin(self) -> str:
        """The company that lends it; empty for an own worker."""
        return "" if self.guest is None else self.guest.origin
