"""What a worker is started with, and what it remembers of its chief between starts (I/O: one small file)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from company.paths import Home
from p2p.base.errors import UsageError
from p2p.base.record import record

STATE_FILE = "state.json"
MAX_STATE_BYTES = 64 << 10


@record(kw_only=True)
class WorkerOptions:
    """Settings of one worker; everything that the command line or `company.node` decides."""

    home: Home
    name: str
    token: str | None = None  # only for the first start
    read_token: Callable[[], str] | None = None  # waits for the token, where it is not there yet; called in a thread
    via: str | None = None  # HOST:PORT of another worker that relays
    slots: int = 1
    transport: Literal["rpc", "rest"] = "rpc"
    allow_requirements: bool = False
    require_client_signature: bool = False
    sandbox_allow_none: bool = False
    chief_http: str | None = None  # transport rest: the chief's URL; nil: the token's first host, port 8470
    http: str | None = None  # where its own HTTP listens; nil: on loopback for transport rest, nowhere for rpc
    http_public: str | None = None  # what others are told to call, when that differs from ``http``
    rpc: str = "0.0.0.0:0"  # "" or "off": relay for nobody
    memory_bytes: int = 0  # 0: what the machine has
    drain_s: float = 30.0  # how long a stopping worker lets running batches finish
    on_ready: Callable[[dict[str, Any]], None] | None = None  # called once, when the chief has accepted
    handle_signals: bool = True


@record(kw_only=True)
class Membership:
    """Which chief this worker belongs to; kept in ``state.json``, so no second token is needed."""

    chief_key: bytes
    addresses: tuple[str, ...]
    worker: str  # the id that the chief gave
    supervisor: str
    via: str | None = None
    transport: str = "rpc"
    extra: dict[str, str] = field(default_factory=dict)


def load_membership(folder: Path) -> Membership | None:
    """Read ``state.json``; nil when there is none. Raises `UsageError` when it cannot be understood."""
    path = folder / STATE_FILE
    try:
        raw = path.read_bytes()[:MAX_STATE_BYTES]
    except FileNotFoundError:
        return None
    try:
        data = json.loads(raw)
        return Membership(
            chief_key=bytes.fromhex(data["chief_key"]),
            addresses=tuple(str(a) for a in data["addresses"]),
            worker=str(data["worker"]),
            supervisor=str(data["supervisor"]),
            via=data.get("via"),
            transport=str(data.get("transport", "rpc")),
            extra={str(k): str(v) for k, v in data.get("extra", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError("worker-state-damaged", f"{path} cannot be read: {error}", hint="join again with a new token") from None


def save_membership(folder: Path, membership: Membership) -> None:
    """Write ``state.json``, whole and on disk, or not at all."""
    data = {
        "chief_key": membership.chief_key.hex(), "addresses": list(membership.addresses), "worker": membership.worker,
        "supervisor": membership.supervisor, "via": membership.via, "transport": membership.transport, "extra": membership.extra,
    }  # fmt: skip
    part = folder / f".{STATE_FILE}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / STATE_FILE)
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
