"""Fragment path 1/9 - what clients upload: packages checked and signed, datasets hashed, uploads that can be resumed (I/O).

Part of the port `company.chief.facade.Chief`. The bytes go to disk by `packages`, `datasets` and `uploads`; what is known of
them lies in rows.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import trio
from sqlalchemy.exc import IntegrityError

from company import messages as m
from company import views
from company.chief.datasets import DatasetStore
from company.chief.facade import Conflict, Invalid, NotFound, Principal, Refused, StoredFile, TooLarge
from company.chief.intake import MAX_ARCHIVE_BYTES, manifest_json, package_too_large, signed_name, tidy_name, translated
from company.chief.packages import PackageStore
from company.chief.quota import UNLIMITED, Key, Quota
from company.chief.share import Shares
from company.chief.store import datasets, packages
from company.chief.store.datasets import DatasetRow
from company.chief.store.packages import PackageRow
from company.chief.store.store import Store
from company.chief.uploads import Uploads, UploadState, key_of, meta_of, principal_of
from company.package import (
    MAX_BYTES,
    PackageInfo,
    check_package,
    check_params,
    claim_of,
    read_archive_untrusted,
    sign_package,
    tidy_files_untrusted,
    verify_package,
)  # fmt: skip
from company.paths import ChiefHome
from p2p.base.errors import UsageError
from p2p.base.keys import Identity
from p2p.base.record import record

MAX_DATASET_BYTES = 1 << 40
Row = TypeVar("Row", PackageRow, DatasetRow)


@record
class LoadedPackage:
    """A stored package with its files in memory."""

    row: PackageRow
    info: PackageInfo
    files: dict[str, bytes]


class Library:
    """Packages and datasets of one chief."""

    def __init__(self, home: ChiefHome, store: Store, identity: Identity, quota: Quota | None = None) -> None:
        """``quota``: what each user may keep, else no limit."""
        self.quota = quota or Quota()
        self._shares = Shares(self.quota)
        self._store = store
        self._identity = identity
        self._packages_on_disk = PackageStore(home.packages)
        self._datasets_on_disk = DatasetStore(home.datasets, home.uploads)
        self.uploads = Uploads(home.uploads, store, self._shares, max_bytes=MAX_DATASET_BYTES)
        self._packages: dict[bytes, PackageRow] = {}
        self._datasets: dict[bytes, DatasetRow] = {}
        self._by_processor: dict[bytes, bytes] = {}
        self._cutoff = home.uploads
        self._finishing: dict[str, trio.Lock] = {}

    async def load(self) -> None:
        """Read the rows at start-up; sweep what a crash left half-done."""
        await trio.to_thread.run_sync(self._packages_on_disk.sweep)
        await trio.to_thread.run_sync(self._datasets_on_disk.sweep)
        for package in await self._store.read(packages.load_all):
            self._packages[package.digest] = package
            self._by_processor[package.processor] = package.digest
            self.quota.put(_key(package), package.uploaded_by, package.size)
        for dataset in await self._store.read(datasets.load_all):
            self._datasets[dataset.digest] = dataset
            self.quota.put(_key(dataset), dataset.uploaded_by, dataset.size)
        await self.uploads.load(now=time.time())

    # ---- packages ---------------------------------------------------------------------------------------------------------
    async def add_package(
        self, chunks: AsyncIterator[bytes], *, by: Principal, name: str | None = None, signer: bytes | None = None,
        signature: bytes | None = None,
    ) -> tuple[views.PackageView, bool]:  # fmt: skip
        """Take a zip or tar from a stream."""
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if len(data) > MAX_ARCHIVE_BYTES:
                raise package_too_large(len(data))
        with translated():
            files = await trio.to_thread.run_sync(read_archive_untrusted, io.BytesIO(bytes(data)))
        return await self._keep(files, by=by, name=name, signer=signer, signature=signature)

    async def add_package_files(self, files: dict[str, bytes], *, by: Principal, name: str | None = None) -> tuple[views.PackageView, bool]:
        """Take loose files, as a form sends them."""
        with translated():
            tidy = tidy_files_untrusted(files)
        return await self._keep(tidy, by=by, name=name, signer=None, signature=None)

    async def _keep(
        self, files: dict[str, bytes], *, by: Principal, name: str | None, signer: bytes | None, signature: bytes | None,
        upload: Key | None = None,
    ) -> tuple[views.PackageView, bool]:  # fmt: skip
        with translated():
            called = signed_name(name) if signature is not None else tidy_name(name or "package")
            info = await trio.to_thread.run_sync(lambda: check_package(files, default_name=called))
        known = self._packages.get(info.digest)
        if known is not None and signature is None:
            return self._package_view(known), False
        if signer is not None and signature is not None:
            signed_for = ""
            claim = claim_of(info, signed_for=signed_for)
            with translated():
                verify_package(claim, signer=signer, signature=signature, chief=self._identity.public)
        else:
            signed_for = by.name[:100]
            claim = claim_of(info, signed_for=signed_for)
            signer, signature = self._identity.public, sign_package(self._identity, claim)
        if known is None:
            self.quota.check(by, info.size_bytes - (self.quota.size_of(upload) if upload is not None else 0))
        await trio.to_thread.run_sync(self._packages_on_disk.put, info.digest, files)
        row = PackageRow(
            digest=info.digest, name=info.name, version=info.version, size=info.size_bytes, processor=info.processor_digest,
            manifest=manifest_json(info), signer=signer, signature=signature, signed_for=signed_for, uploaded=time.time(),
            uploaded_by=by.name,
        )  # fmt: skip
        await self._store.write(lambda conn: packages.save(conn, row))
        self._packages[row.digest] = row
        self.quota.put(_key(row), by.name, row.size)
        self._by_processor[row.processor] = row.digest
        return self._package_view(row), known is None

    async def list_packages(self) -> list[views.PackageView]:
        return [self._package_view(row) for row in sorted(self._packages.values(), key=lambda r: -r.uploaded)]

    async def package(self, ref: str) -> views.PackageView:
        return self._package_view(await self.package_row(ref))

    async def package_row(self, ref: str) -> PackageRow:
        """A package by digest, unique prefix of it, or name (the newest of that name)."""
        found = _by_prefix(ref, self._packages)
        if found is None:
            named = [r for r in self._packages.values() if r.name == ref]
            found = max(named, key=lambda r: r.uploaded) if named else None
        if found is None:
            raise NotFound("package-unknown", f"There is no package {ref[:80]!r}.", hint="company package list")
        return found

    async def package_archive(self, ref: str) -> StoredFile:
        row = await self.package_row(ref)
        path = self._packages_on_disk.archive_path(row.digest)
        digest = await trio.to_thread.run_sync(self._packages_on_disk.archive_digest, row.digest)
        return StoredFile(path, path.stat().st_size, digest.hex(), f"{tidy_name(row.name)}.zip", "application/zip")

    async def remove_package(self, ref: str, *, by: Principal) -> None:
        row = await self.package_row(ref)
        _check_own(row, by)
        try:
            await self._store.write(lambda conn: packages.delete(conn, row.digest) and None)
        except IntegrityError:
            raise Conflict("package-in-use", f"Jobs use {row.name}; remove them first.", hint="company job list") from None
        del self._packages[row.digest]
        self.quota.drop(_key(row))
        await trio.to_thread.run_sync(self._packages_on_disk.delete, row.digest)

    async def load_package(self, digest: bytes) -> LoadedPackage:
        """A package with its files, checked against its digest again by reading."""
        row = self._packages.get(digest)
        if row is None:
            raise NotFound("package-unknown", f"Package {digest.hex()[:16]} is gone.")
        files = await trio.to_thread.run_sync(self._packages_on_disk.files, digest)
        info = await trio.to_thread.run_sync(lambda: check_package(files, default_name=row.name))
        return LoadedPackage(row, info, files)

    def check_params(self, row: PackageRow, params: Mapping[str, Any], *, where: str = "own") -> None:
        """Whether the package's functions can take these parameters, and it may run there. Raises `UsageError`."""
        info = check_package(self._packages_on_disk.files(row.digest), default_name=row.name)
        check_params(info, params)
        if where != "own" and info.processes:
            text = "the package starts processes of its own, which only own workers let it"
            raise UsageError("processes-stay", text, hint="submit it with --where own, or take processes out of package.toml")

    async def processor(self, digest: bytes) -> tuple[m.ProcessorIs, bytes]:
        """The signed processor archive with this digest. Raises `NotFound`."""
        package = self._by_processor.get(digest)
        row = self._packages.get(package) if package is not None else None
        if row is None:
            raise NotFound("processor-unknown", f"There is no processor {digest.hex()[:16]}.")
        archive = await trio.to_thread.run_sync(self._packages_on_disk.processor_path(row.digest).read_bytes)
        return m.ProcessorIs(digest, row.digest, row.name, row.signed_for, row.signer, row.signature), archive

    def name_of_package(self, digest: bytes) -> str:
        row = self._packages.get(digest)
        return row.name if row is not None else ""

    def _package_view(self, row: PackageRow) -> views.PackageView:
        said = json.loads(row.manifest)
        return views.PackageView(
            digest=row.digest.hex(), name=row.name, version=row.version, size=row.size, files=said["files"], signer=row.signer.hex(),
            signed_for=row.signed_for, python=said["python"], requirements=said["requirements"], memory_bytes=said["memory_bytes"],
            time_limit_s=said["time_limit_s"], functions=said["functions"], warnings=said["warnings"], uploaded=row.uploaded,
        )  # fmt: skip

    # ---- datasets ---------------------------------------------------------------------------------------------------------
    async def add_dataset(
        self, chunks: AsyncIterator[bytes], *, by: Principal, name: str, kind: str, expected_size: int | None = None
    ) -> tuple[views.DatasetView, bool]:
        """Take a file, or a directory as tar, from a stream."""
        with self._shares.of(by) as share:
            stored = await self._datasets_on_disk.receive(chunks, kind=kind, share=share, expected_size=expected_size)
            return await self._keep_dataset(stored, by=by.name, name=name, kind=kind)

    async def _keep_dataset(self, stored: Any, *, by: str, name: str, kind: str) -> tuple[views.DatasetView, bool]:
        known = self._datasets.get(stored.digest)
        if known is not None:
            return self._dataset_view(known, 0), False
        row = DatasetRow(
            digest=stored.digest, kind=kind, name=tidy_name(name), size=stored.size, files=stored.files, uploaded=time.time(),
            uploaded_by=by,
        )  # fmt: skip
        await self._store.write(lambda conn: datasets.save(conn, row))
        self._datasets[row.digest] = row
        self.quota.put(_key(row), by, row.size)
        return self._dataset_view(row, 0), True

    async def list_datasets(self) -> list[views.DatasetView]:
        used = await self._store.read(datasets.references)
        return [self._dataset_view(r, used.get(r.digest, 0)) for r in sorted(self._datasets.values(), key=lambda r: -r.uploaded)]

    async def dataset(self, ref: str) -> views.DatasetView:
        row = await self.dataset_row(ref)
        used = await self._store.read(datasets.references)
        return self._dataset_view(row, used.get(row.digest, 0))

    async def dataset_row(self, ref: str) -> DatasetRow:
        """A dataset by digest, unique prefix of it, or name (the newest of that name)."""
        found = _by_prefix(ref, self._datasets)
        if found is None:
            named = [r for r in self._datasets.values() if r.name == ref]
            found = max(named, key=lambda r: r.uploaded) if named else None
        if found is None:
            raise NotFound("dataset-unknown", f"There is no dataset {ref[:80]!r}.", hint="company data list")
        return found

    async def data_of(self, digest: bytes) -> tuple[Path, str]:
        """The file or directory of a dataset, and the name under which split sees it."""
        row = self._datasets.get(digest)
        if row is None or not self._datasets_on_disk.has(digest):
            raise NotFound("dataset-unknown", f"Dataset {digest.hex()[:16]} is gone.")
        return self._datasets_on_disk.data_path(digest), row.name

    async def remove_dataset(self, ref: str, *, by: Principal) -> None:
        row = await self.dataset_row(ref)
        _check_own(row, by)
        try:
            await self._store.write(lambda conn: datasets.delete(conn, row.digest) and None)
        except IntegrityError:
            raise Conflict("dataset-in-use", f"Jobs use {row.name}; remove them first.", hint="company job list") from None
        del self._datasets[row.digest]
        self.quota.drop(_key(row))
        await self._datasets_on_disk.delete(row.digest)

    async def change_dataset(self, row: DatasetRow, *, by: Principal) -> None:
        before = self._datasets[row.digest]
        _check_own(before, by)
        self._datasets[row.digest] = row  # at once: a job that comes meanwhile is to see it
        try:
            await self._store.write(lambda conn: datasets.save(conn, row))
        except BaseException:
            self._datasets[row.digest] = before
            raise

    def name_of_dataset(self, digest: bytes) -> str:
        row = self._datasets.get(digest)
        return row.name if row is not None else ""

    def _dataset_view(self, row: DatasetRow, used: int) -> views.DatasetView:
        return views.DatasetView(
            digest=row.digest.hex(), name=row.name, kind=row.kind, size=row.size, files=row.files, uploaded=row.uploaded, jobs=used,  # type: ignore[arg-type]
            private=row.private,
        )  # fmt: skip

    # ---- resumable uploads ------------------------------------------------------------------------------------------------
    async def create_upload(self, *, length: int | None, meta: dict[str, str], by: Principal) -> str:
        if meta.get("kind") == "package" and (length or 0) > MAX_ARCHIVE_BYTES:
            raise package_too_large(length or 0)
        state = await self.uploads.create(length=length, meta=meta_of(meta, by), principal=by.id, now=time.time())
        return state.id

    async def upload_offset(self, upload_id: str) -> tuple[int, int | None, float]:
        state = self.uploads.state(upload_id, now=time.time())
        return state.offset, state.length, state.expires

    async def append_upload(self, upload_id: str, offset: int, chunks: AsyncIterator[bytes], checksum: tuple[str, bytes] | None) -> int:
        return (await self.uploads.append(upload_id, offset, chunks, now=time.time(), checksum=checksum)).offset

    async def finish_upload(self, upload_id: str) -> views.DatasetView | views.PackageView | None:
        """Take a complete upload in, or say again what became of it; None while bytes are missing.

        A caller that leaves does not stop it halfway: the bytes would be in neither place. Raises what the first call raised, again.
        """
        lock = self._finishing.setdefault(upload_id, trio.Lock())
        try:
            with trio.CancelScope(shield=True):
                async with lock:
                    found = await self._finish(upload_id)
        finally:
            if not lock.locked():
                self._finishing.pop(upload_id, None)
        return found

    async def _finish(self, upload_id: str) -> views.DatasetView | views.PackageView | None:
        path = await self.uploads.finish(upload_id, now=time.time())
        if path is None:
            return None
        state = self.uploads.state(upload_id, now=time.time())
        if state.made is not None:
            return await self._became(state.made)
        try:
            view = await self._take_in(state, path)
        except (Invalid, TooLarge) as error:  # what is wrong with the bytes stays wrong: they need not lie here until it expires
            facts = json.loads(json.dumps(error.facts, default=str))
            made = {"refused": type(error).__name__, "code": error.code, "text": error.text, "hint": error.hint, "facts": facts}
            await self.uploads.settle(upload_id, made)
            raise
        kind = "package" if isinstance(view, views.PackageView) else "dataset"
        await self.uploads.settle(upload_id, {"digest": view.digest, "kind": kind})
        return view

    async def _take_in(self, state: UploadState, path: Path) -> views.DatasetView | views.PackageView:
        meta, by = state.meta, principal_of(state)
        name = meta.get("name") or meta.get("filename") or "upload"
        if meta.get("kind") == "package":
            with translated():
                files = await trio.to_thread.run_sync(read_archive_untrusted, path)
            return (await self._keep(files, by=by, name=name, signer=None, signature=None, upload=key_of(state.id)))[0]
        kind = "tree" if meta.get("kind") == "tree" else "file"
        share, digest = self._shares.of(by, key_of(state.id)), self.uploads.digest_of(state.id)
        stored = await self._datasets_on_disk.adopt(path, kind=kind, share=share, digest=digest)
        return (await self._keep_dataset(stored, by=by.name, name=name, kind=kind))[0]

    async def _became(self, made: Mapping[str, Any]) -> views.DatasetView | views.PackageView:
        if "refused" in made:
            kind = TooLarge if made["refused"] == TooLarge.__name__ else Invalid
            raise kind(made["code"], made["text"], hint=made["hint"], **made["facts"])
        return await (self.package if made["kind"] == "package" else self.dataset)(made["digest"])

    async def abort_upload(self, upload_id: str) -> None:
        self.uploads.state(upload_id, now=time.time())
        await self.uploads.forget(upload_id)

    def limits(self, by: Principal | None = None) -> dict[str, int]:
        """What may be uploaded, in bytes; what ``by`` keeps and may still add."""
        free = os.statvfs(self._cutoff)
        found = {
            "package_max_bytes": MAX_BYTES, "dataset_max_bytes": MAX_DATASET_BYTES, "json_max_bytes": 8 << 20,
            "disk_free_bytes": free.f_bavail * free.f_frsize,
        }  # fmt: skip
        if by is None:
            return found
        room, used = self.quota.room(by), self.quota.used(by.name)
        own = {"quota_bytes": self.quota.limit_bytes or 0, "quota_left_bytes": room} if room < UNLIMITED else {}
        return found | {"quota_used_bytes": used} | own


def _key(row: PackageRow | DatasetRow) -> Key:
    """As what a stored thing counts, and how its user names it."""
    return Key("package" if isinstance(row, PackageRow) else "dataset", row.digest.hex())


def _check_own(row: PackageRow | DatasetRow, by: Principal) -> None:
    if by.role == "submitter" and row.uploaded_by != by.name:
        raise Refused("not-your-upload", f"{row.name} was sent by {row.uploaded_by or 'somebody else'}.")


def _by_prefix(ref: str, table: Mapping[bytes, Row]) -> Row | None:
    ref = ref.removeprefix("sha256:").lower()
    if not re.fullmatch(r"[0-9a-f]{6,64}", ref):
        return None
    found = [row for digest, row in table.items() if digest.hex().startswith(ref)]
    if len(found) > 1:
        raise Conflict("ambiguous", f"{ref!r} is the beginning of {len(found)} digests; give more of it.")
    return found[0] if found else None
