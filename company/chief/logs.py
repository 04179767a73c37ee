"""What a job's fragments printed: one file of blocks, a block per outcome that printed (I/O).

A block is ``u32 length | u32 crc32 | payload | u32 length``; the length behind it lets `tail` walk backwards. The payload is what
the child wrote, msgpack arrays ``[index, stream, bytes]`` one after the other, and no one looks into it before it is read.
A job that prints without end loses what comes past the bound; how much is counted.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import msgpack

from company.chief.append_file import AppendFile, Buffer
from p2p.base.errors import MalformedMessage
from p2p.base.record import record

LOG_MAGIC = b"PARLOG1\0"
MAX_LOG_BYTES = 256 << 20
MAX_BLOCK_BYTES = 16 << 20
STDOUT, STDERR = 1, 2
_BEFORE = struct.Struct("<II")
_AFTER = struct.Struct("<I")


@record
class LogEntry:
    """One piece of output. ``at``: offset of its block's payload, the ``log_offset`` of the outcome row that tells worker and time."""

    fragment: int
    stream: int
    data: bytes
    at: int


class LogStore:
    """The log of one job. `append` belongs to one task; `sync` and reading may run in threads."""

    def __init__(self, logs_dir: Path, *, max_bytes: int = MAX_LOG_BYTES) -> None:
        """Call `recover` before anything else when the directory is not a new one."""
        self._path = logs_dir / "log"
        self._max_bytes = max_bytes
        self._file = AppendFile(self._path, LOG_MAGIC)
        self.dropped_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes appended and not yet written."""
        return self._file.pending_bytes

    def append(self, payload: Buffer) -> tuple[int | None, int]:
        """Add one outcome's block; return (offset, length) of the payload, (None, 0) when it was empty or dropped."""
        size = len(payload)
        if size == 0:
            return None, 0
        if size > MAX_BLOCK_BYTES or self._file.end + size > self._max_bytes:
            self.dropped_bytes += size
            return None, 0
        at = self._file.append(_BEFORE.pack(size, zlib.crc32(payload)), payload, _AFTER.pack(size))
        return at + _BEFORE.size, size

    def sync(self) -> None:
        """Make it durable. Blocks: call it in a thread. Raises `Unavailable` ("storage-full"): sync again."""
        self._file.sync()

    def recover(self, committed_end: int) -> int:
        """Cut back to the block that ends at ``committed_end`` (of its payload, 0 for none); return how many bytes went."""
        size = self._path.stat().st_size if self._path.exists() else 0
        end = min(committed_end + _AFTER.size, size) if committed_end else 0
        if end < size:
            os.truncate(self._path, end)
        self._file = AppendFile(self._path, LOG_MAGIC, end=end or None)
        return size - end

    def read(self, offset: int, length: int, *, fragment: int | None = None) -> list[LogEntry]:
        """The entries of one block, those of ``fragment`` if given. A damaged block is empty."""
        with self._path.open("rb") as file:
            file.seek(offset - _BEFORE.size)
            return [e for e in _entries_at(file.read(_BEFORE.size + length), offset) if fragment is None or e.fragment == fragment]

    def read_from(self, cursor: int, max_bytes: int) -> tuple[list[LogEntry], int]:
        """Entries of whole blocks from ``cursor`` (0: the beginning) on, and the next cursor. At least one block if there is one."""
        entries: list[LogEntry] = []
        at = max(cursor, len(LOG_MAGIC))
        read = 0
        for offset, block in self._blocks(at):
            if read and read + len(block) > max_bytes:
                break
            read += len(block)
            entries += _entries_at(block, offset)
            at = offset - _BEFORE.size + len(block) + _AFTER.size
        return entries, at

    def tail(self, max_bytes: int) -> tuple[list[LogEntry], int]:
        """The entries of the last blocks, about ``max_bytes``, and the cursor to go on from."""
        try:
            with self._path.open("rb") as file:
                at = end = os.fstat(file.fileno()).st_size
                while at > len(LOG_MAGIC) + _BEFORE.size and end - at < max_bytes:
                    file.seek(at - _AFTER.size)
                    (size,) = _AFTER.unpack(file.read(_AFTER.size))
                    before = at - _AFTER.size - size - _BEFORE.size
                    if before < len(LOG_MAGIC):
                        break
                    at = before
        except FileNotFoundError:
            return [], 0
        return self.read_from(at, end - at)

    def close(self) -> None:
        """Give the file back; what was not synced is lost."""
        self._file.close()

    def _blocks(self, at: int) -> Iterator[tuple[int, bytes]]:
        """(offset of the payload, prefix + payload) of every whole block from ``at`` on."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            while True:
                file.seek(at)
                prefix = file.read(_BEFORE.size)
                if len(prefix) < _BEFORE.size:
                    return
                size = _BEFORE.unpack(prefix)[0]
                payload = file.read(size) if size <= MAX_BLOCK_BYTES else b""
                if len(payload) < size or len(file.read(_AFTER.size)) < _AFTER.size:
                    return
                yield at + _BEFORE.size, prefix + payload
                at += _BEFORE.size + size + _AFTER.size


def parse_log_untrusted(payload: bytes | memoryview) -> list[tuple[int, int, bytes]]:
    """The (index, stream, bytes) of a block that a child wrote. Raises only `MalformedMessage`."""
    unpacker = msgpack.Unpacker(max_buffer_size=MAX_BLOCK_BYTES, max_array_len=3, max_map_len=0, max_ext_len=0, raw=True)
    found: list[tuple[int, int, bytes]] = []
    try:
        unpacker.feed(payload)
        for entry in unpacker:
            index, stream, data = entry
            if type(index) is not int or index < 0 or stream not in (STDOUT, STDERR) or type(data) is not bytes:
                raise MalformedMessage("log entry must be [index, 1|2, bytes]")
            found.append((index, stream, data))
        if unpacker.tell() != len(payload):
            raise MalformedMessage("log block ends within an entry")
    except MalformedMessage:
        raise
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"log block cannot be decoded: {type(error).__name__}") from None
    return found


def tails_untrusted(payload: bytes | memoryview, fragments: Collection[int], *, max_bytes: int = 8192) -> dict[int, bytes]:
    """The last bytes that each of ``fragments`` printed in a block; empty for a block that cannot be read. Never raises."""
    tails: dict[int, bytes] = {}
    try:
        entries = parse_log_untrusted(payload)
    except MalformedMessage:
        return tails
    for index, _, data in entries:
        if index in fragments:
            tails[index] = (tails.get(index, b"") + data)[-max_bytes:]
    return tails


def _entries_at(block: bytes, offset: int) -> list[LogEntry]:
    size, crc = _BEFORE.unpack_from(block)
    payload = memoryview(block)[_BEFORE.size :]
    if len(payload) != size or zlib.crc32(payload) != crc:
        return []
    try:
        return [LogEntry(index, stream, data, offset) for index, stream, data in parse_log_untrusted(payload)]
    except MalformedMessage:
        return [LogEntry(-1, STDERR, b"[this part of the log is not readable]\n", offset)]
