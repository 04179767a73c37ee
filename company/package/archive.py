"""A package out of a stranger's zip, tar, tar.gz or multipart upload (pure but for reading the given file).

Nothing is written while reading, so no path can escape; still every path is checked here, once, for all who write later.
Sizes are counted on the bytes that really come out, never on what a header claims.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO

from company.package.errors import ArchiveRefused, too_large, too_many_files
from company.package.paths import UnsafePath, is_ignored, path_key, safe_path, show

MAX_BYTES = 100 << 20  # unpacked
MAX_FILES = 10_000
CHUNK_BYTES = 64 << 10
HEADER_BYTES = 1536  # what one entry may cost beside its content: header, long-name header, padding


def read_archive_untrusted(
    source: BinaryIO | Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES, strip: bool = True
) -> dict[str, bytes]:
    """Return the files of an archive, path to content; version control, caches and byte code are left out.

    ``strip``: whether a single folder that holds everything is taken off. ``source`` must be seekable if it is a file object.
    Raises only `ArchiveRefused` (a `MalformedMessage`); a path that cannot be opened raises `OSError`.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return read_archive_untrusted(file, max_bytes=max_bytes, max_files=max_files, strip=strip)
    collected = _Collector(max_bytes, max_files)
    try:
        source.seek(0)
        magic = source.read(512)
        source.seek(0)
        if magic[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            _read_zip(source, collected)
        elif magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=source, mode="rb") as unpacked:
                _read_tar(unpacked, collected)
        elif magic[257:262] == b"ustar":
            _read_tar(source, collected)
        else:
            raise ArchiveRefused("archive-format", "this is neither a zip nor a tar nor a tar.gz archive")
    except ArchiveRefused:
        raise
    except MemoryError:
        raise ArchiveRefused("archive-corrupt", "the archive needs more memory than there is") from None
    except Exception as error:  # noqa: BLE001 - zipfile, tarfile and zlib raise a wide set; all of it is the sender's fault
        raise ArchiveRefused("archive-corrupt", f"the archive is damaged: {type(error).__name__}: {str(error)[:200]}") from None
    return collected.result(strip)


def tidy_files_untrusted(files: Mapping[str, bytes], *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> dict[str, bytes]:
    """Put the parts of a multipart upload under the same rules as an archive. Raises only `ArchiveRefused`."""
    collected = _Collector(max_bytes, max_files)
    for raw, content in files.items():
        path = collected.admit(raw, is_folder=False)
        if path is not None:
            collected.take(path, iter((content,)))
    return collected.result(strip=True)


def _refused(code: str, path: str, detail: str) -> ArchiveRefused:
    return ArchiveRefused(code, f"{show(path)} {detail}", path=show(path))


class _Collector:
    """Files accepted so far, under the limits and the rules for paths."""

    def __init__(self, max_bytes: int, max_files: int) -> None:
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.files: dict[str, bytes] = {}
        self._kinds: dict[str, tuple[str, bool]] = {}  # path key to (path, is a folder)
        self._total = 0
        self._entries = 0

    def admit(self, raw: str, *, is_folder: bool) -> str | None:
        """Return the path to `take`, None for what is left out."""
        self._entries += 1
        if self._entries > self.max_files:
            raise too_many_files(self.max_files)
        try:
            path = safe_path(raw)
        except UnsafePath as error:
            raise _refused("archive-unsafe-path", raw, f"is refused: {error}") from None
        if not path or is_ignored(path):
            return None
        parts = path.split("/")
        for depth in range(1, len(parts)):
            self._enter("/".join(parts[:depth]), is_folder=True)
        self._enter(path, is_folder=is_folder)
        return None if is_folder else path

    def take(self, path: str, chunks: Iterator[bytes], *, claimed_bytes: int = 0) -> None:
        """Read one file to its end. ``claimed_bytes`` only serves the message when it is too large."""
        content = bytearray()
        for chunk in chunks:
            content += chunk
            if self._total + len(content) > self.max_bytes:
                sizes = {name: len(data) for name, data in self.files.items()} | {path: max(len(content), claimed_bytes)}
                raise too_large(self.max_bytes, self._total + len(content), sizes)
        self._total += len(content)
        self.files[path] = bytes(content)

    def result(self, strip: bool) -> dict[str, bytes]:
        tops = {path.split("/", 1)[0] for path in self.files}
        top = next(iter(tops), "")
        # a lone processor/ is no wrapper: taking it off would only make the message about the missing split.py obscure
        if strip and len(tops) == 1 and top not in self.files and top != "processor":
            return {path[len(top) + 1 :]: data for path, data in sorted(self.files.items())}
        return dict(sorted(self.files.items()))

    def _enter(self, path: str, *, is_folder: bool) -> None:
        key = path_key(path)
        before = self._kinds.get(key)
        if before is None:
            self._kinds[key] = (path, is_folder)
        elif before != (path, True) or not is_folder:  # only the very same folder may come twice
            twin = f"and {show(before[0])} are one name on some file systems"
            raise _refused("archive-duplicate", path, "is there twice" if before[0] == path else twin)


class _CappedReads:
    """A file whose single reads have a bound: zipfile reads the whole central directory at once, however large it claims to be."""

    def __init__(self, file: BinaryIO, cap: int) -> None:
        self._file = file
        self._cap = cap

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._cap + 1 if size < 0 else min(size, self._cap + 1))
        if len(data) > self._cap:
            raise ArchiveRefused("archive-corrupt", f"the archive's table of contents is larger than {self._cap} bytes")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def _read_zip(file: BinaryIO, collected: _Collector) -> None:
    capped = _CappedReads(file, max(1 << 20, collected.max_files * 512))
    with zipfile.ZipFile(capped) as archive:  # read, seek and tell are all it uses
        wanted: list[tuple[str, zipfile.ZipInfo]] = []
        for info in archive.infolist():
            if "\x00" in info.orig_filename:  # zipfile cuts the name there, other tools may not
                raise _refused("archive-unsafe-path", info.orig_filename, "is refused: it contains a NUL")
            path = collected.admit(info.filename, is_folder=info.is_dir())
            _refuse_special(info.filename, info.external_attr >> 16)
            if info.flag_bits & 0x1:
                raise _refused("archive-encrypted", info.filename, "is encrypted; send the archive without a password")
            if path is not None:
                wanted.append((path, info))
        claimed = sum(info.file_size for _, info in wanted)
        if claimed > collected.max_bytes:  # an honest archive is refused before it is unpacked, with all its large files named
            raise too_large(collected.max_bytes, claimed, {path: info.file_size for path, info in wanted})
        for path, info in wanted:
            with archive.open(info) as member:
                collected.take(path, _chunks(member))


