"""``company admin backup`` and ``restore``: the whole chief as one tar (I/O; all but `backup` block).

The database is copied first, by SQLite's own backup, then the files: what a committed row names was fsynced before it and only
grows, so the files hold at least what the copy knows, and recovery cuts off the rest. While it runs nobody may delete jobs,
datasets or packages. The last member is the list of all others with their SHA-256; a backup without it is not whole.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from company.chief.append_file import sync_directory
from company.chief.store import Store, meta
from company.chief.store.opening import bring_up_to_date, make_engine
from company.chief.store.writer import is_disk_full, storage_full
from company.chief.tree import TreeFile, extract_tar_untrusted, manifest_of, parse_manifest
from company.paths import ChiefHome
from p2p.base.errors import MalformedMessage, UsageError
from p2p.base.record import record

RESTORED = "contracts-restored"  # the row of `meta`: this key signs no more contracts
MANIFEST = "MANIFEST"
FORMAT = b"company-backup 1\n"
DATABASE = "company.sqlite"
_PARTS = ("identity", "packages", "datasets", "jobs")
_MAX_RESTORE_BYTES = 1 << 50
_COPY_BYTES = 1 << 20


@record
class BackupReport:
    """What was written or read. ``digest``: SHA-256 of the list of files."""

    path: Path
    files: int
    size_bytes: int
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"path": str(self.path), "files": self.files, "size_bytes": self.size_bytes, "digest": self.digest}


async def backup(home: ChiefHome, store: Store, target: Path) -> dict[str, Any]:
    """`write_backup` beside the running chief that owns ``store``; all that was written before this call is in it."""
    await store.write()
    report = await trio.to_thread.run_sync(write_backup, home, target)
    return report.as_dict()


def write_backup(home: ChiefHome, target: Path) -> BackupReport:
    """Write a consistent copy of ``home`` to the new file ``target``; works beside a running chief.

    Raises: `UsageError` ("no-chief", "target-exists"), `Unavailable` ("storage-full"); then there is no ``target``.
    """
    if not home.database.exists():
        raise UsageError("no-chief", f"{home.root} holds no company", hint="give the right --home")
    if target.exists():
        raise UsageError("target-exists", f"{target} exists already", hint="choose another name; backups are never overwritten")
    part = target.with_name(target.name + ".part")
    try:
        with tempfile.TemporaryDirectory(prefix="backup-", dir=home.root) as scratch:
            database = Path(scratch) / DATABASE
            _copy_database(home.database, database)
            fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)  # it holds the company's keys
            with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                files = _write_members(archive, home, database)
                listed = FORMAT + manifest_of(files)
                archive.addfile(_member(MANIFEST, len(listed)), io.BytesIO(listed))
                archive.close()
                file.flush()
                os.fsync(fd)
        os.link(part, target)  # fails, as a rename would not, when somebody made it meanwhile
        sync_directory(target.parent)
    except OSError as error:
        if is_disk_full(error):
            raise storage_full(target) from error
        raise
    finally:
        part.unlink(missing_ok=True)
    return BackupReport(target, len(files), sum(f.size for f in files), hashlib.sha256(listed).hexdigest())


def restore_backup(source: Path, home: ChiefHome, *, end_contracts: bool = False) -> BackupReport:
    """Unpack a backup into a home that has no chief yet, checked file by file.

    Raises: `UsageError` ("home-not-empty", "backup-damaged", "schema-newer", "contracts-in-backup"), `Unavailable` ("storage-full"); then
    ``home`` is untouched.
    """
    if home.root.exists() and any(path.name != "lock" for path in home.root.iterdir()):
        raise UsageError("home-not-empty", f"{home.root} is not empty", hint="restore into a new --home")
    home.root.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".restoring-", dir=home.root.parent))
    try:
        files = _unpack_checked(source, new)
        listed = (new / MANIFEST).read_bytes()
        (new / MANIFEST).unlink()
        _settle_database(new / DATABASE)
        _end_contracts(new / DATABASE, end_contracts)
        ChiefHome(new).create()
        for path in (new / "identity").rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        for folder, _, _ in os.walk(new):
            sync_directory(Path(folder))
        (home.root / "lock").unlink(missing_ok=True)
        os.rename(new, home.root)
        sync_directory(home.root.parent)
    except OSError as error:
        if is_disk_full(error):
            raise storage_full(home.root) from error
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return BackupReport(source, len(files), sum(f.size for f in files), hashlib.sha256(listed).hexdigest())


def _end_contracts(database: Path, may_end: bool) -> None:
    """Nothing that was signed may be signed again with other words: contracts of a backup never go on."""
    conn = sqlite3.connect(database)
    try:
        if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'receipt_half'").fetchone():
            return
        live = conn.execute("SELECT COUNT(*) FROM contract WHERE is_over = 0").fetchone()[0]
        halves = conn.execute("SELECT COUNT(*) FROM receipt_half").fetchone()[0]
        if not live and not halves:
            return
        if not may_end:
            raise UsageError(
                "contracts-in-backup",
                f"the backup holds {live} contracts that were not over and {halves} receipt halves; the company may have signed more "
                "since, and going on from here would prove a fork against itself",
                hint="--end-contracts restores everything else; this key then signs no more contracts",
            )
        conn.execute("UPDATE contract SET is_over = 1")
        conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (RESTORED, b"1"))
        conn.commit()
    finally:
        conn.close()


def _copy_database(source: Path, target: Path) -> None:
    """Copy what is committed now, also while the chief writes, and leave out what a restored chief could not go on with."""
    reading = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
    writing = sqlite3.connect(target)
    try:
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode = DELETE")  # one file, no WAL beside it
        writing.execute("DELETE FROM upload")  # half uploads are not part of a backup
        writing.execute("DELETE FROM token WHERE kind IN ('login', 'session')")
        writing.commit()
        writing.execute("VACUUM")
    finally:
        writing.close()
        reading.close()


def _write_members(archive: tarfile.TarFile, home: ChiefHome, database: Path) -> list[TreeFile]:
    files = [_add(archive, DATABASE, database)]
    for part in _PARTS:
        for path in _files_under(home.root / part):
            try:
                files.append(_add(archive, path.relative_to(home.root).as_posix(), path))
            except FileNotFoundError:
                continue  # a spool file that became a result, or was given up, since it was listed
    return files


def _files_under(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".new-", ".old-")))
        for name in sorted(names):
            if not name.startswith("spool-") and not os.path.islink(os.path.join(parent, name)):
                yield Path(parent, name)


def _add(archive: tarfile.TarFile, name: str, path: Path) -> TreeFile:
    """Copy as many bytes as the file has now; it may be growing."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        reader = _Hashing(file, size)
        archive.addfile(_member(name, size), reader)
    return TreeFile(name, size, reader.digest.digest())


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o600
    return member


