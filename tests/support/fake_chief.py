"""A chief that lives in memory: a stateful fake behind the port `company.chief.facade.Chief`, for tests of REST and pages.

It keeps what it is given, refuses what a chief refuses, and computes nothing. Tests change its state directly (``jobs``, ``results`` …).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import trio

from company import views
from company.chief.contracts.desk_port import ContractsPort
from company.chief.contracts.off import ContractsOff
from company.chief.facade import Conflict, Invalid, NotFound, Principal, Refused, StorageFull, StoredFile, Streamed, TooLarge
from company.chief.network.off import NetworkOff
from company.chief.network.port import NetworkPort
from p2p.base.errors import ParallelError

T = TypeVar("T")
NOW = 1_800_000_000.0
TOKENS = {role: f"cmp-{role}-token" for role in get_args(views.Role)}


@dataclass
class FakeUpload:
    """One resumable upload."""

    length: int | None
    meta: dict[str, str]
    by: Principal
    data: bytes = b""
    expires: float = NOW + 86400
    made: views.DatasetView | views.PackageView | None = None


class ChecksumMismatch(ParallelError):
    """The piece is not what its checksum says."""


@dataclass
class FakeChief:
    """Fulfils `company.chief.facade.Chief`."""

    directory: Path
    jobs: dict[str, views.JobView] = field(default_factory=dict)
    workers: dict[str, views.WorkerView] = field(default_factory=dict)
    packages: dict[str, views.PackageView] = field(default_factory=dict)
    datasets: dict[str, views.DatasetView] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)  # by digest
    uploads: dict[str, FakeUpload] = field(default_factory=dict)
    tokens: dict[str, views.TokenView] = field(default_factory=dict)
    sessions: dict[str, Principal] = field(default_factory=dict)
    logins: dict[str, Principal] = field(default_factory=dict)
    files: dict[str, StoredFile] = field(default_factory=dict)  # final results by job
    left: dict[tuple[str, int, str], StoredFile] = field(default_factory=dict)  # artifacts
    results: dict[str, list[bytes]] = field(default_factory=dict)
    failed: dict[str, list[views.FailureView]] = field(default_factory=dict)
    lines: dict[str, list[views.LogLine]] = field(default_factory=dict)
    happened: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[tuple[str, bytes]] = field(default_factory=list)
    runs: list[bytes] = field(default_factory=list)
    wheels: list[StoredFile] = field(default_factory=list)
    reasons: list[views.ReasonView] = field(default_factory=list)
    needs_you: list[views.ReasonView] = field(default_factory=list)
    max_bytes: dict[str, int] = field(default_factory=lambda: {"package_max_bytes": 1 << 20, "dataset_max_bytes": 1 << 20})
    free_bytes: int = 1 << 40
    network: NetworkPort = field(default_factory=lambda: NetworkOff("co-fake"))
    contracts: ContractsPort = field(default_factory=ContractsOff)
    submitted: int = 0
    is_stopping: bool = False
    has_ended: bool = False  # ends `events`
    gate: trio.Event | None = None  # when set, `submit` waits for it

    # -- what tests put in

    def add_job(self, job_id: str, **rest: Any) -> views.JobView:
        """Put a job in."""
        default: dict[str, Any] = {
            "name": job_id,
            "state": "running",
            "package": "a" * 64,
            "dataset": "b" * 64,
            "created": NOW,
            "owner": "submitter",
        }
        job = views.JobView(id=job_id, **(default | rest))
        self.jobs[job_id] = job
        return job

    def store_file(self, name: str, data: bytes, media_type: str = "application/octet-stream") -> StoredFile:
        """Put a file on disk."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.directory / digest
        path.write_bytes(data)
        return StoredFile(path, len(data), digest, name, media_type)

    def emit(self, kind: str, **data: Any) -> None:
        """Let something happen."""
        self.happened.append({"id": len(self.happened) + 1, "type": kind, "object": "", "data": data})

    # -- the port

    def company(self) -> views.CompanyView:
        states = [j.state for j in self.jobs.values()]
        return views.CompanyView(
            id="c0ffee00c0ffee00", name="Bio Lab", version="0.1.0", started=NOW, home="/tmp/home", http="http://127.0.0.1:8470",
            rpc="127.0.0.1:8468", dht=None, python="3.11.7", jobs={s: states.count(s) for s in sorted(set(states))},
            workers={"idle": len(self.workers)}, slots=sum(w.slots for w in self.workers.values()), disk_free_bytes=self.free_bytes,
            isolation="bubblewrap", needs_you=self.needs_you,
        )  # fmt: skip

    async def authenticate(self, token: str) -> Principal:
        if token in self.sessions:
            return self.sessions[token]
        for role, known in TOKENS.items():
            if token == known:
                return Principal(role, role, role)
        raise Refused("token-expired" if token.startswith("expired") else "token-unknown", "This token is not known here.")

    async def create_token(self, request: views.TokenRequest, by: Principal) -> views.TokenCreated:
        token_id = f"t-{len(self.tokens) + 1}"
        kind: Any = "join" if request.role == "worker" else "access"
        self.tokens[token_id] = views.TokenView(
            id=token_id, kind=kind, role=request.role, label=request.label, created=NOW, uses_left=request.uses
        )
        lines = (
            {"install_line": "python3 -m pip install company-compute", "join_line": f"company worker join {token_id}"}
            if kind == "join"
            else {}
        )
        return views.TokenCreated(token=f"secret-{token_id}", info=self.tokens[token_id], **lines)

    async def list_tokens(self) -> list[views.TokenView]:
        return list(self.tokens.values())

    async def revoke_token(self, token_id: str) -> None:
        self.tokens[token_id].revoked = True

    async def create_login(self, by: Principal) -> str:
        secret = f"login {len(self.logins)}"
        self.logins[secret] = by
        return secret

    async def use_login(self, secret: str) -> tuple[str, Principal]:
        if secret not in self.logins:
            raise Refused("login-used-up", "This login link was used before, or it is older than 10 minutes.")
        by = self.logins.pop(secret)
        session = f"session-{by.id}"
        self.sessions[session] = by
        return session, by

    async def end_session(self, session: str) -> None:
        self.sessions.pop(session, None)

    async def _read(self, chunks: AsyncIterator[bytes], limit_name: str) -> bytes:
        data = b""
        async for chunk in chunks:
            data += chunk
            if len(data) > self.max_bytes[limit_name]:
                raise TooLarge("data-too-large", "Too large.", limit=self.max_bytes[limit_name], actual=len(data))
            if len(data) > self.free_bytes:
                raise StorageFull("storage-full", "No space left.")
        return data

    async def add_package(
        self, chunks: AsyncIterator[bytes], *, by: Principal, name: str | None = None, signer: bytes | None = None,
        signature: bytes | None = None,
    ) -> tuple[views.PackageView, bool]:  # fmt: skip
        data = await self._read(chunks, "package_max_bytes")
        if b"syntax error" in data:
            raise Invalid(
                "package-invalid", "split.py has a syntax error.", errors=[{"path": "split.py", "line": 3, "detail": "invalid syntax"}]
            )
        return self._keep_package(data, name, [])

    async def add_package_files(self, files: dict[str, bytes], *, by: Principal, name: str | None = None) -> tuple[views.PackageView, bool]:
        if "split.py" not in files:
            raise Invalid("package-invalid", "split.py is missing.", errors=[{"path": "split.py", "line": 0, "detail": "missing"}])
        data = json.dumps({path: body.hex() for path, body in sorted(files.items())}).encode()
        return self._keep_package(data, name, [{"path": p, "size": len(b)} for p, b in sorted(files.items())])

    def _keep_package(self, data: bytes, name: str | None, files: list[dict[str, Any]]) -> tuple[views.PackageView, bool]:
        digest = hashlib.sha256(data).hexdigest()
        created = digest not in self.packages
        if created:
            self.packages[digest] = views.PackageView(digest=digest, name=name or "package", size=len(data), files=files, uploaded=NOW)
            self.contents[digest] = data
        return self.packages[digest], created

    async def list_packages(self) -> list[views.PackageView]:
        return list(self.packages.values())

    async def package(self, ref: str) -> views.PackageView:
        return _only(self.packages, ref, "package")

    async def package_archive(self, ref: str) -> StoredFile:
        package = _only(self.packages, ref, "package")
        return self.store_file(f"{package.name}.zip", self.contents[package.digest], "application/zip")

    async def remove_package(self, ref: str, *, by: Principal) -> None:
        package = _only(self.packages, ref, "package")
        if any(j.package == package.digest for j in self.jobs.values()):
            raise Conflict("in-use", "A job uses this package.")
        del self.packages[package.digest]

    async def add_dataset(
        self, chunks: AsyncIterator[bytes], *, by: Principal, name: str, kind: str, expected_size: int | None = None,
    ) -> tuple[views.DatasetView, bool]:  # fmt: skip
        if expected_size is not None and expected_size > self.max_bytes["dataset_max_bytes"]:
            raise TooLarge("data-too-large", "Too large.", limit=self.max_bytes["dataset_max_bytes"], actual=expected_size)
        return self._keep_dataset(await self._read(chunks, "dataset_max_bytes"), name, kind)

    def _keep_dataset(self, data: bytes, name: str, kind: str) -> tuple[views.DatasetView, bool]:
        digest = hashlib.sha256(kind.encode() + data).hexdigest()
        created = digest not in self.datasets
        if created:
            self.datasets[digest] = views.DatasetView(digest=digest, name=name, kind=kind, size=len(data), uploaded=NOW)  # type: ignore[arg-type]
            self.contents[digest] = data
        return self.datasets[digest], created

    async def list_datasets(self) -> list[views.DatasetView]:
        return list(self.datasets.values())

    async def dataset(self, ref: str) -> views.DatasetView:
        return _only(self.datasets, ref, "dataset")

    async def mark_dataset(self, ref: str, private: bool, *, by: Principal) -> views.DatasetView:
        found = self.datasets[_only(self.datasets, ref, "dataset").digest]
        found.private = private
        return found

    async def remove_dataset(self, ref: str, *, by: Principal) -> None:
        del self.datasets[_only(self.datasets, ref, "dataset").digest]

    async def create_upload(self, *, length: int | None, meta: dict[str, str], by: Principal) -> str:
        upload_id = f"u-{len(self.uploads) + 1}"
        self.uploads[upload_id] = FakeUpload(length, meta, by)
        return upload_id

    def _upload(self, upload_id: str) -> FakeUpload:
        if upload_id not in self.uploads:
            raise NotFound("upload-unknown", f"No upload {upload_id}.")
        upload = self.uploads[upload_id]
        if upload.expires < NOW:
            raise NotFound("upload-expired", f"Upload {upload_id} has expired.")
        return upload

    async def upload_offset(self, upload_id: str) -> tuple[int, int | None, float]:
        upload = self._upload(upload_id)
        return len(upload.data), upload.length, upload.expires

    async def append_upload(self, upload_id: str, offset: int, chunks: AsyncIterator[bytes], checksum: tuple[str, bytes] | None) -> int:
        upload = self._upload(upload_id)
        if offset != len(upload.data):
            raise Conflict("offset-mismatch", "Another offset.")
        piece = await self._read(chunks, "dataset_max_bytes")
        if checksum is not None and hashlib.new(checksum[0], piece).digest() != checksum[1]:
            raise ChecksumMismatch("checksum-mismatch", "The piece is not what its checksum says.")
        if upload.length is not None and offset + len(piece) > upload.length:
            raise TooLarge("upload-too-long", "More bytes than announced.", limit=upload.length, actual=offset + len(piece))
        upload.data += piece
        return len(upload.data)

    async def finish_upload(self, upload_id: str) -> views.DatasetView | views.PackageView | None:
        upload = self._upload(upload_id)
        if len(upload.data) != upload.length:
            return None
        kind = upload.meta.get("kind", "data")
        if kind == "package":
            upload.made, _ = self._keep_package(upload.data, upload.meta.get("name"), [])
        else:
            upload.made, _ = self._keep_dataset(upload.data, upload.meta.get("name", "data"), "tree" if kind == "tree" else "file")
        return upload.made

    async def abort_upload(self, upload_id: str) -> None:
        self._upload(upload_id)
        del self.uploads[upload_id]

    def limits(self, by: Principal | None = None) -> dict[str, int]:
        return dict(self.max_bytes)

    async def submit(self, request: views.JobSubmit, *, by: Principal) -> views.JobView:
        if self.gate is not None:
            await self.gate.wait()
        package = _by_name(self.packages, request.package, "package")
        dataset = _by_name(self.datasets, request.dataset, "dataset")
        self.submitted += 1
        return self.add_job(
            f"j-{self.submitted}", state="queued", name=request.name or package.name, package=package.digest, package_name=package.name,
            dataset=dataset.digest, dataset_name=dataset.name, owner=by.id, params=request.params, priority=request.priority,
            where=request.where, max_fails=request.max_fails, reason=views.ReasonView(code="no-worker", text="No worker has joined yet."),
        )  # fmt: skip

    def list_jobs(self, *, state: str | None, limit: int, offset: int, owner: str | None = None) -> tuple[list[views.JobView], int]:
        found = [j for j in reversed(self.jobs.values()) if state in (None, j.state) and owner in (None, j.owner)]
        return found[offset : offset + limit], len(found)

    def job(self, ref: str) -> views.JobView:
        if ref == "last" and self.jobs:
            return list(self.jobs.values())[-1]
        return _only(self.jobs, ref, "job")

    def explain(self, ref: str) -> list[views.ReasonView]:
        if not ref.startswith("w-"):
            self.job(ref.split("/")[0])
        return self.reasons

    async def change_job(self, ref: str, action: str, args: dict[str, Any], *, by: Principal) -> views.JobView:
        job = self.job(ref)
        if by.role == "submitter" and job.owner != by.id:
            raise Refused("not-your-job", f"Job {job.id} belongs to {job.owner}.")
        changes: dict[str, dict[str, Any]] = {
            "pause": {"paused": True}, "resume": {"paused": False}, "cancel": {"state": "cancelled"},
            "retry": {"state": "queued"}, "edit": args, "rm": {},
        }  # fmt: skip
        if action in ("pause", "cancel") and job.state in ("done", "failed", "cancelled"):
            raise Conflict("job-ended", f"Job {job.id} has ended.")
        self.jobs[job.id] = msgspec.structs.replace(job, **changes[action])
        self.emit(f"job.{action}", **args)
        return self.jobs.pop(job.id) if action == "rm" else self.jobs[job.id]

    async def heatmap(self, ref: str, cells: int) -> dict[str, Any]:
        self.job(ref)
        return {"cells": [["done", 5], ["failed", 1], ["leased", 2], ["waiting", 2]], "per_cell": 1, "total": 10}

    async def failures(self, ref: str, *, limit: int, offset: int) -> tuple[list[views.FailureView], int]:
        found = self.failed.get(self.job(ref).id, [])
        return found[offset : offset + limit], len(found)

    async def fragment_input(self, ref: str, fragment: int) -> bytes:
        return await self.fragment_result(ref, fragment)

    async def fragment_result(self, ref: str, fragment: int) -> bytes:
        results = self.results.get(self.job(ref).id, [])
        if fragment >= len(results):
            raise NotFound("fragment-unknown", f"No result of fragment {fragment}.")
        return results[fragment]

    async def partial_results(self, ref: str, *, start: int, limit: int) -> AsyncIterator[tuple[int, bytes]]:
        for index, data in list(enumerate(self.results.get(self.job(ref).id, [])))[start : start + limit]:
            yield index, data

    async def logs(self, ref: str, *, fragment: int | None, limit: int, after: int) -> AsyncIterator[views.LogLine]:
        found = [line for line in self.lines.get(self.job(ref).id, []) if fragment in (None, line.fragment)]
        for line in found[after : after + limit]:
            yield line

    async def artifacts(self, ref: str) -> list[views.ArtifactView]:
        job = self.job(ref)
        return [
            views.ArtifactView(job=j, fragment=n, name=name, size=file.size, digest=file.digest)
            for (j, n, name), file in self.left.items()
            if j == job.id
        ]

    async def artifact(self, ref: str, fragment: int, name: str) -> StoredFile:
        found = self.left.get((self.job(ref).id, fragment, name))
        if found is None:
            raise NotFound("artifact-unknown", f"No artifact {name!r}.")
        return found

    async def final_result(self, ref: str) -> StoredFile:
        job = self.job(ref)
        if job.id not in self.files:
            progress = {"done": job.fragments.done, "total": job.fragments.total}
            raise Conflict("result-not-ready", f"Job {job.id} is {job.state}.", progress=progress, retry_after_s=5)
        return self.files[job.id]

    async def wait_job(self, ref: str, *, timeout_s: float) -> views.JobView:
        job = self.job(ref)
        # a fake second: whatever runs ends while somebody waits for it
        if job.state not in ("done", "failed", "cancelled"):
            self.lines.setdefault(job.id, []).append(views.LogLine(fragment=None, stream="event", text="job done"))
            self.jobs[job.id] = msgspec.structs.replace(job, state="done", reason=None)
        return self.jobs[job.id]

    async def events(self, after: int) -> AsyncIterator[dict[str, Any]]:
        while True:
            while after < len(self.happened):
                after += 1
                yield self.happened[after - 1]
            if self.has_ended:
                return
            await trio.sleep_forever()

    def list_workers(self) -> list[views.WorkerView]:
        return list(self.workers.values())

    def worker(self, ref: str) -> views.WorkerView:
        return _only(self.workers, ref, "worker")

    async def change_worker(self, ref: str, action: str, *, by: Principal) -> views.WorkerView:
        worker = _only(self.workers, ref, "worker")
        states: dict[str, Any] = {"pause": "paused", "resume": "idle", "drain": "draining", "quarantine": "quarantined", "release": "idle"}
        if action == "rm":
            return self.workers.pop(worker.id)
        self.workers[worker.id] = msgspec.structs.replace(worker, state=states[action])
        return self.workers[worker.id]

    async def doctor(self) -> list[dict[str, Any]]:
        return [{"id": "isolation", "verdict": "ok", "text": "bubblewrap", "fix": "", "link": ""}]

    async def backup(self, target: Path) -> dict[str, Any]:
        return {"path": str(target), "bytes": 0}

    def wheelhouse(self) -> list[StoredFile]:
        return self.wheels

    def request_stop(self) -> None:
        self.is_stopping = True

    async def rest_join(self, body: dict[str, Any], remote: str) -> dict[str, Any]:
        if body.get("token") != "join-me":
            raise Refused("token-used-up", "This join token was used before.")
        return {"worker": "worker", "token": TOKENS["worker"]}

    async def rest_next(self, worker: str, wait_s: float) -> bytes | None:
        return self.runs.pop(0) if self.runs else None

    async def rest_result(self, worker: str, frame: bytes, wait_s: float, on_taken: Callable[[], None]) -> bytes | None:
        if frame == b"stale":
            raise Conflict("lease-stale", "This lease was given to another worker.")
        self.outcomes.append((worker, frame))
        on_taken()
        return await self.rest_next(worker, wait_s)

    async def rest_fragments(self, worker: str, token: int, job: str, first: int, count: int) -> Streamed:
        async def pieces() -> AsyncIterator[bytes]:
            yield said

        said = f"{worker} {token} {job} {first} {count}".encode()
        return Streamed(len(said), pieces())

    async def rest_processor(self, worker: str, digest: str) -> bytes:
        return self.contents[_only(self.packages, digest, "package").digest]


def _only(table: dict[str, T], ref: str, what: str) -> T:
    found = [v for k, v in table.items() if k.startswith(ref)]
    if ref in table:
        return table[ref]
    if len(found) != 1:
        raise NotFound(f"{what}-unknown", f"No {what} {ref!r}.", hint=f"company {what} list")
    return found[0]


def _by_name(table: dict[str, T], ref: str, what: str) -> T:
    named = [v for v in table.values() if getattr(v, "name", "") == ref]
    return named[-1] if named else _only(table, ref, what)
