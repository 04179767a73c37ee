"""A worker by the REST calls alone: no channel, the same messages in the same frames (I/O).

Every binary body, either way, is one or more frames, one after the other (`p2p.base.frames`, little endian)::

    u32 header_len | u32 n | u64 body_len | header | sizes u32[n] | body        sum(sizes) == body_len

``header`` is the msgpack array of a message of `company.messages`: its code, then its fields in order. Fragments, results and
params are values of `p2p.base.codec`. An independent worker needs no more than this page.

1. Join (or come back): ``POST {chief}/api/v1/workers/join``, JSON
   ``{"token": TEXT, "name": TEXT, "slots": N, "http": "http://host:port", "callback": HEX64, "key": HEX64, "machine": [Machine array]}``;
   ``callback`` is a secret of the worker's choice, which the chief shows in ``Authorization: Bearer`` when it calls the worker. Who has
   joined before sends ``"worker": ID, "bearer": TEXT`` in place of ``token``. Answer 201 ``{"worker": ID, "token": BEARER,
   "supervisor": ID}``; every call below carries ``Authorization: Bearer BEARER``. A newcomer's address is called before it is admitted.
   Beyond loopback both directions are TLS 1.3. The worker's address is then https and its certificate, self-signed, holds the Ed25519
   ``key`` (certificates may change, the key counts; without a ``key`` an authority must vouch). A chief on TLS shows the key that stands
   in the join token to who asks for the server name ``key.company.invalid``; the worker compares it before it sends anything.
2. The chief sends ``POST {worker}/processor``: a ProcessorIs frame, item 0 the archive. The worker verifies it (SHA-256 digest of the file
   list, signature; `company.package`) and answers 200, 204 if it had it, 403 if it refuses. A worker that lacks one may also
   ``GET {chief}/processor/{hex digest}``, which answers the same frame.
3. The chief sends ``POST {worker}/activate/data-fragment``: frames JobIs (item 0 params; before a Run, may repeat) and Run (items: the
   fragments; none when ``count`` are to be fetched by 4), at times Cancel, Recall, JobOver, Drain, Undrain, Ack, Stale. ``slot`` and
   ``token`` (the lease) are in Run. Answer 200. An empty body asks whether the worker lives; the answer may then say what it holds, as
   JSON: ``{"held": [[token, job, first, count, "running" | "done" | "queued"], ...]}``.
4. ``GET {chief}/data-fragment/{n}?job=ID&count=K`` with ``Company-Lease: TOKEN``: one Run frame with items ``n .. n+K-1``; also for a
   fragment that Run.blobs lists, whose item is empty there, with K = 1.
5. ``POST {chief}/upload/result-fragment``: one Outcome frame (items: status u8[count], duration_us u32[count], logs, then the results; may
   come in parts, ``last`` ends the lease), or Failed, Recalled, JobBlocked, SlotState, Status, Artifact; several frames may share a body.
   Answer 200 with frames as in 3, or 204: on disk, and nothing to do until activated. 409: the lease is gone. Sending the same
   Outcome again is answered like the first time. Since the last call the chief may have started anew: Resume in front of the other frames
   says what is held, and that is not run elsewhere. Of a worker that never says so, only leases older than 5 s are known again; a result
   of before a restart counts only with the input_digest of what was sent.
   503 bodies-full: too much comes at once; send it again.

6. ``GET {chief}/wheels/{job}``: a WheelsAre frame; ``GET {chief}/wheels/{job}/{hex SHA-256}``: one of its files. For workers whose owner
   lets packages bring what they require (JobIs.requirements); the others answer the job with JobBlocked.
7. A worker without an ``http`` in its join is not called: it asks with ``POST {chief}/api/v1/workers/next?wait=SECONDS``, answered with
   frames as in 3 or 204, and must call once a minute. A Run whose token it holds is the same Run again: an answer may have been lost.

A result larger than 4 MiB travels inside its Outcome here; what does not fit into a body of 16 MiB fails with cause output-flood.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Protocol

import numpy as np
import trio

from company import messages as m
from company.worker.batch import Batch
from company.worker.blob_sink import MAX_HEAD_BYTES, BlobSink
from company.worker.chief_page import ChiefPage
from company.worker.link import Refusal
from company.worker.results import HeldResults, Part
from company.worker.retry import wait_before_attempt_s
from p2p.base.errors import MalformedMessage, ParallelError, PeerError, Unavailable
from p2p.base.frames import MAX_BODY_BYTES, NO_SIZES, Frame, FrameParser, Sizes, encode_frame
from p2p.base.schema import Message, parse_any_untrusted
from p2p.net.http_client import HttpClient, HttpReply

log = logging.getLogger(__name__)
CALL_TIMEOUT_S = 60.0
MAX_ANSWER_BYTES = 40 << 20
MAX_CONTROL = 1024
FORGOTTEN_AFTER_S = 0.5  # since the last call that went well; a chief that starts anew takes longer
OK = (200, 201, 202, 204)


class RestPort(Protocol):
    """What the link asks of the worker around it."""

    async def on_message(self, message: Message, frame: Frame) -> None: ...
    def on_acked(self, token: int, first: int) -> None: ...
    def on_stale(self, token: int) -> None: ...
    def held(self) -> tuple[m.Held, ...]: ...
    def is_away(self, is_away: bool) -> None:
        """The chief cannot be reached, or can be again."""


class RestLink:
    """Calls the chief; the other direction is `company.worker.api`."""

    def __init__(
        self, client: HttpClient, *, chief: ChiefPage, worker: str, bearer: str, results: HeldResults, port: RestPort, rng: Random
    ) -> None:
        self._client = client
        self._chief = chief
        self._headers = {"Authorization": f"Bearer {bearer}"}
        self._worker = worker
        self._results = results
        self._port = port
        self._rng = rng
        self._control: deque[Message] = deque(maxlen=MAX_CONTROL)
        self._wanted: deque[m.NeedProcessor] = deque()
        self._work = trio.Event()
        self._known_at = trio.current_time()

    @property
    def wheels(self) -> RestLink:
        """Where wheels come from."""
        return self

    def tell(self, message: Message) -> None:
        """Send a control message with the next call."""
        if isinstance(message, m.NeedProcessor):
            self._wanted.append(message)
        else:
            self._control.append(message)
        self.wake()

    def wake(self) -> None:
        """There may be something to send."""
        self._work.set()

    def check(self) -> None:
        """Find out soon whether the chief is there, by saying what is held."""
        self.tell(m.Resume(self._worker, self._port.held()))

    async def run(self) -> None:
        """Send what is made, for ever. Raises `Refusal` when the chief does not know this worker any more."""
        attempt = 0
        while True:
            try:
                if self._wanted:
                    await self._get_processor(self._wanted[0])
                    self._wanted.popleft()
                elif self._control or self._results.next_unsent() is not None:
                    await self._upload()
                else:
                    self._work = trio.Event()
                    await self._work.wait()
                if attempt:
                    self._port.is_away(False)
                attempt = 0
            except (Unavailable, PeerError) as error:
                attempt += 1
                if isinstance(error, Unavailable):
                    self._port.is_away(True)
                log.log(logging.INFO if attempt == 1 else logging.DEBUG, "chief away: %s", error.text)
                await trio.sleep(wait_before_attempt_s(attempt, self._rng))

    async def say_bye(self, reason: str) -> None:
        """Hand in what is left and leave."""
        self.tell(m.Bye(reason[:64]))
        with trio.move_on_after(3):
            try:
                await self._upload()
            except ParallelError:
                return

    async def _upload(self) -> None:
        """One call: the control messages and at most one part. Raises `Unavailable`, `PeerError`, `Refusal`."""
        part = self._results.next_unsent()
        sent = list(self._control)
        pieces = [encode(message) for message in sent]
        if trio.current_time() - self._known_at > FORGOTTEN_AFTER_S:  # say what is held before a result says it by itself
            pieces.insert(0, encode(m.Resume(self._worker, self._port.held())))
        if part is not None:
            pieces.append(self._encode_part(part))
        reply = await self._call("POST", "/upload/result-fragment", body=b"".join(pieces))
        self._known_at = trio.current_time()
        for message in sent:
            if self._control and self._control[0] is message:
                self._control.popleft()
        if part is not None:
            self._results.mark_sent(part)
            if reply.status not in OK or self._is_too_large(part):
                log.warning("the chief refused a result of lease %d: %d %s", part.token, reply.status, problem_code(reply))
                self._port.on_stale(part.token)
            elif part.first is not None:
                self._port.on_acked(part.token, part.first)
        if reply.status == 200:
            for answer, frame in messages_untrusted(reply.body):
                await self._port.on_message(answer, frame)

    def _encode_part(self, part: Part) -> bytes:
        body = self._results.body_of(part)
        if not part.blobs or not isinstance(part.message, m.Outcome):
            return encode(part.message, part.sizes, body)
        if self._is_too_large(part):
            big = part.blobs[0]
            text = f"a result of {big.size} bytes is too large for a worker that speaks REST"
            return encode(m.Failed(part.token, part.message.job, big.index, "output-flood", "", text, "", 0, 0), np.zeros(2, dtype="<u4"))
        return _with_blobs_inside(part.message, part, body)

    def _is_too_large(self, part: Part) -> bool:
        return part.size_bytes + sum(blob.size for blob in part.blobs) > MAX_BODY_BYTES

    async def _get_processor(self, want: m.NeedProcessor) -> None:
        reply = await self._call("GET", f"/processor/{want.processor.hex()}")
        if reply.status != 200:
            raise PeerError("processor-missing", f"the chief has no processor {want.processor.hex()[:16]} for us ({reply.status})")
        for message, frame in messages_untrusted(reply.body):
            await self._port.on_message(message, frame)

    async def fragments(self, token: int, job: str, first: int, count: int) -> Frame:
        """Fetch fragments of a lease. Raises `Unavailable`, `PeerError`."""
        reply = await self._call("GET", f"/data-fragment/{first}?job={job}&count={count}", lease=token)
        if reply.status != 200:
            raise Unavailable("fragment-refused", f"the chief gave no fragments ({reply.status})")
        frames = FrameParser(max_body=MAX_ANSWER_BYTES).feed_untrusted(reply.body)
        if len(frames) != 1 or len(frames[0].sizes) != count:
            raise MalformedMessage(f"{count} fragments were asked for")
        return frames[0]

    async def fetch_blob(self, batch: Batch, offset: int, size: int, digest: bytes, path: Path) -> None:
        """Fetch one large fragment into ``path``. Raises `Unavailable`, `PeerError`, `OSError`."""
        with BlobSink(path, size) as sink:
            where = f"/data-fragment/{batch.first + offset}?job={batch.job}&count=1"
            reply = await self._call("GET", where, lease=batch.token, max_bytes=size + MAX_HEAD_BYTES, sink=sink.feed_untrusted)
        if reply.status != 200:
            raise Unavailable("fragment-refused", f"the chief gave no fragment ({reply.status})")
        if sink.digest() != digest:
            raise PeerError("blob-wrong-digest", f"fragment {batch.first + offset} is not what was announced")

    async def wheel_list(self, job: str) -> tuple[bytes, bytes]:
        """The signed list of the wheels that a job requires: (body, signature). Raises `Unavailable` with the chief's code, `PeerError`."""
        reply = await self._call("GET", f"/wheels/{job}")
        if reply.status != 200:
            raise Unavailable(problem_code(reply) or "wheels-refused", problem_text(reply) or f"the chief answered {reply.status}")
        found = messages_untrusted(reply.body)
        if len(found) != 1 or not isinstance(found[0][0], m.WheelsAre):
            raise MalformedMessage("a list of wheels was asked for")
        return bytes(found[0][1].body), found[0][0].signature

    async def wheel(self, job: str, sha256: bytes, size: int, path: Path) -> None:
        """Write one wheel into ``path``; the caller checks its digest. Raises `Unavailable`, `PeerError`, `OSError`."""
        with path.open("wb") as file:
            reply = await self._call("GET", f"/wheels/{job}/{sha256.hex()}", max_bytes=size, sink=file.write)
        if reply.status != 200:
            raise Unavailable("wheel-refused", f"the chief gave no wheel ({reply.status})")

    async def _call(
        self, method: str, path: str, *, body: bytes | None = None, lease: int | None = None, max_bytes: int = MAX_ANSWER_BYTES,
        sink: Callable[[bytes], object] | None = None,
    ) -> HttpReply:  # fmt: skip
        headers = dict(self._headers)
        if lease is not None:
            headers["Company-Lease"] = str(lease)
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        reply = await self._client.request(
            method, self._chief.url + path, headers=headers, body=body, timeout_s=CALL_TIMEOUT_S, max_bytes=max_bytes, sink=sink,
            pin_key=self._chief.key, pin_sha256=self._chief.sha256,
        )  # fmt: skip
        if reply.status in (401, 403):
            raise Refusal(problem_code(reply) or "worker-unknown", "the chief does not accept this worker's token any more")
        if reply.status >= 500 or reply.status in (408, 429):
            raise Unavailable("chief-error", f"the chief answered {reply.status} {problem_code(reply)}")
        return reply


