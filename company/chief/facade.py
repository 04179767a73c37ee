"""What the HTTP side may ask of a chief: the port between `company.chief.api`/`company.web` and the service (pure).

Every method raises `p2p.base.errors.ParallelError` subclasses with a ``code``; `NotFound` and `Conflict` below map to 404 and 409.
Ids may be given as a unique prefix or as "last". Methods without ``async`` only read the state in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

from company import views
from company.chief.contracts.desk_port import ContractsPort
from company.chief.network.port import NetworkPort
from p2p.base.errors import ParallelError
from p2p.base.record import record


class NotFound(ParallelError):
    """No such thing: 404."""


class Conflict(ParallelError):
    """The thing is in a state that forbids it: 409."""


class Refused(ParallelError):
    """Understood and not allowed: 403."""


class TooLarge(ParallelError):
    """A limit was hit: 413. facts: limit, actual."""


class StorageFull(ParallelError):
    """No space left: 507."""


class Invalid(ParallelError):
    """Read but wrong: 422. facts: errors = [{"path", "line", "detail"}]."""


@record
class Principal:
    """Who asks."""

    id: str
    role: views.Role
    name: str


@record
class StoredFile:
    """A file to serve with Range: ``digest`` is the strong ETag."""

    path: Path
    size: int
    digest: str
    name: str
    media_type: str


class Calls(Protocol):
    """Jobs whose fragments are calls that their client goes on sending."""

    def check_own(self, ref: str, by: Principal) -> None: ...  # before a body of theirs is read
    async def append(self, ref: str, first: int, data: bytes) -> int: ...  # one frame; how many calls there are on disk now
    async def finish(self, ref: str) -> None: ...
    def outcomes(self, ref: str, *, after: tuple[int, int], failed: int, wait_s: float) -> AsyncIterator[bytes]: ...


@record
class Streamed:
    """``size`` bytes, made while they are sent."""

    size: int
    pieces: AsyncIterator[bytes]


class Chief(Protocol):
    """One running chief."""

    calls: Calls

    @property
    def network(self) -> NetworkPort: ...
    @property
    def contracts(self) -> ContractsPort: ...

    def company(self) -> views.CompanyView: ...

    # -- who asks
    async def authenticate(self, token: str) -> Principal: ...  # raises Refused with a distinct code for each fault
    async def create_token(self, request: views.TokenRequest, by: Principal) -> views.TokenCreated: ...
    async def list_tokens(self) -> list[views.TokenView]: ...
    async def revoke_token(self, token_id: str) -> None: ...
    async def create_login(self, by: Principal) -> str: ...  # one-time secret, valid 10 min
    async def use_login(self, secret: str) -> tuple[str, Principal]: ...  # session token
    async def end_session(self, session: str) -> None: ...  # logging out; what is no session is left alone

    # -- packages and datasets; ``chunks`` yields bytes, is read once, and its size is bounded by the limits
    async def add_package(
        self, chunks: AsyncIterator[bytes], *, by: Principal, name: str | None = None,
        signer: bytes | None = None, signature: bytes | None = None,
    ) -> tuple[views.PackageView, bool]: ...  # (package, created)  # fmt: skip
    async def add_package_files(
        self, files: dict[str, bytes], *, by: Principal, name: str | None = None
    ) -> tuple[views.PackageView, bool]: ...
    async def list_packages(self) -> list[views.PackageView]: ...
    async def package(self, ref: str) -> views.PackageView: ...
    async def package_archive(self, ref: str) -> StoredFile: ...
    async def remove_package(self, ref: str, *, by: Principal) -> None: ...
    async def add_dataset(
        self, chunks: AsyncIterator[bytes], *, by: Principal, name: str, kind: str, expected_size: int | None = None,
    ) -> tuple[views.DatasetView, bool]: ...  # fmt: skip
    async def list_datasets(self) -> list[views.DatasetView]: ...
    async def dataset(self, ref: str) -> views.DatasetView: ...
    async def mark_dataset(self, ref: str, private: bool, *, by: Principal) -> views.DatasetView: ...
    async def remove_dataset(self, ref: str, *, by: Principal) -> None: ...
    # resumable uploads (tus 1.0); kind: "data" or "package"; meta: name, kind, filename …
    async def create_upload(self, *, length: int | None, meta: dict[str, str], by: Principal) -> str: ...
    async def upload_offset(self, upload_id: str) -> tuple[int, int | None, float]: ...  # offset, length, expires
    async def append_upload(self, upload_id: str, offset: int, chunks: AsyncIterator[bytes], checksum: tuple[str, bytes] | None) -> int: ...
    async def finish_upload(self, upload_id: str) -> views.DatasetView | views.PackageView | None: ...  # nil: not complete
    async def abort_upload(self, upload_id: str) -> None: ...
    def limits(self, by: Principal | None = None) -> dict[str, int]: ...

    # -- jobs
    async def submit(self, request: views.JobSubmit, *, by: Principal) -> views.JobView: ...
    def list_jobs(self, *, state: str | None, limit: int, offset: int, owner: str | None = None) -> tuple[list[views.JobView], int]: ...
    def job(self, ref: str) -> views.JobView: ...
    def explain(self, ref: str) -> list[views.ReasonView]: ...  # job, job/fragment or worker
    async def change_job(self, ref: str, action: str, args: dict[str, Any], *, by: Principal) -> views.JobView: ...
    # action: pause, resume, cancel, retry(failed=True|fragments=[…]|merge=True), edit(priority=, max_fails=, …), rm
    async def heatmap(self, ref: str, cells: int) -> dict[str, Any]: ...  # {"cells": [[state, run length], …], "per_cell": k, "total": n}
    async def failures(self, ref: str, *, limit: int, offset: int) -> tuple[list[views.FailureView], int]: ...
    async def fragment_input(self, ref: str, fragment: int) -> bytes: ...  # codec bytes, for reproduce
    async def fragment_result(self, ref: str, fragment: int) -> bytes: ...  # codec bytes; partial results (M10)
    def partial_results(self, ref: str, *, start: int, limit: int) -> AsyncIterator[tuple[int, bytes]]: ...
    def logs(self, ref: str, *, fragment: int | None, limit: int, after: int) -> AsyncIterator[views.LogLine]: ...
    async def artifacts(self, ref: str) -> list[views.ArtifactView]: ...
    async def artifact(self, ref: str, fragment: int, name: str) -> StoredFile: ...
    async def final_result(self, ref: str) -> StoredFile: ...  # raises Conflict "result-not-ready" with progress in facts
    async def wait_job(self, ref: str, *, timeout_s: float) -> views.JobView: ...  # returns when it ended or time is over
    def events(self, after: int) -> AsyncIterator[dict[str, Any]]: ...  # {"id", "type", "object", "data"}; ends when the chief does

    # -- workers
    def list_workers(self) -> list[views.WorkerView]: ...
    def worker(self, ref: str) -> views.WorkerView: ...
    async def change_worker(self, ref: str, action: str, *, by: Principal) -> views.WorkerView: ...

    # action: pause, resume, drain, quarantine, release, rm

    # -- the rest
    async def doctor(self) -> list[dict[str, Any]]: ...  # [{"id", "verdict": ok|warn|fail, "text", "fix", "link"}]
    async def backup(self, target: Path) -> dict[str, Any]: ...
    def wheelhouse(self) -> list[StoredFile]: ...
    def request_stop(self) -> None: ...

    # -- a worker that speaks REST (P5); ``worker_key``: hex public key proven by the bearer token
    async def rest_join(self, body: dict[str, Any], remote: str) -> dict[str, Any]: ...
    async def rest_next(self, worker: str, wait_s: float) -> bytes | None: ...  # a Run frame, or nil: nothing now
    # accepts an Outcome frame, gives the next Run; ``on_taken``: the frame is on disk, or refused, and kept no longer
    async def rest_result(self, worker: str, frame: bytes, wait_s: float, on_taken: Callable[[], None]) -> bytes | None: ...
    async def rest_fragments(self, worker: str, token: int, job: str, first: int, count: int) -> Streamed: ...
    async def rest_processor(self, worker: str, digest: str) -> bytes: ...
    async def rest_wheels(self, worker: str, job: str) -> bytes: ...  # a WheelsAre frame
    async def rest_wheel(self, worker: str, job: str, digest: str) -> StoredFile: ...  # digest: hex SHA-256 out of that list
