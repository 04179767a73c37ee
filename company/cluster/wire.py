"""What a run and its nodes say to each other: a job, a batch, and what became of it (I/O: files of large values only).

All of it is between a user's own processes on the user's own cluster; it is parsed with bounds all the same, because a node runs
modules. A message is a msgpack array; large fragments and results travel inside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from company import messages as m
from company.worker.batch import Batch, JobSpec
from company.worker.results import Part
from p2p.base.errors import MalformedMessage
from p2p.base.frames import Sizes
from p2p.base.record import record
from p2p.base.schema import Message, parse_any_untrusted, registry

MAX_MESSAGE_BYTES = 1 << 32
KINDS = registry(m.Outcome, m.Failed, m.Artifact)


@record
class Told:
    """One part of a batch's outcome as it came from a node. ``blobs``: (index, digest, bytes) of results that are not inlined."""

    message: Message
    sizes: Sizes
    body: bytes
    blobs: tuple[tuple[int, bytes, bytes], ...]


def encode_spec(spec: JobSpec, *, allow_none: bool, requirements: tuple[str, ...]) -> bytes:
    """A job as a node gets it once."""
    return _pack(
        [
            spec.job,
            spec.params,
            dict(spec.files),
            float(spec.time_limit_s),
            spec.memory_bytes,
            dict(spec.options),
            allow_none,
            list(requirements),
            spec.processes,
        ]
    )


def decode_spec_untrusted(data: bytes) -> tuple[JobSpec, bool, tuple[str, ...]]:
    """The description, whether no sandbox will do, and what the package requires. Raises only `MalformedMessage`."""
    job, params, files, time_limit_s, memory_bytes, options, allow_none, requirements, processes = _array_untrusted(
        data, (str, bytes, dict, float, int, dict, bool, list, int)
    )
    if not all(type(k) is str and type(v) is bytes for k, v in files.items()) or not all(type(r) is str for r in requirements):
        raise MalformedMessage("a job's files must be bytes by name, its requirements text")
    return JobSpec(job, params, files, time_limit_s, memory_bytes, options, processes=processes), allow_none, tuple(requirements)


def encode_batch(batch: Batch) -> bytes:
    """A batch with its large fragments read in."""
    blobs = [[offset, digest, path.read_bytes()] for (offset, _, digest), path in zip(batch.blobs, batch.blob_paths, strict=True)]
    sizes = np.ascontiguousarray(batch.sizes, dtype="<u4").tobytes()
    return _pack([batch.token, batch.job, batch.first, batch.count, batch.attempt, sizes, bytes(batch.body), blobs])


def decode_batch_untrusted(data: bytes, folder: Path) -> Batch:
    """The batch, its large fragments written to files in ``folder``. Raises `MalformedMessage`, `OSError`."""
    token, job, first, count, attempt, sizes, body, blobs = _array_untrusted(data, (int, str, int, int, int, bytes, bytes, list))
    found = _sizes_untrusted(sizes, body)
    told: list[tuple[int, int, bytes]] = []
    paths: list[Path] = []
    for blob in blobs:
        offset, digest, content = _typed_untrusted(blob, (int, bytes, bytes))
        told.append((offset, len(content), digest))
        paths.append(folder / f"in-{token}-{offset}")
        paths[-1].write_bytes(content)
    return Batch(
        token=token, slot=0, job=job, first=first, count=count, attempt=attempt, sizes=found, body=body, blobs=tuple(told),
        blob_paths=tuple(paths),
    )  # fmt: skip


def encode_parts(parts: list[Part]) -> bytes:
    """What became of a batch, in the order in which it came. Files of results are read in, and deleted."""
    told: list[Any] = []
    for part in parts:
        blobs = [[blob.index, blob.digest, blob.path.read_bytes()] for blob in part.blobs]
        for blob in part.blobs:
            blob.path.unlink(missing_ok=True)
        sizes = np.ascontiguousarray(part.sizes, dtype="<u4").tobytes()
        told.append([part.message.as_array(), sizes, bytes(part.body), blobs])
    return _pack(told)


def decode_parts_untrusted(data: bytes) -> list[Told]:
    """Raises only `MalformedMessage`."""
    found: list[Told] = []
    for one in _unpack_untrusted(data):
        header, sizes, body, blobs = _typed_untrusted(one, (list, bytes, bytes, list))
        whole = tuple(_typed_untrusted(blob, (int, bytes, bytes)) for blob in blobs)
        found.append(Told(parse_any_untrusted(KINDS, header), _sizes_untrusted(sizes, body), body, whole))
    return found


def _sizes_untrusted(raw: bytes, body: bytes) -> Sizes:
    if len(raw) % 4:
        raise MalformedMessage("sizes must be whole numbers of 4 bytes")
    sizes: Sizes = np.frombuffer(raw, dtype="<u4")
    if int(sizes.sum(dtype=np.uint64)) != len(body):
        raise MalformedMessage("sizes do not add up to the bytes that came")
    return sizes


def _pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


def _unpack_untrusted(data: bytes) -> list[Any]:
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(f"a message may have {MAX_MESSAGE_BYTES} bytes, got {len(data)}")
    try:
        value = msgpack.unpackb(data, use_list=True, raw=False, strict_map_key=True)
    except Exception as error:  # noqa: BLE001 - msgpack raises a wide set; all of it is the sender's fault
        raise MalformedMessage(f"a message cannot be decoded: {type(error).__name__}") from None
    if type(value) is not list:
        raise MalformedMessage("a message must be an array")
    return value


def _array_untrusted(data: bytes, types: tuple[type, ...]) -> tuple[Any, ...]:
    return _typed_untrusted(_unpack_untrusted(data), types)


def _typed_untrusted(value: Any, types: tuple[type, ...]) -> tuple[Any, ...]:
    if type(value) is not list or len(value) != len(types) or any(type(v) is not t for v, t in zip(value, types, strict=True)):
        raise MalformedMessage(f"expected an array of {', '.join(t.__name__ for t in types)}")
    return tuple(value)