async def join_by_rest(client: HttpClient, chief: ChiefPage, body: dict[str, Any]) -> dict[str, str]:
    """The first call. Returns the answer. Raises `Refusal`, `Unavailable`, `PeerError`."""
    try:
        reply = await client.request(
            "POST", f"{chief.url}/api/v1/workers/join", headers={"Content-Type": "application/json"}, body=json.dumps(body).encode(),
            pin_key=chief.key, pin_sha256=chief.sha256,
        )  # fmt: skip
    except PeerError as error:
        if error.code == "wrong-key" and chief.key is not None:
            error.hint = (
                "does another server end TLS in front of the chief? --chief-http URL#sha256:FINGERPRINT of its certificate, or URL#ca"
            )
        raise
    if 400 <= reply.status < 500 and reply.status != 429:
        text = problem_text(reply) or f"the chief answered {reply.status}"
        raise Refusal(problem_code(reply) or f"http-{reply.status}", text, hint=_problem_field(reply, "hint"))
    if reply.status not in OK:
        raise Unavailable("chief-error", f"the chief answered {reply.status}")
    try:
        answer = json.loads(reply.body)
        return {key: str(answer[key]) for key in ("worker", "token", "supervisor")}
    except (ValueError, KeyError, TypeError):
        raise MalformedMessage("the chief's answer to a join has no worker, token and supervisor") from None


