"""Fragment path 8/9, its disk side - results in files that only grow, one record a batch (I/O).

``results/<n>.seg`` = ``PARSEG1\\0`` + job id (16 bytes), then records, each a frame with the header
``[job, first, count, attempt, token, input_digest, digest, blobs, sum]``. The sum covers the other header fields, the sizes and the
body: eight bytes XXH3-64, or an int, CRC-32, in records of earlier releases. A record counts once its row is committed: `recover` cuts
every file back to its last committed row. Results too large to inline lie beside the segments as ``blob-<index>``; the header names
them and their item is empty.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import xxhash

from company.chief.append_file import AppendFile, Buffer, sync_directory
from company.chief.logs import LogEntry, LogStore
from company.chief.page_cache import LET_GO_BYTES, let_go
from company.chief.result_blobs import BlobWriter, blob_name, spool_name
from p2p.base.errors import InvariantBroken, MalformedMessage, Unavailable
from p2p.base.frames import MAX_COUNT, PREAMBLE, Frame, Sizes, encode_frame, parse_frame_untrusted
from p2p.base.record import record

__all__ = [
    "BlobRef", "BlobWriter", "Location", "LogEntry", "LogStore", "RecordHeader", "Recovered", "SegmentStore", "header_of_untrusted",
]  # fmt: skip

MAGIC = b"PARSEG1\0"
HEAD_BYTES = len(MAGIC) + 16
MAX_SEGMENT_BYTES = 256 << 20
MAX_RECORD_BODY_BYTES = 64 << 20
_OPEN_READERS = 8
_HEADER_FIELDS = 9

BlobRef = tuple[int, int, bytes]  # offset in the record, size, BLAKE2b-256


@record
class Location:
    """Where one record lies."""

    segment: int
    offset: int
    length: int


@record
class RecordHeader:
    """What a record says of itself; ``blobs`` as in `company.messages.Outcome`."""

    job: str
    first: int
    count: int
    attempt: int
    token: int
    input_digest: bytes
    digest: bytes
    blobs: tuple[BlobRef, ...] = ()

    def as_array(self) -> list[Any]:
        """The frame header without the sum."""
        blobs = [list(blob) for blob in self.blobs]
        return [self.job, self.first, self.count, self.attempt, self.token, self.input_digest, self.digest, blobs]


@record
class Recovered:
    """What `SegmentStore.recover` found. ``damaged``: segments with fewer bytes than were committed (the disk lost them)."""

    truncated_bytes: int
    removed: tuple[int, ...]
    damaged: tuple[int, ...]


class SegmentStore:
    """The results of one job. `append` belongs to one task; `sync`, `read` and `feed` may run in threads."""

    def __init__(self, results_dir: Path, job_id: bytes, *, max_segment_bytes: int = MAX_SEGMENT_BYTES) -> None:
        """``job_id``: 16 bytes. Call `recover` before anything else when the directory is not a new one."""
        if len(job_id) != 16:
            raise InvariantBroken(f"a job id in a segment has 16 bytes, got {len(job_id)}")
        self._dir = results_dir
        self._head = MAGIC + job_id
        self._max_segment_bytes = max_segment_bytes
        self._number = 0
        self._file = AppendFile(self._path(0), self._head)
        self._full: list[AppendFile] = []  # not yet synced for the last time
        self._readers: OrderedDict[int, int] = OrderedDict()
        self._readers_lock = threading.Lock()

    # ---- writing
    def append(self, header: RecordHeader, sizes: Sizes, body: Buffer | Sequence[Buffer]) -> Location:
        """Add one record (in memory). ``sizes``: uint32, shape (count,); the buffers of ``body`` must not change any more."""
        buffers = [body] if isinstance(body, (bytes, bytearray, memoryview)) else list(body)
        length = sum(map(len, buffers))
        announced = int(sizes.sum(dtype=np.uint64))
        if len(sizes) != header.count or announced != length or length > MAX_RECORD_BODY_BYTES:
            raise InvariantBroken(
                f"record of {header.count} results has {len(sizes)} sizes adding up to {announced}, and a body of {length} bytes "
                f"(limit {MAX_RECORD_BODY_BYTES})"
            )
        fields = header.as_array()
        head, _ = encode_frame([*fields, _sum(fields, sizes, buffers)], sizes)
        head = PREAMBLE.pack(*PREAMBLE.unpack_from(head)[:2], length) + head[PREAMBLE.size :]
        total = len(head) + length
        if self._file.end + total > self._max_segment_bytes and self._file.end > HEAD_BYTES:
            self._full.append(self._file)
            self._number += 1
            self._file = AppendFile(self._path(self._number), self._head)
        return Location(self._number, self._file.append(head, *buffers), total)

    @property
    def pending_bytes(self) -> int:
        """Bytes appended and not yet written: sync before this grows large."""
        return self._file.pending_bytes + sum(file.pending_bytes for file in self._full)

    def sync(self) -> None:
        """Make every record appended before this call durable. Blocks: call it in a thread; one call serves many appends.

        Raises: `Unavailable` ("storage-full"); nothing is lost, sync again when there is room.
        """
        current = self._file
        for file in self._full[:]:
            file.sync()
            file.close()
            self._full.remove(file)
        current.sync()

    # ---- blobs
    def blob_writer(self, token: int, index: int) -> BlobWriter:
        """A file for one large result of one attempt; `adopt_blob` makes it the result."""
        return BlobWriter(self._dir / spool_name(token, index))

    def adopt_blob(self, token: int, index: int) -> None:
        """Take the finished blob of this attempt as the result of fragment ``index``, durably, before its record. Blocks; idempotent."""
        try:
            os.replace(self._dir / spool_name(token, index), self.blob_path(index))
        except FileNotFoundError:
            if not self.blob_path(index).exists():
                raise
        sync_directory(self._dir)

    def blob_path(self, index: int) -> Path:
        """The file of a large result."""
        return self._dir / blob_name(index)

    def read_blob(self, index: int, size: int, digest: bytes) -> memoryview:
        """A large result as it is on disk, mapped and checked. Blocks. Raises `Unavailable` ("result-damaged")."""
        path = self.blob_path(index)
        try:
            with path.open("rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):  # ValueError: an empty file
            raise _damaged(path, "it is not there") from None
        if len(data) != size or hashlib.blake2b(data, digest_size=len(digest)).digest() != digest:
            raise _damaged(path, "it is not what was written")
        return data

    # ---- after a crash
    def recover(self, committed: Mapping[int, int]) -> Recovered:
        """Cut every segment back to the end of its last committed record, and go on writing there."""
        truncated = 0
        removed: list[int] = []
        damaged: list[int] = []
        for spool in self._dir.glob("spool-*"):
            spool.unlink()
        for number in self.numbers():
            path = self._path(number)
            size = path.stat().st_size
            end = committed.get(number, 0)
            if end == 0:
                path.unlink()
                removed.append(number)
                truncated += size
            elif size < end or not self._has_our_head(path):
                damaged.append(number)
            elif size > end:
                os.truncate(path, end)
                truncated += size - end
        damaged += sorted(set(committed) - set(self.numbers()) - set(damaged))
        self._number = max(committed, default=0)
        if damaged:
            self._number = max([self._number, *damaged]) + 1  # never write behind a hole
        end = committed.get(self._number, 0)
        self._file = AppendFile(self._path(self._number), self._head, end=end or None)
        return Recovered(truncated, tuple(removed), tuple(sorted(damaged)))

    def rebuild_rows(self) -> Iterator[tuple[RecordHeader, Location]]:
        """Every whole record on disk, in the order written: the rows, should the database be lost. Stops a file at its first fault."""
        for number in self.numbers():
            at = HEAD_BYTES
            while (length := self._record_length(number, at)) is not None:
                location = Location(number, at, length)
                try:
                    frame = self.read(location)
                except (Unavailable, MalformedMessage):
                    break
                yield header_of_untrusted(frame), location
                at += length

    # ---- reading
    def read(self, location: Location) -> Frame:
        """The record at ``location``, checked. Raises `Unavailable` ("result-damaged") when the disk gives back something else."""
        data = self._pread(location.segment, location.offset, location.length)
        try:
            frame = parse_frame_untrusted(data, max_body=MAX_RECORD_BODY_BYTES)
            header_of_untrusted(frame)
            sum_of = _crc if type(frame.header[-1]) is int else _sum
            is_whole = frame.header[-1] == sum_of(frame.header[:-1], frame.sizes, [frame.body])
        except MalformedMessage as error:
            raise self._damaged(location) from error
        if not is_whole:
            raise self._damaged(location)
        return frame

    def feed(self, locations: Iterable[Location], max_bytes: int) -> Iterator[tuple[Frame, ...]]:
        """The records in the given order, in portions of at most ``max_bytes`` (or one record). Blocks: iterate in a thread."""
        portion: list[Frame] = []
        held = 0
        for location in locations:
            if portion and held + location.length > max_bytes:
                yield tuple(portion)
                portion, held = [], 0
            portion.append(self.read(location))
            held += location.length
        if portion:
            yield tuple(portion)

    def numbers(self) -> list[int]:
        """The segments on disk, in order."""
        return sorted(int(path.stem) for path in self._dir.glob("*.seg") if path.stem.isdecimal())

    def close(self) -> None:
        """Give every file back; what was not synced is lost."""
        for file in [*self._full, self._file]:
            file.close()
        with self._readers_lock:
            while self._readers:
                os.close(self._readers.popitem()[1])

    # ---- inside
    def _path(self, number: int) -> Path:
        return self._dir / f"{number:06d}.seg"

    def _has_our_head(self, path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES) == self._head

    def _damaged(self, location: Location) -> Unavailable:
        return _damaged(self._path(location.segment), f"at {location.offset} it is not what was written")

    def _pread(self, number: int, offset: int, length: int) -> bytes:
        with self._readers_lock:  # held while reading, or another thread might close this descriptor
            fd = self._readers.pop(number, -1)
            if fd < 0:
                try:
                    fd = os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    raise self._damaged(Location(number, offset, length)) from None
            self._readers[number] = fd
            if len(self._readers) > _OPEN_READERS:
                os.close(self._readers.popitem(last=False)[1])
            data = os.pread(fd, length, offset)
            if length >= LET_GO_BYTES and self._file.is_let_go:
                let_go(fd, offset, length)  # read once, by merge
            return data

    def _record_length(self, number: int, at: int) -> int | None:
        """How long the record at ``at`` says it is, or None where there is none that could be."""
        preamble = self._pread(number, at, PREAMBLE.size)
        if len(preamble) < PREAMBLE.size:
            return None
        header_len, count, body_len = PREAMBLE.unpack(preamble)
        if count > MAX_COUNT or body_len > MAX_RECORD_BODY_BYTES or header_len > (64 << 10):
            return None
        return PREAMBLE.size + int(header_len) + 4 * int(count) + int(body_len)


def header_of_untrusted(frame: Frame) -> RecordHeader:
    """The record's header with its types checked. Raises only `MalformedMessage`."""
    fields = frame.header
    kinds = (str, int, int, int, int, bytes, bytes, list, int if type(fields[-1]) is int else bytes)
    if len(fields) != _HEADER_FIELDS or any(type(value) is not kind for value, kind in zip(fields, kinds, strict=True)):
        raise MalformedMessage("segment record has another header")
    blobs = []
    for blob in fields[7]:
        if type(blob) is not list or [type(value) for value in blob] != [int, int, bytes]:
            raise MalformedMessage("segment record names a blob in another form")
        blobs.append((blob[0], blob[1], blob[2]))
    if fields[2] != len(frame.sizes):
        raise MalformedMessage(f"segment record of {fields[2]} results holds {len(frame.sizes)}")
    job, first, count, attempt, token, input_digest, digest = fields[:7]
    return RecordHeader(job, first, count, attempt, token, input_digest, digest, tuple(blobs))


def _damaged(path: Path, what: str) -> Unavailable:
    return Unavailable(
        "result-damaged", f"The disk has damaged results, {path}: {what}.",
        hint="Check the disk; company job retry finds what is damaged and computes it again.",
    )  # fmt: skip


def _sum(fields: Sequence[Any], sizes: Sizes, buffers: Sequence[Buffer]) -> bytes:
    state = xxhash.xxh3_64(msgpack.packb(list(fields), use_bin_type=True))
    state.update(np.ascontiguousarray(sizes, dtype="<u4").tobytes())
    for buffer in buffers:
        state.update(buffer)
    return state.digest()


def _crc(fields: Sequence[Any], sizes: Sizes, buffers: Sequence[Buffer]) -> int:
    crc = zlib.crc32(np.ascontiguousarray(sizes, dtype="<u4").tobytes(), zlib.crc32(msgpack.packb(list(fields), use_bin_type=True)))
    for buffer in buffers:
        crc = zlib.crc32(buffer, crc)
    return crc
