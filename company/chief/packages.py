"""Fragment path 1/9, its disk side - packages by digest: ``packages/<sha256>/{files/…,package.zip,processor.zip}`` (I/O).

`company.package` reads and checks; here a checked package is put on disk, whole and fsynced under its digest, or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from company.chief.append_file import sync_directory
from company.chief.store.writer import is_disk_full, storage_full
from company.package import archive_of, files_digest, processor_archive
from p2p.base.errors import InvariantBroken

_NEW = ".new-"
_OLD = ".old-"


class PackageStore:
    """The packages of one chief on disk. Every method blocks: call them in a thread."""

    def __init__(self, packages_dir: Path) -> None:
        self._dir = packages_dir

    def put(self, digest: bytes, files: Mapping[str, bytes]) -> bool:
        """Keep a checked package; return whether it is new. Raises `Unavailable` ("storage-full")."""
        if self.has(digest):
            return False
        if files_digest(files) != digest:
            raise InvariantBroken(f"the files of a package have the digest {files_digest(files).hex()}, not {digest.hex()}")
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._dir))
        try:
            for path, data in files.items():
                _write(new / "files" / path, data)
            _write(new / "package.zip", archive_of(files))
            _write(new / "processor.zip", processor_archive(files))
            for folder, _, _ in os.walk(new):
                os.chmod(folder, 0o755)
                sync_directory(Path(folder))
            try:
                os.rename(new, self._dir / digest.hex())
            except OSError:
                if not self.has(digest):
                    raise
                return False
            sync_directory(self._dir)
        except OSError as error:
            if is_disk_full(error):
                raise storage_full(self._dir / "package") from error
            raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return True

    def directory(self, digest: bytes) -> Path:
        """The unpacked package."""
        return self._dir / digest.hex() / "files"

    def archive_path(self, digest: bytes) -> Path:
        """The whole package as a zip."""
        return self._dir / digest.hex() / "package.zip"

    def processor_path(self, digest: bytes) -> Path:
        """What workers get of package ``digest``, as a zip."""
        return self._dir / digest.hex() / "processor.zip"

    def archive_digest(self, digest: bytes) -> bytes:
        """SHA-256 of the zip of the whole package: the ETag of its download."""
        return hashlib.sha256(self.archive_path(digest).read_bytes()).digest()

    def has(self, digest: bytes) -> bool:
        """Whether it is on disk."""
        return self.directory(digest).is_dir()

    def files(self, digest: bytes) -> dict[str, bytes]:
        """The content of every file, by path."""
        root = self.directory(digest)
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}

    def verify(self, digest: bytes) -> bool:
        """Whether the files on disk still have this digest."""
        return self.has(digest) and files_digest(self.files(digest)) == digest

    def delete(self, digest: bytes) -> None:
        """Remove it from disk; none there is no error. Delete its row first."""
        old = self._dir / f"{_OLD}{digest.hex()}"
        try:
            os.rename(self._dir / digest.hex(), old)  # at once, so that a crash leaves no half package under its digest
        except FileNotFoundError:
            return
        shutil.rmtree(old)

    def sweep(self) -> None:
        """Remove what a crash left half-done; at start-up only."""
        for pattern in (f"{_NEW}*", f"{_OLD}*"):
            for path in self._dir.glob(pattern):
                shutil.rmtree(path)

    def digests(self) -> list[bytes]:
        """What is on disk; compare with the rows at start-up."""
        return [bytes.fromhex(path.name) for path in sorted(self._dir.iterdir()) if len(path.name) == 64]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb", buffering=0) as file:
        os.fchmod(fd, 0o644)
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(fd)
