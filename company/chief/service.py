"""One chief, put together: store, machine, sandbox, sessions, HTTP (I/O). The port `company.chief.facade.Chief` ends here.

Everything is built in `running_chief` and passed down; nothing is global.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import trio

from company import views
from company.chief import events as ev
from company.chief.addresses import Addresses, local_hosts
from company.chief.artifacts import ArtifactSink
from company.chief.backup import backup as write_backup
from company.chief.blanks import Blanks
from company.chief.call_desk import CallDesk
from company.chief.checkup import checkup
from company.chief.commit import Committer
from company.chief.contracts.desk_port import ContractsPort
from company.chief.contracts.off import ContractsOff
from company.chief.contracts.port import Contracts
from company.chief.desk import JobDesk
from company.chief.engine import Engine
from company.chief.facade import Principal, StoredFile, Streamed
from company.chief.feed import Feed
from company.chief.fleet import Fleet
from company.chief.gate import Gate
from company.chief.job_files import JobFiles
from company.chief.library import Library
from company.chief.merging import Merging
from company.chief.needs import needs_you
from company.chief.network.findings import network_findings
from company.chief.network.off import NetworkOff
from company.chief.network.port import NetworkPort
from company.chief.private_data import mark_private
from company.chief.quota import DEFAULT as DEFAULT_QUOTA
from company.chief.quota import Quota, quota_bytes
from company.chief.requirement_wheels import RequirementWheels
from company.chief.rest_workers import RestWorkers
from company.chief.secondment.showing import with_clocks
from company.chief.sessions import Sessions
from company.chief.splitting import Splitting
from company.chief.state import ChiefState
from company.chief.store import leases, stories
from company.chief.store.store import Store
from company.chief.storybook import Storybook
from company.chief.usage import UsageKeeper, load_usage
from company.chief.worker_addresses import WorkerAddresses
from company.install_line import install_line
from company.listening import is_loopback
from company.paths import Home
from company.sandbox.sandbox import Sandbox
from company.wheel_repack import WheelFile
from p2p.base.keys import Identity, company_id_text
from p2p.net.identity_file import load_or_create_identity

_log = logging.getLogger("company.chief")


@dataclass(slots=True)
class ChiefService:
    """A running chief; implements `company.chief.facade.Chief` by handing each call to the part that knows."""

    home: Home
    name: str
    identity: Identity
    store: Store
    sandbox: Sandbox
    engine: Engine
    committer: Committer
    desk: JobDesk
    files: JobFiles
    library: Library
    gate: Gate
    fleet: Fleet
    sessions: Sessions
    rest: RestWorkers
    worker_addresses: WorkerAddresses
    usage: UsageKeeper
    requirements: RequirementWheels
    feed: Feed
    addresses: Addresses
    calls: CallDesk
    network: NetworkPort
    contracts: ContractsPort
    goodbye: Callable[[], Awaitable[None]] | None = None  # to other companies, before anything is taken down
    seconding: Contracts | None = None  # the same contracts, for who lends and borrows slots under them
    stop: trio.Event = field(default_factory=trio.Event)
    started: float = field(default_factory=time.time)
    wheels: list[StoredFile] = field(default_factory=list)

    # ---- the company ------------------------------------------------------------------------------------------------------
    def company(self) -> views.CompanyView:
        slots = self.engine.state.slots
        leases = self.engine.state.leases
        return views.CompanyView(
            id=company_id_text(self.identity.public), name=self.name, version=software_version(), started=self.started,
            home=str(self.home.root), http=self.addresses.http, rpc=self.addresses.rpc, dht=self.addresses.dht,
            python=platform.python_version(), jobs=self.desk.counts(), workers=self.fleet.counts(), slots=slots.total,
            slots_busy=len({lease.slot for lease in leases}), disk_free_bytes=shutil.disk_usage(self.home.root).free,
            isolation=self.sandbox.rung, quota_bytes=self.library.quota.limit_bytes, kept_bytes=self.library.quota.largest(),
            needs_you=needs_you(self.fleet, self.desk, self.home, self.contracts, self.network),
        )  # fmt: skip

    # ---- who asks ---------------------------------------------------------------------------------------------------------
    async def authenticate(self, token: str) -> Principal:
        return await self.gate.authenticate(token)

    async def create_token(self, request: views.TokenRequest, by: Principal) -> views.TokenCreated:
        text, info = await self.gate.create_token(request, by)
        created = views.TokenCreated(token=text, info=info)
        if request.role == "worker":
            host, _, port = self.addresses.for_tokens()[0].rpartition(":")
            python = f"python{sys.version_info.major}.{sys.version_info.minor} -I"  # nothing of the folder where the line is pasted
            created.install_line = install_line(self.identity.public, host.strip("[]"), int(port), python=python)
            created.join_line = f"company worker join {text}"
            if all(is_loopback(address) for address in self.addresses.for_tokens()):
                created.note = "This chief listens for workers on this machine alone. For others: company start --rpc 0.0.0.0:8468"
        return created

    async def list_tokens(self) -> list[views.TokenView]:
        return await self.gate.list_tokens()

    async def revoke_token(self, token_id: str) -> None:
        await self.gate.revoke_token(token_id)

    async def create_login(self, by: Principal) -> str:
        return await self.gate.create_login(by)

    async def use_login(self, secret: str) -> tuple[str, Principal]:
        return await self.gate.use_login(secret)

    async def end_session(self, session: str) -> None:
        await self.gate.end_session(session)

    # ---- packages and datasets --------------------------------------------------------------------------------------------
    async def add_package(
        self, chunks: AsyncIterator[bytes], *, by: Principal, name: str | None = None, signer: bytes | None = None,
        signature: bytes | None = None,
    ) -> tuple[views.PackageView, bool]:  # fmt: skip
        return await self.library.add_package(chunks, by=by, name=name, signer=signer, signature=signature)

    async def add_package_files(self, files: dict[str, bytes], *, by: Principal, name: str | None = None) -> tuple[views.PackageView, bool]:
        return await self.library.add_package_files(files, by=by, name=name)

    async def list_packages(self) -> list[views.PackageView]:
        return await self.library.list_packages()

    async def package(self, ref: str) -> views.PackageView:
        return await self.library.package(ref)

    async def package_archive(self, ref: str) -> StoredFile:
        return await self.library.package_archive(ref)

    async def remove_package(self, ref: str, *, by: Principal) -> None:
        await self.library.remove_package(ref, by=by)

    async def add_dataset(
        self, chunks: AsyncIterator[bytes], *, by: Principal, name: str, kind: str, expected_size: int | None = None
    ) -> tuple[views.DatasetView, bool]:
        return await self.library.add_dataset(chunks, by=by, name=name, kind=kind, expected_size=expected_size)

    async def list_datasets(self) -> list[views.DatasetView]:
        return await self.library.list_datasets()

    async def dataset(self, ref: str) -> views.DatasetView:
        return await self.library.dataset(ref)

    async def mark_dataset(self, ref: str, private: bool, *, by: Principal) -> views.DatasetView:
        return await mark_private(self.library, self.engine.state.jobs.values(), ref, private, by=by)

    async def remove_dataset(self, ref: str, *, by: Principal) -> None:
        await self.library.remove_dataset(ref, by=by)

    async def create_upload(self, *, length: int | None, meta: dict[str, str], by: Principal) -> str:
        return await self.library.create_upload(length=length, meta=meta, by=by)

    async def upload_offset(self, upload_id: str) -> tuple[int, int | None, float]:
        return await self.library.upload_offset(upload_id)

    async def append_upload(self, upload_id: str, offset: int, chunks: AsyncIterator[bytes], checksum: tuple[str, bytes] | None) -> int:
        return await self.library.append_upload(upload_id, offset, chunks, checksum)

    async def finish_upload(self, upload_id: str) -> views.DatasetView | views.PackageView | None:
        return await self.library.finish_upload(upload_id)

    async def abort_upload(self, upload_id: str) -> None:
        await self.library.abort_upload(upload_id)

    def limits(self, by: Principal | None = None) -> dict[str, int]:
        return self.library.limits(by)

    # ---- jobs -------------------------------------------------------------------------------------------------------------
    async def submit(self, request: views.JobSubmit, *, by: Principal) -> views.JobView:
        await self.requirements.check((await self.library.package(request.package)).requirements)
        return await self.desk.submit(request, by=by)

    def list_jobs(self, *, state: str | None, limit: int, offset: int, owner: str | None = None) -> tuple[list[views.JobView], int]:
        return self.desk.list_jobs(state=state, limit=limit, offset=offset, owner=owner)

    def job(self, ref: str) -> views.JobView:
        return with_clocks(self.desk.job(ref), self.contracts)

    def explain(self, ref: str) -> list[views.ReasonView]:
        if ref.startswith("w-"):
            view = self.fleet.worker(ref)
            return [view.reason] if view.reason is not None else [views.ReasonView(code=view.state, text=f"{view.name} is {view.state}.")]
        return self.fleet.and_unreachable(self.desk.explain(ref.partition("/")[0]))

    async def change_job(self, ref: str, action: str, args: dict[str, Any], *, by: Principal) -> views.JobView:
        return await self.desk.change_job(ref, action, args, by=by)

    async def heatmap(self, ref: str, cells: int) -> dict[str, Any]:
        return await self.desk.heatmap(ref, cells)

    async def failures(self, ref: str, *, limit: int, offset: int) -> tuple[list[views.FailureView], int]:
        return await self.files.failures(ref, limit=limit, offset=offset)

    async def fragment_input(self, ref: str, fragment: int) -> bytes:
        return await self.files.fragment_input(ref, fragment)

    async def fragment_result(self, ref: str, fragment: int) -> bytes:
        return await self.files.fragment_result(ref, fragment)

    def partial_results(self, ref: str, *, start: int, limit: int) -> AsyncIterator[tuple[int, bytes]]:
        return self.desk.partial(ref, start=start, limit=limit)

    def logs(self, ref: str, *, fragment: int | None, limit: int, after: int) -> AsyncIterator[views.LogLine]:
        return self.files.logs(ref, fragment=fragment, limit=limit, after=after)

    async def artifacts(self, ref: str) -> list[views.ArtifactView]:
        return await self.files.artifacts(ref)

    async def artifact(self, ref: str, fragment: int, name: str) -> StoredFile:
        return await self.files.artifact(ref, fragment, name)

    async def final_result(self, ref: str) -> StoredFile:
        return await self.files.final_result(ref)

    async def wait_job(self, ref: str, *, timeout_s: float) -> views.JobView:
        return await self.desk.wait_job(ref, timeout_s=timeout_s)

    def events(self, after: int) -> AsyncIterator[dict[str, Any]]:
        return self.feed.read(after)

    # ---- workers ----------------------------------------------------------------------------------------------------------
    def list_workers(self) -> list[views.WorkerView]:
        return self.fleet.list_workers()

    def worker(self, ref: str) -> views.WorkerView:
        return self.fleet.worker(ref)

    async def change_worker(self, ref: str, action: str, *, by: Principal) -> views.WorkerView:
        return await self.fleet.change_worker(ref, action, by=by)

    # ---- the rest ---------------------------------------------------------------------------------------------------------
    async def doctor(self) -> list[dict[str, Any]]:
        await self.worker_addresses.look()
        workers = self.fleet.list_workers()
        here = await checkup(home=self.home, sandbox=self.sandbox, addresses=self.addresses, workers=workers, release=software_version())
        return [*here, *network_findings(self.network.status())]

    async def backup(self, target: Path) -> dict[str, Any]:
        return await write_backup(self.home.chief, self.store, target)

    def wheelhouse(self) -> list[StoredFile]:
        return self.wheels

    def keep_wheels(self, wheels: Sequence[WheelFile]) -> None:
        """The wheelhouse is built: list it."""
        self.wheels = [StoredFile(w.path, w.size, w.sha256, w.file, "application/octet-stream") for w in wheels]

    def request_stop(self) -> None:
        self.stop.set()

    async def say_goodbye(self) -> None:
        """End what other companies would otherwise wait for."""
        if self.goodbye is not None:
            await self.goodbye()

    async def rest_join(self, body: dict[str, Any], remote: str) -> dict[str, Any]:
        return await self.rest.join(body, remote)

    async def rest_next(self, worker: str, wait_s: float) -> bytes | None:
        return await self.rest.next_batch(worker, wait_s)

    async def rest_result(self, worker: str, frame: bytes, wait_s: float, on_taken: Callable[[], None]) -> bytes | None:
        return await self.rest.result(worker, frame, wait_s, on_taken)

    async def rest_fragments(self, worker: str, token: int, job: str, first: int, count: int) -> Streamed:
        return await self.rest.fragments(worker, token, job, first, count)

    async def rest_processor(self, worker: str, digest: str) -> bytes:
        return await self.rest.processor(worker, digest)

    async def rest_wheels(self, worker: str, job: str) -> bytes:
        return await self.rest.wheel_list(worker, job)

    async def rest_wheel(self, worker: str, job: str, digest: str) -> StoredFile:
        return await self.rest.wheel(worker, job, digest)


def software_version() -> str:
    """The installed release of company-compute."""
    try:
        return version("company-compute")
    except PackageNotFoundError:
        return "0+source"


@contextlib.asynccontextmanager
async def running_chief(home: Home, sandbox: Sandbox, *, name: str, quota: str | None = None) -> AsyncIterator[ChiefService]:
    """A chief with its tasks running, not yet listening anywhere. On leaving, what is queued is written."""
    tree = home.chief.create()
    identity = load_or_create_identity(tree.identity / "key")
    store = Store.open(tree.database)
    try:
        boot = await store.next_boot()
        async with trio.open_nursery() as nursery:
            allowed = Quota(quota_bytes(quota or DEFAULT_QUOTA, shutil.disk_usage(tree.root).total))
            chief = await _build(home, name, identity, store, sandbox, boot, allowed, nursery)
            try:
                yield chief
            finally:
                chief.feed.close()
                chief.usage.save()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
                    await chief.committer.wait_idle()
                nursery.cancel_scope.cancel()
    finally:
        await store.aclose()


async def _build(
    home: Home, name: str, identity: Identity, store: Store, sandbox: Sandbox, boot: int, quota: Quota, nursery: trio.Nursery
) -> ChiefService:
    tree = home.chief
    addresses = Addresses(public_hosts=local_hosts())
    feed = Feed(time.monotonic)
    state = ChiefState(boot=boot)
    late: list[Engine] = []
    committer = Committer(
        store, on_committed=lambda job, ranges: late[0].committed(job, ranges), on_full=lambda full: late[0].post(ev.DiskState(full=full))
    )
    story = Storybook(lambda ops: committer.add(ops=ops), last_seq=await store.read(stories.last_seq))
    library = Library(tree, store, identity, quota)
    await library.load()
    gate = Gate(store, identity, addresses.for_tokens)
    await gate.load()
    artifacts = ArtifactSink(lambda job: tree.job(job).artifacts, lambda ops: committer.add(ops=ops))
    wheels = RequirementWheels(tree, identity)
    sessions = Sessions(gate, library, artifacts, wheels)
    desks: list[JobDesk] = []
    blanks = Blanks(sandbox, tree.blanks)
    engine = Engine(
        state=state, committer=committer, splitting=Splitting(sandbox, nursery, wheels, blanks),
        merging=Merging(sandbox, store, nursery, wheels, blanks), blanks=blanks, story=story,
        workers=sessions, on_change=feed.put, on_over=lambda runtime, done, failed: desks[0].on_over(runtime, done, failed),
    )  # fmt: skip
    late.append(engine)
    sessions.engine = engine
    desk = JobDesk(home=tree, store=store, engine=engine, committer=committer, library=library, story=story, on_change=feed.put)
    desks.append(desk)
    nursery.start_soon(committer.run)
    nursery.start_soon(engine.run)
    nursery.start_soon(blanks.run)
    state.hold_for({w.id for w in gate.workers.values() if w.state == "active" and w.last_seen > time.time() - 3600}, engine.now())
    state.remember_usage(await store.read(load_usage), engine.now())
    keeper = UsageKeeper(lambda: state.usage(engine.now()), lambda op: committer.add(ops=[op]))
    nursery.start_soon(keeper.run)
    state.hold_back(await store.read(leases.load_all), engine.now())
    live = await desk.load()
    if live:
        _log.info("%d jobs of before go on", live)
    rest = RestWorkers(
        gate=gate, library=library, sessions=sessions, store=store, supervisor=company_id_text(identity.public), wheels=wheels
    )
    named = WorkerAddresses(rest, sessions, identity, gate.workers)
    await rest.load()
    nursery.start_soon(rest.run)
    return ChiefService(
        home=home, name=name, identity=identity, store=store, sandbox=sandbox, engine=engine, committer=committer, desk=desk,
        files=JobFiles(home=tree, store=store, engine=engine, desk=desk, committer=committer), library=library, gate=gate,
        fleet=Fleet(gate=gate, engine=engine, sessions=sessions, on_change=feed.put, troubles=named.troubles), sessions=sessions,
        rest=rest, worker_addresses=named, usage=keeper, requirements=wheels, feed=feed, addresses=addresses,
        calls=CallDesk(home=tree, store=store, engine=engine, desk=desk),
        network=NetworkOff(company_id_text(identity.public)), contracts=ContractsOff(),
    )  # fmt: skip
