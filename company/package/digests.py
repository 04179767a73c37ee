"""What a package and its processor are called: SHA-256 over their sorted file lists (pure).

The digest names the content, not the archive: zip, tar, folder and upload form of the same files are one package. The processor
is the part that workers get (package.toml and processor/), so a change to split or merge alone sends them nothing new.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

import msgpack

from company.package.archive import MAX_BYTES, MAX_FILES, archive_of, read_archive_untrusted
from company.package.errors import ArchiveRefused

DIGEST_BYTES = 32
MAX_PROCESSOR_BYTES = (16 << 20) - (64 << 10)  # of the archive: one frame of 16 MiB with room for its header


def files_digest(files: Mapping[str, bytes]) -> bytes:
    """SHA-256 of the msgpack array of [path, size, SHA-256], sorted by path."""
    rows = [[path, len(files[path]), hashlib.sha256(files[path]).digest()] for path in sorted(files)]
    return hashlib.sha256(msgpack.packb(rows, use_bin_type=True)).digest()


def processor_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The part of a package that workers get."""
    return {path: data for path, data in files.items() if path == "package.toml" or path.startswith("processor/")}


def processor_digest(files: Mapping[str, bytes]) -> bytes:
    """The name of the processor of the whole package ``files``."""
    return files_digest(processor_files(files))


def processor_archive(files: Mapping[str, bytes]) -> bytes:
    """The processor of the whole package ``files`` as a zip; the same files give the same bytes."""
    return archive_of(processor_files(files))


def processor_files_untrusted(data: bytes, expected: bytes) -> dict[str, bytes]:
    """Return the files of a processor archive whose digest is ``expected``. Raises only `ArchiveRefused`."""
    files = read_archive_untrusted(io.BytesIO(data), max_bytes=MAX_BYTES, max_files=MAX_FILES, strip=False)
    found = files_digest(files)
    if found != expected:
        raise ArchiveRefused("archive-bad-digest", f"the processor is {found.hex()[:16]}…, expected {expected.hex()[:16]}…")
    return files
