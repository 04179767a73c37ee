"""Fragment path 1/9, its disk side - datasets by digest: ``datasets/<sha256>/data``, a file or a folder (I/O).

A dataset is spooled and hashed while it comes, and appears under its digest by one rename, whole and fsynced, or not at all. A
file's digest is that of its bytes; a tree's is that of its manifest, so the same files are one dataset however they were packed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from company.chief.append_file import sync_directory
from company.chief.facade import Invalid, TooLarge
from company.chief.share import Share
from company.chief.spool import BUFFER_BYTES, Spool
from company.chief.store.writer import is_disk_full, storage_full
from company.chief.tree import MAX_FILES, TreeFile, extract_tar_untrusted, manifest_of, parse_manifest
from p2p.base.errors import MalformedMessage
from p2p.base.record import record

MAX_BYTES = 1 << 40
_NEW = ".new-"
_OLD = ".old-"


@record(kw_only=True)
class StoredDataset:
    """What `DatasetStore` took in. ``created``: it was not there before."""

    digest: bytes
    kind: str
    size: int
    files: int
    manifest_digest: bytes | None
    created: bool


class DatasetStore:
    """The datasets of one chief on disk; who may delete is decided by the rows."""

    def __init__(self, datasets_dir: Path, spool_dir: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
        """``spool_dir``: on the same file system. ``max_bytes``: of an upload, and of what it unpacks to."""
        self._dir = datasets_dir
        self._spool_dir = spool_dir
        self._max_bytes = max_bytes
        self._max_files = max_files

    async def receive(
        self, chunks: AsyncIterator[bytes], *, kind: str, share: Share, expected_size: int | None = None
    ) -> StoredDataset:  # fmt: skip
        """Take a dataset from a stream; a tree comes as tar or tar.gz. ``share``: of whom it counts as.

        Raises: `TooLarge`, `StorageFull` ("quota-exceeded"), `Invalid` ("archive-refused", "upload-incomplete", "bad-kind"),
        `Unavailable` ("storage-full"), and what ``chunks`` raises; nothing is left behind then.
        """
        _check_kind(kind)
        if expected_size is not None and expected_size > self._max_bytes:
            raise TooLarge(
                "too-large", f"dataset may have {self._max_bytes} bytes, got {expected_size}", limit=self._max_bytes, actual=expected_size
            )
        if expected_size is not None:
            share.resize(expected_size)
        else:
            chunks = share.counted(chunks)
        if expected_size is not None and expected_size > shutil.disk_usage(self._spool_dir).free:
            raise storage_full(self._spool_dir / "dataset")
        fd, name = tempfile.mkstemp(prefix="dataset-", dir=self._spool_dir)
        path = Path(name)
        digest = hashlib.sha256()
        try:
            try:
                spool = Spool(fd, max_bytes=self._max_bytes, updates=(digest.update,), what="dataset")
                size = await spool.take(chunks)
            finally:
                os.close(fd)
            if expected_size is not None and size != expected_size:
                raise Invalid("upload-incomplete", f"dataset of {expected_size} bytes was announced, {size} came")
            return await self._within(share, path, kind, digest.digest() if kind == "file" else None)
        finally:
            os.unlink(path)

    async def adopt(self, path: Path, *, kind: str, share: Share, digest: bytes | None = None) -> StoredDataset:
        """Take the finished file ``path`` (of a resumable upload, same file system) as a dataset; it is gone afterwards.

        ``digest``: of a file, where it was hashed as it came; else the file is read once more.
        Raises: as `receive`; then ``path`` stays.
        """
        _check_kind(kind)
        stored = await self._within(share, path, kind, digest if kind == "file" else None)
        os.unlink(path)
        return stored

    async def _within(self, share: Share, path: Path, kind: str, digest: bytes | None) -> StoredDataset:
        if kind == "file":  # it has the size that counts already
            return await trio.to_thread.run_sync(self._take_in, path, kind, digest, self._max_bytes)
        async with share.unpacking:
            room = share.room_for_unpacked()
            try:
                stored = await trio.to_thread.run_sync(self._take_in, path, kind, digest, min(room, self._max_bytes))
            except TooLarge as error:
                raise share.refused(error, room) from error
            if stored.created:
                share.keep(stored.size)
            return stored

    def data_path(self, digest: bytes) -> Path:
        """The file or folder that ``split`` gets."""
        return self._dir / digest.hex() / "data"

    def has(self, digest: bytes) -> bool:
        """Whether it is on disk."""
        return self.data_path(digest).exists()

    def manifest(self, digest: bytes) -> list[TreeFile]:
        """The files of a tree, sorted by path. Blocks."""
        return parse_manifest((self._dir / digest.hex() / "manifest").read_bytes())

    def verify(self, digest: bytes) -> bool:
        """Whether the bytes on disk still have this digest. Blocks, for as long as it takes to read them."""
        data = self.data_path(digest)
        if data.is_file():
            return _hash_file(data) == digest
        if not data.is_dir():
            return False
        paths = [path for path in data.rglob("*") if path.is_file()]
        found = [TreeFile(path.relative_to(data).as_posix(), path.stat().st_size, _hash_file(path)) for path in paths]
        return hashlib.sha256(manifest_of(found)).digest() == digest

    async def delete(self, digest: bytes) -> None:
        """Remove it from disk; none there is no error. Delete its row first."""
        await trio.to_thread.run_sync(self._delete, digest)

    def sweep(self) -> None:
        """Remove what a crash left half-done; at start-up only. Blocks."""
        for pattern in (f"{_NEW}*", f"{_OLD}*"):
            for path in self._dir.glob(pattern):
                shutil.rmtree(path)
        for path in self._spool_dir.glob("dataset-*"):
            path.unlink()

    def digests(self) -> list[bytes]:
        """What is on disk; compare with the rows at start-up."""
        return [bytes.fromhex(path.name) for path in sorted(self._dir.iterdir()) if len(path.name) == 64]

    def _take_in(self, path: Path, kind: str, digest: bytes | None, max_bytes: int) -> StoredDataset:
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._dir))
        try:
            if kind == "tree":
                stored = self._unpack(path, new, max_bytes)
            else:
                stored = StoredDataset(
                    digest=digest or _hash_file(path), kind="file", size=path.stat().st_size, files=1, manifest_digest=None, created=True
                )
                path.chmod(0o644)
                _sync_file(path)
                os.link(path, new / "data")
            return self._publish(new, stored)
        except OSError as error:
            if is_disk_full(error):
                raise storage_full(self._dir / "data") from error
            raise
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _unpack(self, path: Path, new: Path, max_bytes: int) -> StoredDataset:
        (new / "data").mkdir()
        try:
            with path.open("rb") as source:
                files = extract_tar_untrusted(source, new / "data", max_bytes=max_bytes, max_files=self._max_files)
        except MalformedMessage as error:
            if "limit" in error.facts:
                raise TooLarge("too-large", error.text, **error.facts) from error
            raise Invalid("archive-refused", error.text, errors=[{"path": "", "line": None, "detail": error.text}]) from error
        manifest = manifest_of(files)
        (new / "manifest").write_bytes(manifest)
        _sync_file(new / "manifest")
        for folder, _, _ in os.walk(new):
            sync_directory(Path(folder))
        digest = hashlib.sha256(manifest).digest()
        return StoredDataset(
            digest=digest, kind="tree", size=sum(f.size for f in files), files=len(files), manifest_digest=digest, created=True
        )  # fmt: skip

    def _publish(self, new: Path, stored: StoredDataset) -> StoredDataset:
        new.chmod(0o755)
        sync_directory(new)
        try:
            os.rename(new, self._dir / stored.digest.hex())
        except OSError:
            if not self.has(stored.digest):
                raise
            return StoredDataset(
                digest=stored.digest, kind=stored.kind, size=stored.size, files=stored.files, manifest_digest=stored.manifest_digest,
                created=False,
            )  # fmt: skip
        sync_directory(self._dir)
        return stored

    def _delete(self, digest: bytes) -> None:
        old = self._dir / f"{_OLD}{digest.hex()}"
        try:
            os.rename(self._dir / digest.hex(), old)  # at once, so that a crash leaves no half dataset under its digest
        except FileNotFoundError:
            return
        shutil.rmtree(old)


def _check_kind(kind: str) -> None:
    if kind not in ("file", "tree"):
        raise Invalid("bad-kind", f"dataset kind must be file or tree, got {kind[:40]!r}")


def _hash_file(path: Path) -> bytes:
    digest = hashlib.sha256()
    buffer = bytearray(BUFFER_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.digest()


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
