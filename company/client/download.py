"""Fragment path 9/9, client's half - fetch the final result, resumed where it stopped and checked (I/O).

The bytes go to ``NAME.part`` beside the target; its strong ETag is kept with it, so that a result that has changed meanwhile starts
over instead of being patched together. The finished file takes its name only when its SHA-256 is the promised one.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote

from company.client.transport import Transport
from company.errors import ChiefUnreachable, CompanyError, IntegrityError, LimitError
from p2p.base.record import record

BLOCK_BYTES = 1 << 20
TRIES = 6
PAUSE_S = 0.25  # before the first new try; doubles up to 8 s
Progress = Callable[[str, int, int], None]
_HEX = re.compile(r"[0-9a-f]{64}")


@record
class Downloaded:
    """A complete, verified file. ``media_type`` as the chief says."""

    path: Path
    name: str
    size: int
    digest: str
    media_type: str


def download(
    transport: Transport, path: str, query: Mapping[str, str], part: Path, *, verify: bool = True, progress: Progress | None = None
) -> Downloaded:
    """Fetch into ``part``, resuming what is there. Raises `IntegrityError` when the digest differs (the part is removed)."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _attempt(transport, path, query, part, verify, progress)
        except ChiefUnreachable:
            grown = part.exists() and part.stat().st_size > before
            failures = 1 if grown else failures + 1
            if failures >= TRIES or not part.exists():
                raise
            time.sleep(min(8.0, PAUSE_S * 2**failures))


def _attempt(transport: Transport, path: str, query: Mapping[str, str], part: Path, verify: bool, progress: Progress | None) -> Downloaded:
    etag_file = part.with_name(part.name + ".etag")
    hasher = hashlib.sha256()
    have, headers = 0, {}
    if part.exists() and etag_file.exists():
        have = part.stat().st_size
        headers = {"Range": f"bytes={have}-", "If-Range": etag_file.read_text()}
    if not have:
        headers = {}
    with transport.stream(path, query=query, headers=headers) as response:
        resumed = response.status == 206 and (response.getheader("Content-Range") or "").startswith(f"bytes {have}-")
        if response.status == 206 and not resumed:
            raise IntegrityError("wrong-range", "the chief sent another part than the one asked for")
        etag = response.getheader("ETag") or ""
        total = (have if resumed else 0) + int(response.getheader("Content-Length") or 0)
        etag_file.write_text(etag)
        if resumed:
            with part.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    hasher.update(block)
        with part.open("ab" if resumed else "wb") as file:
            size = _receive(response, file, hasher, have if resumed else 0, total, progress)
        name = _name(response.getheader("Content-Disposition") or "")
        media_type = response.getheader("Content-Type") or ""
    digest = hasher.hexdigest()
    promised = etag.removeprefix("W/").strip('"').removeprefix("sha256:").removeprefix("sha256-")
    if verify and _HEX.fullmatch(promised) and promised != digest:
        part.unlink()
        etag_file.unlink()
        raise IntegrityError("digest-mismatch", f"received {digest}, promised was {promised}", hint="download again")
    etag_file.unlink()
    return Downloaded(part, name, size, digest, media_type)


def _receive(
    response: http.client.HTTPResponse, file: BinaryIO, hasher: hashlib._Hash, done: int, total: int, progress: Progress | None
) -> int:
    """Append the body to the file; a short body is a lost connection."""
    while block := response.read(BLOCK_BYTES):
        try:
            file.write(block)
        except OSError as error:
            raise LimitError("cannot-write", f"{file.name} cannot be written: {error.strerror}") from None
        hasher.update(block)
        done += len(block)
        if progress is not None:
            progress("download", done, total)
    if total and done != total:
        raise ConnectionResetError(f"the stream ended at {done} of {total} bytes")
    return done


def _name(disposition: str) -> str:
    """A file name out of Content-Disposition, without any folder; empty when it names none."""
    star = re.search(r"filename\*=UTF-8''([^;]+)", disposition)
    plain = re.search(r'filename="([^"]*)"', disposition)
    name = unquote(star[1]) if star else plain[1] if plain else ""
    name = name.replace("\\", "/").rpartition("/")[2].replace("\0", "")
    return "" if name in (".", "..") else name[:200]


def unpack_untrusted(archive: Path, folder: Path) -> list[Path]:
    """Unpack a stored zip below ``folder``. Nothing leaves the folder. Raises `IntegrityError` for unsafe names, links and bad sums."""
    written: list[Path] = []
    try:
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                target = folder.joinpath(*_safe_parts(info))
                if info.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with bundle.open(info) as member, target.open("wb") as file:
                    shutil.copyfileobj(member, file, BLOCK_BYTES)
                written.append(target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:  # RuntimeError: encrypted
        raise IntegrityError("bad-zip", f"the result's zip is damaged: {error}") from None
    except OSError as error:
        raise CompanyError("cannot-write", f"{error.filename or folder} cannot be written: {error.strerror}") from None
    return written


def _safe_parts(info: zipfile.ZipInfo) -> tuple[str, ...]:
    path = PurePosixPath(info.filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in info.filename or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise IntegrityError("unsafe-name", f"the result's zip has an unsafe entry {info.filename[:100]!r}")
    return path.parts