def encode(message: Message, sizes: Sizes = NO_SIZES, body: bytes | memoryview = b"") -> bytes:
    """One frame as bytes."""
    head, tail = encode_frame(message.as_array(), sizes, body)
    return head + bytes(tail)


def messages_untrusted(data: bytes) -> list[tuple[Message, Frame]]:
    """The messages of one HTTP body. Raises only `MalformedMessage`, also for bytes left over."""
    parser = FrameParser()
    frames = parser.feed_untrusted(data)
    if not parser.is_idle:
        raise MalformedMessage("the body ends inside a frame")
    return [(parse_any_untrusted(m.MESSAGES, frame.header), frame) for frame in frames]


def _with_blobs_inside(message: m.Outcome, part: Part, body: bytes | memoryview) -> bytes:
    """The frame of an Outcome with its spooled results put where they belong."""
    sizes = np.array(part.sizes, dtype="<u4")
    for blob in part.blobs:
        sizes[3 + blob.index - message.first] = blob.size
    starts = np.concatenate(([0], np.cumsum(part.sizes, dtype=np.int64)))
    pieces: list[bytes | memoryview] = []
    at = 0
    view = memoryview(body)
    for blob in part.blobs:
        stop = int(starts[3 + blob.index - message.first])
        pieces += [view[at:stop], blob.path.read_bytes()]
        at = stop
    pieces.append(view[at:])
    inside = m.Outcome(
        message.token, message.job, message.first, message.count, message.last, message.run_us, message.cpu_us, message.peak_bytes,
        message.log_dropped, (),
    )  # fmt: skip
    return encode(inside, sizes, b"".join(pieces))


def problem_code(reply: HttpReply) -> str:
    """The code of a problem+json answer, or nothing."""
    return _problem_field(reply, "code")


def problem_text(reply: HttpReply) -> str:
    """The sentence of a problem+json answer, or nothing."""
    return _problem_field(reply, "detail") or _problem_field(reply, "title")


def _problem_field(reply: HttpReply, name: str) -> str:
    try:
        value = json.loads(reply.body[: 64 << 10])
    except ValueError:
        return ""
    return str(value.get(name, ""))[:300] if isinstance(value, dict) else ""