def _chunks(member: IO[bytes]) -> Iterator[bytes]:
    while chunk := member.read(CHUNK_BYTES):
        yield chunk


def _refuse_special(name: str, mode: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise _refused("archive-link", name, "is a symbolic link; put the file itself into the archive")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused("archive-special-file", name, "is a device, pipe or socket")


class _CountedReads:
    """A stream that ends a bomb: no more than ``limit`` bytes may come out of it."""

    def __init__(self, file: BinaryIO | gzip.GzipFile, limit: int, collected: _Collector) -> None:
        self._file = file
        self._limit = limit
        self._count = 0
        self._collected = collected

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._count += len(data)
        if self._count > self._limit:
            sizes = {name: len(content) for name, content in self._collected.files.items()}
            raise too_large(self._collected.max_bytes, self._count, sizes)
        return data


def _read_tar(file: BinaryIO | gzip.GzipFile, collected: _Collector) -> None:
    limit = collected.max_bytes + collected.max_files * HEADER_BYTES + (1 << 20)
    counted = _CountedReads(file, limit, collected)
    with tarfile.open(fileobj=counted, mode="r|", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for info in archive:
            path = collected.admit(info.name, is_folder=info.isdir())
            if info.issym() or info.islnk():
                kind = "symbolic" if info.issym() else "hard"
                raise _refused("archive-link", info.name, f"is a {kind} link; put the file itself into the archive")
            if info.type == tarfile.GNUTYPE_SPARSE or info.sparse is not None or not (info.isreg() or info.isdir()):
                raise _refused("archive-special-file", info.name, "is a device, pipe or sparse file")
            if path is not None:
                member = archive.extractfile(info)
                if member is None:
                    raise _refused("archive-corrupt", info.name, "cannot be read")
                collected.take(path, _chunks(member), claimed_bytes=info.size)
        # tarfile takes a damaged header for the end: what follows must be padding, and reading on checks gzip's own sum
        while rest := archive.fileobj.read(CHUNK_BYTES):
            if rest.strip(b"\x00"):
                raise ArchiveRefused("archive-corrupt", "the archive is damaged: there is data after its end")


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of ``files``: sorted, with fixed times and modes, so that the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[path], compresslevel=6)
    return buffer.getvalue()
