"""Fragment path 1/9, client's half - send a package or a dataset (I/O).

A dataset is hashed first: what the chief has already is not sent again. Up to 64 MiB go in one request; more goes by tus 1.0 and
resumes where it stopped, also in another run of the command. The chief's digest is compared with ours.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from company.client.address import write_private
from company.client.source import Progress, Source
from company.client.transport import Transport, path_of
from company.errors import ChiefUnreachable, CompanyError, ConflictError, IntegrityError, NotFoundError

WHOLE_MAX_BYTES = 64 << 20
PATCH_BYTES = 64 << 20
LONG_TIMEOUT_S = 600.0  # the chief hashes, checks and syncs before it answers
TRIES = 6
PAUSE_S = 0.25  # before the first new try; doubles up to 8 s
_TUS = {"Tus-Resumable": "1.0.0"}


def upload_dataset(transport: Transport, source: Source, *, state: Path | None, progress: Progress | None) -> tuple[dict[str, Any], bool]:
    """Return the dataset's view and whether it was new. ``state``: a directory that remembers unfinished uploads."""
    digest = source.digest(progress)
    known = _known(transport, digest)
    if known is not None:
        return known, False
    if source.size <= WHOLE_MAX_BYTES:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(source.size),
            "Idempotency-Key": secrets.token_hex(16),
        }
        answer = transport.request(
            "POST", "/upload/data", query={"name": source.name, "kind": source.kind},
            body=_reported(source, 0, source.size, progress), headers=headers, timeout_s=LONG_TIMEOUT_S,
        )  # fmt: skip
        return _checked(answer.json(), source, digest), answer.status == 201
    return _Resumable(transport, source, digest, state, progress).run(), True


def _known(transport: Transport, digest: str) -> dict[str, Any] | None:
    try:
        found = transport.json("GET", path_of("datasets", digest))
    except NotFoundError:
        return None
    return found if isinstance(found, dict) and found.get("digest") == digest else None


def _checked(view: Any, source: Source, digest: str) -> dict[str, Any]:
    if not isinstance(view, dict) or not view.get("digest"):
        raise IntegrityError("no-digest", "the chief's answer to the upload names no digest")
    if view["digest"] != digest:
        raise IntegrityError(
            "digest-mismatch", f"the chief stored {view['digest']}, sent was {digest}", hint="upload again; check the disk and the line"
        )
    return view


def _reported(source: Source, start: int, end: int, progress: Progress | None) -> Iterator[memoryview]:
    """The bytes ``start`` to ``end`` of the source, telling ``progress``."""
    done = start
    for block in source.blocks(start):
        part = block[: end - done]
        yield part
        done += len(part)
        if progress is not None:
            progress("upload", done, source.size)
        if done >= end:
            return


class _Resumable:
    """One upload by tus 1.0: create, ask where it stands, append, until all is there."""

    def __init__(self, transport: Transport, source: Source, digest: str, state: Path | None, progress: Progress | None) -> None:
        self._transport = transport
        self._source = source
        self._digest = digest
        self._note = state / f"{digest}.json" if state is not None else None
        self._progress = progress

    def run(self) -> dict[str, Any]:
        """Send what is missing and return the dataset's view."""
        target, offset = self._remembered() or (self._create(), 0)
        failures = 0
        while offset < self._source.size:
            try:
                offset = self._append(target, offset)
                failures = 0
            except (ChiefUnreachable, ConflictError) as error:
                failures += 1
                if failures >= TRIES:
                    raise
                if isinstance(error, ChiefUnreachable):
                    time.sleep(min(8.0, PAUSE_S * 2**failures))  # the line is away: give it time
                now = self._offset(target)
                if now is None:
                    raise CompanyError("upload-lost", "the chief no longer knows this upload", hint="run the command again") from None
                offset = now
        if self._note is not None:
            self._note.unlink(missing_ok=True)
        return self._finished(target)

    def _create(self) -> str:
        words = {"name": self._source.name, "filename": self._source.name, "kind": self._source.kind, "sha256": self._digest}
        metadata = ",".join(f"{k} {base64.b64encode(v.encode('utf-8', 'replace')).decode()}" for k, v in words.items())
        headers = _TUS | {"Upload-Length": str(self._source.size), "Upload-Metadata": metadata, "Content-Length": "0"}
        answer = self._transport.request("POST", "/upload/data", body=b"", headers=headers)
        location = urlsplit(answer.headers.get("location", ""))
        if not location.path.startswith("/"):
            raise CompanyError("no-upload-address", "the chief did not say where to send the upload")
        if self._note is not None:  # only the path is kept: an upload never moves to another host
            self._note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(self._note, json.dumps(self._mark() | {"path": location.path}).encode())
        return location.path

    def _remembered(self) -> tuple[str, int] | None:
        if self._note is None or not self._note.exists():
            return None
        try:
            note = json.loads(self._note.read_bytes())
            if any(note[key] != value for key, value in self._mark().items()):
                return None
            offset = self._offset(str(note["path"]))
        except (ValueError, KeyError, TypeError):
            return None
        return None if offset is None else (str(note["path"]), offset)

    def _mark(self) -> dict[str, object]:
        """What an unfinished upload must agree in to be gone on with."""
        return {"url": self._transport.address.url, "size": self._source.size}

    def _offset(self, target: str) -> int | None:
        try:
            answer = self._transport.request("HEAD", target, headers=_TUS)
        except NotFoundError:
            return None
        return int(answer.headers.get("upload-offset", "0"))

    def _append(self, target: str, offset: int) -> int:
        end = min(self._source.size, offset + PATCH_BYTES)
        headers = _TUS | {
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(end - offset),
        }
        body = _reported(self._source, offset, end, self._progress)
        answer = self._transport.request("PATCH", target, body=body, headers=headers, timeout_s=LONG_TIMEOUT_S)
        reached = int(answer.headers.get("upload-offset", str(end)))
        if reached <= offset:
            raise ConflictError("upload-stuck", f"the chief stays at offset {offset}")
        return reached

    def _finished(self, target: str) -> dict[str, Any]:
        try:  # the upload's own address tells what it became, also when the answer to the last piece was lost
            view = self._transport.json("GET", target, headers=_TUS, timeout_s=LONG_TIMEOUT_S).get("result")
        except (NotFoundError, AttributeError):
            view = None
        if not isinstance(view, dict):
            view = self._transport.json("GET", path_of("datasets", self._digest))
        return _checked(view, self._source, self._digest)
