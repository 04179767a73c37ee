"""Fragment path 6/9 - processors: cached by digest across jobs and starts, verified before their first use (I/O).

What lies in the cache is as untrusted as what comes from the wire: digest and signature are checked again after every start,
before a file of it goes to a child. Verified files are kept in memory up to a bound, because every child needs them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgpack
import trio

from company.messages import NeedProcessor, ProcessorIs
from company.package import PackageClaim, processor_files_untrusted, verify_package
from company.package.manifest import ManifestError, parse_manifest_untrusted
from p2p.base.errors import MalformedMessage, ParallelError, PeerError

MEMORY_LIMIT_BYTES = 32 << 20
MAX_CACHED = 200  # archives on disk, oldest use first out

Files = dict[str, bytes]


class Processors:
    """The processors of one worker. ``chief_key``: who may sign for others."""

    def __init__(self, folder: Path, *, chief_key: bytes, require_client_signature: bool, ask: Callable[[NeedProcessor], None]) -> None:
        self._folder = folder
        self._chief_key = chief_key
        self._require_client = require_client_signature
        self._ask = ask
        self._ready: OrderedDict[bytes, Files] = OrderedDict()
        self._ready_bytes = 0
        self._waiting: dict[bytes, trio.Event] = {}
        self._refused: dict[bytes, ParallelError] = {}

    async def get(self, digest: bytes) -> Files:
        """Return the verified files, asking the chief if they are not here. Raises `PeerError` when they are refused."""
        files = self.cached(digest)
        if files is not None:
            return files
        stored = await trio.to_thread.run_sync(self._read, digest)
        files = self.cached(digest)  # it may have come while the disk was read
        if files is not None:
            return files
        if stored is not None:
            try:
                return await self._admit(*stored)
            except PeerError:
                self._remove(digest)  # damaged, or signed by a chief that this worker no longer belongs to: ask anew
        if digest not in self._waiting:
            self._waiting[digest] = trio.Event()
            self._ask(NeedProcessor(digest))
        await self._waiting[digest].wait()
        error = self._refused.pop(digest, None)
        if error is not None:
            raise error
        files = self.cached(digest)
        if files is None:
            raise PeerError("processor-refused", "the processor was refused a moment ago")
        return files

    def has(self, digest: bytes) -> bool:
        """Whether `get` will not have to ask, as far as one can tell without reading."""
        return digest in self._ready or (self._folder / digest.hex()).is_dir()

    def cached(self, digest: bytes) -> Files | None:
        """The verified files if they are in memory."""
        files = self._ready.get(digest)
        if files is not None:
            self._ready.move_to_end(digest)
        return files

    def pending(self) -> tuple[bytes, ...]:
        """What was asked for and has not come: to be asked again on a new channel."""
        return tuple(self._waiting)

    async def offer(self, message: ProcessorIs, archive: bytes) -> None:
        """A processor came: verify, store, wake who waits. A refusal reaches those who wait, and is raised. Raises `PeerError`."""
        digest = message.processor
        try:
            await self._admit(message, archive)
            await trio.to_thread.run_sync(self._write, message, archive)
        except PeerError as error:
            self._refused[digest] = error
            raise
        finally:
            waiting = self._waiting.pop(digest, None)
            if waiting is not None:
                waiting.set()
            else:
                self._refused.pop(digest, None)

    async def _admit(self, message: ProcessorIs, archive: bytes) -> Files:
        files = await trio.to_thread.run_sync(self._verified, message, archive)
        if message.processor not in self._ready:
            self._ready[message.processor] = files
            self._ready_bytes += _size(files)
        while self._ready_bytes > MEMORY_LIMIT_BYTES and len(self._ready) > 1:
            self._ready_bytes -= _size(self._ready.popitem(last=False)[1])
        return files

    def _verified(self, message: ProcessorIs, archive: bytes) -> Files:
        """Check digest, then signature. Raises `PeerError`."""
        files = processor_files_untrusted(archive, message.processor)
        try:
            version = parse_manifest_untrusted(files["package.toml"]).version if "package.toml" in files else ""
        except ManifestError as error:
            raise MalformedMessage(f"package.toml: {error}") from None
        claim = PackageClaim(
            package=message.package, processor=message.processor, name=message.name, version=version, signed_for=message.signed_for
        )
        verify_package(claim, signer=message.signer, signature=message.signature, chief=self._chief_key)
        if self._require_client and message.signer == self._chief_key:
            raise PeerError("signer-not-trusted", "this worker's owner accepts only packages that a client signed with its own key")
        return files

    # -- the cache on disk: <hex digest>/{processor.zip,claim}
    def _read(self, digest: bytes) -> tuple[ProcessorIs, bytes] | None:
        folder = self._folder / digest.hex()
        try:
            claim = msgpack.unpackb((folder / "claim").read_bytes(), use_list=True)
            archive = (folder / "processor.zip").read_bytes()
            message = ProcessorIs.parse_untrusted(claim)
            os.utime(folder)
        except (OSError, ValueError, TypeError, MalformedMessage, msgpack.UnpackException):
            return None
        return (message, archive) if message.processor == digest else None

    def _write(self, message: ProcessorIs, archive: bytes) -> None:
        folder = self._folder / message.processor.hex()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, data in (("processor.zip", archive), ("claim", msgpack.packb(message.as_array(), use_bin_type=True))):
            part = folder / f".{name}.part"
            part.write_bytes(data)
            os.replace(part, folder / name)
        self._trim()

    def _trim(self) -> None:
        folders = sorted((f for f in self._folder.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime)
        for folder in folders[: max(0, len(folders) - MAX_CACHED)]:
            self._remove(bytes.fromhex(folder.name))

    def _remove(self, digest: bytes) -> None:
        folder = self._folder / digest.hex()
        for path in folder.glob("*"):
            path.unlink(missing_ok=True)
        if folder.is_dir():
            folder.rmdir()


def _size(files: Files) -> int:
    return sum(len(data) for data in files.values())