class _Hashing:
    """Reads exactly ``size`` bytes and hashes them."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self._file = file
        self._left = size
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(min(self._left, _COPY_BYTES if size < 0 else size))
        self._left -= len(data)
        self.digest.update(data)
        return data


def _unpack_checked(source: Path, target: Path) -> list[TreeFile]:
    try:
        with source.open("rb") as file:
            found = extract_tar_untrusted(file, target, max_bytes=_MAX_RESTORE_BYTES, max_files=_MAX_RESTORE_BYTES)
    except FileNotFoundError:
        raise UsageError("no-backup", f"there is no {source}") from None
    except MalformedMessage as error:
        raise _damaged(source, error.text) from error
    manifest = target / MANIFEST
    if not manifest.is_file():
        raise _damaged(source, "its list of files is missing: it was cut off, or is no backup")
    listed = manifest.read_bytes()
    if not listed.startswith(FORMAT):
        raise _damaged(source, "it was made by another program or version")
    try:
        wanted = {file.path: file for file in parse_manifest(listed[len(FORMAT) :])}
    except (ValueError, TypeError) as error:
        raise _damaged(source, f"its list of files is unreadable: {error}") from error
    files = [file for file in found if file.path != MANIFEST]
    for entry in files:
        if wanted.pop(entry.path, None) != entry:
            raise _damaged(source, f"{entry.path} is not what was backed up")
    if wanted:
        raise _damaged(source, f"{min(wanted)} is missing")
    if not (target / DATABASE).is_file():
        raise _damaged(source, "it holds no database")
    return files


def _settle_database(path: Path) -> None:
    """Migrate it, and skip boot numbers: chiefs that ran since the backup have given out tokens that must not come again."""
    path.chmod(0o600)
    engine = make_engine(path, is_writer=True)
    try:
        with engine.connect() as conn:
            bring_up_to_date(conn)
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            meta.count_boot(conn, meta.RESTORE_SKIPS_BOOTS)
            conn.exec_driver_sql("COMMIT")
    finally:
        engine.dispose()


def _damaged(source: Path, text: str) -> UsageError:
    return UsageError("backup-damaged", f"{source} cannot be restored: {text}", hint="use another backup")
