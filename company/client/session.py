"""A stream of calls to one job: two threads, one that sends and one that receives, so that callers never wait for the network (I/O).

A `Chunk` is one fragment: calls of one function. It is acknowledged when it is on the chief's disk; sending the same frame twice changes
nothing there, so a lost connection costs a retry. Nothing here knows what is in a chunk.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from company.client.address import read_running
from company.client.transport import Transport, path_of
from company.errors import ChiefUnreachable, CompanyError, NotAuthorisedError, NotReadyError
from p2p.base.errors import ParallelError

if TYPE_CHECKING:
    from company.client.client import Client

FRAME_BYTES = 4 << 20  # several chunks travel together up to this
FRAME_COUNT = 4096
POLL_S = 10.0
AWAY_S = 600.0  # how long a chief may be unreachable before what it holds is given up
NEW_TOKEN_S = 30.0  # a chief that starts writes its new token a moment after the old one fails
SILENT_S = 10.0  # without a result, before the reason is asked for and said
_MAX_BODY = 1 << 32


@dataclass(slots=True, eq=False)
class Chunk:
    """One fragment on its way. ``done``: called once in the receiving thread with its result's bytes, or with what killed it."""

    body: bytes
    calls: int
    done: Callable[[Chunk, bytes | memoryview | None, dict[str, Any] | BaseException | None], None]
    index: int = -1  # fragment number, once it was sent
    job: str = ""
    worker: str = ""
    sent: threading.Event = field(default_factory=threading.Event)


class Session:
    """One job that takes calls. Thread-safe."""

    def __init__(self, client: Client, files: Mapping[str, bytes], *, name: str, options: Mapping[str, Any]) -> None:
        self._client = client
        self.slots = max(1, int(client.company().get("slots", 1)))
        self.job = _open_job(client, files, name, options)
        self._lock = threading.Condition()
        self._outbox: deque[Chunk] = deque()
        self._flying: dict[int, Chunk] = {}
        self._sent = 0
        self._ending = self._ended = False
        self._trouble: BaseException | None = None
        self._place, self._failed = (-1, -1), 0
        self._landed_at = time.monotonic()
        self._said: set[str] = set()
        self._transports: list[Transport] = []
        self._threads = [
            threading.Thread(target=run, name=f"company-{what}", daemon=True)
            for run, what in ((self._send, "send"), (self._receive, "receive"))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Chunks that have no outcome yet."""
        return len(self._outbox) + len(self._flying)

    def put(self, chunk: Chunk) -> None:
        """Send a chunk when its turn comes. Raises what ended the session."""
        with self._lock:
            if self._trouble is not None:
                raise self._trouble
            self._outbox.append(chunk)
            self._lock.notify_all()

    def end(self, *, wait: bool = True, timeout_s: float | None = None) -> None:
        """No more chunks will come. ``wait``: until all have their outcome."""
        with self._lock:
            self._ending = True
            self._lock.notify_all()
            if wait:
                self._lock.wait_for(lambda: self._ended or not self.waiting, timeout_s)
        if wait:
            self._threads[0].join(30.0 if timeout_s is None else timeout_s)

    def leave(self) -> None:
        """The chief is about to go: wait for nobody there any more."""
        self._give_up(CompanyError("company-closed", "the company was closed with its client"))
        with self._lock:
            self._ending = self._ended = True
            self._lock.notify_all()

    def _transport(self) -> Transport:
        transport = Transport(self._client.transport.address)
        self._transports.append(transport)
        return transport

    # ---- the sending thread -----------------------------------------------------------------------------------------------
    def _send(self) -> None:
        transport = self._transport()
        try:
            while True:
                with self._lock:
                    self._lock.wait_for(lambda: self._outbox or self._ending or self._trouble)
                    if self._trouble is not None:
                        return
                    group = self._group()
                    first = self._sent
                    self._sent += len(group)
                    for number, chunk in enumerate(group, first):
                        chunk.index = number
                        self._flying[number] = chunk
                if not group:
                    break
                self._post(transport, path_of("jobs", self.job, "calls"), first, group)
                for chunk in group:
                    chunk.sent.set()
            self._patiently(lambda: transport.request("POST", path_of("jobs", self.job, "calls", "end"), body=b""))
        except BaseException as error:  # noqa: BLE001 - the end of this thread: whoever waits must hear of it
            self._give_up(error)
        finally:
            transport.close()

    def _group(self) -> list[Chunk]:
        group: list[Chunk] = []
        size = 0
        while self._outbox and len(group) < FRAME_COUNT and (not group or size + len(self._outbox[0].body) <= FRAME_BYTES):
            chunk = self._outbox.popleft()
            size += len(chunk.body)
            group.append(chunk)
        return group

    def _post(self, transport: Transport, path: str, first: int, group: list[Chunk]) -> None:
        from p2p.base.frames import encode_frame_of

        head, body = encode_frame_of(["calls"], [chunk.body for chunk in group])
        data = head + body
        headers = {"Content-Type": "application/octet-stream"}
        self._patiently(lambda: transport.request("POST", path, query={"first": first}, body=data, headers=headers, timeout_s=120.0))

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """Ask until there is an answer; only silence and "not now" are waited out, and not for ever."""
        since = time.monotonic()
        pause = 0.1
        while True:
            try:
                return ask()
            except (ChiefUnreachable, NotReadyError, NotAuthorisedError) as error:
                is_new_token = isinstance(error, NotAuthorisedError)  # this home's chief has another after each start
                if is_new_token and (error.code != "token-unknown" or not self._find_again()) and time.monotonic() - since > NEW_TOKEN_S:
                    raise
                if time.monotonic() - since > AWAY_S or self._ended:
                    raise
                self._find_again()
                time.sleep(pause)
                pause = min(5.0, pause * 2)

    def _find_again(self) -> bool:
        """Take the address and token that the chief of this client's home wrote when it started anew; whether they are others.

        Only for the chief that it was found as, or one at the very same place: a client of a chief elsewhere is led nowhere else.
        """
        before = self._client.transport.address
        found = read_running(self._client.home) if self._client.home is not None else None
        if found is None or found.token is None or (found.token, found.url) == (before.token, before.url):
            return False
        if before.pid is None and (found.host, found.port) != (before.host, before.port):
            return False
        self._client.transport.address = found
        for transport in self._transports:
            transport.address = found
        return True

    # ---- the receiving thread ---------------------------------------------------------------------------------------------
    def _receive(self) -> None:
        transport = self._transport()
        try:
            while True:
                with self._lock:
                    if self._trouble is not None:
                        return
                state = self._patiently(lambda: self._poll(transport))
                with self._lock:
                    is_idle = not self.waiting
                    if is_idle and self._ending:
                        break
                    if state in ("done", "failed", "cancelled") and self._flying:
                        raise CompanyError(
                            "job-over",
                            f"job {self.job} is {state}, with {len(self._flying)} chunks of calls unfinished",
                            hint=f"company explain {self.job}",
                        )
                    is_stuck = not is_idle and time.monotonic() - self._landed_at > SILENT_S
                if is_stuck:
                    self._say_why(transport)
                with self._lock:
                    if is_idle and not self.waiting:
                        self._lock.wait_for(lambda: self.waiting or self._ending or self._trouble, 3600.0)
        except BaseException as error:  # noqa: BLE001 - the end of this thread: whoever waits must hear of it
            self._give_up(error)
        finally:
            transport.close()
            with self._lock:
                self._ended = True
                self._lock.notify_all()

    def _say_why(self, transport: Transport) -> None:
        """Once for each reason: nothing waits without saying for what."""
        self._landed_at = time.monotonic()
        for reason in transport.json("GET", f"/api/v1/explain/{self.job}")["items"]:
            if reason["code"] not in (*self._said, "running"):
                self._said.add(reason["code"])
                print(f"company: {self.job} waits: {reason['text']}  [{reason['code']}]", file=sys.stderr)

    def _poll(self, transport: Transport) -> str:
        """One long poll; returns the job's state, "" while more is there."""
        from p2p.base.frames import FrameParser

        query = {"segment": self._place[0], "offset": self._place[1], "failed": self._failed, "wait": int(POLL_S)}
        query = {k: v for k, v in query.items() if v not in (-1,)}
        parser = FrameParser(max_body=_MAX_BODY)
        state, reached = "", self._place
        with transport.reading(path_of("jobs", self.job, "outcomes"), query=query, timeout_s=POLL_S + 30.0) as response:
            while data := response.read1(1 << 20):
                for frame in parser.feed_untrusted(data):
                    if frame.header[0] == "results":
                        _, segment, offset, first, _, worker = frame.header
                        if (segment, offset) != reached:  # one record may come in several frames: it counts when all are here
                            self._place, reached = reached, (segment, offset)
                        self._landed(first, frame.cut(), worker)
                    elif frame.header[0] == "failed":
                        self._failed += 1
                        self._land(frame.header[1], None, dict(frame.header[2]))
                    elif frame.header[0] == "state":
                        state = frame.header[1]
                        self.slots = max(1, frame.header[3])
        self._place = reached
        return state

    def _landed(self, first: int, items: list[memoryview], worker: str) -> None:
        for index, item in enumerate(items, first):
            self._land(index, item, None, worker)

    def _land(self, index: int, body: memoryview | None, trouble: dict[str, Any] | None, worker: str = "") -> None:
        with self._lock:
            chunk = self._flying.pop(index, None)
        self._landed_at = time.monotonic()
        if chunk is not None:
            chunk.worker = worker
            chunk.done(chunk, body, trouble)
            with self._lock:
                self._lock.notify_all()

    def _give_up(self, error: BaseException) -> None:
        with self._lock:
            if self._trouble is not None:
                return
            self._trouble = error
            lost = [*self._flying.values(), *self._outbox]
            self._flying.clear()
            self._outbox.clear()
            self._lock.notify_all()
        for chunk in lost:
            chunk.sent.set()
            chunk.done(chunk, None, error)


def _open_job(client: Client, files: Mapping[str, bytes], name: str, options: Mapping[str, Any]) -> str:
    """Upload the package and open a stream job; returns its id."""
    from company.package import archive_of

    headers = {"Content-Type": "application/zip", "Idempotency-Key": secrets.token_hex(16)}
    answer = client.transport.request(
        "POST", "/upload/module-package", query={"name": name}, body=archive_of(dict(files)), headers=headers, timeout_s=300.0
    )
    with tempfile.TemporaryDirectory(prefix="company-calls-") as folder:
        marker = Path(folder) / "calls"
        marker.write_bytes(b"calls\n")
        job = client.submit(str(answer.json()["digest"]), marker, engine="company", name=name, stream=True, max_fails="100%", **options)
    return job.id


def why_no_worker(client: Client, requirements: Iterable[str] = ()) -> ParallelError | None:
    """Why no worker of the company can run what this interpreter pickles, nil when one can or none has joined yet."""
    there = [w for w in client.workers()["items"] if w.get("state") not in ("offline", "quarantined")]
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    known = [w for w in there if w.get("python")]
    fitting = [w for w in known if str(w["python"]).startswith(here + ".") or w["python"] == here]
    if known and not fitting:
        pythons = [str(w["python"]) for w in known]
        counts = ", ".join(f"{sum(1 for p in pythons if p == v)} × Python {v}" for v in sorted(set(pythons)))
        return CompanyError(
            "python-differs", f"this program runs Python {here}; the company's workers have {counts}",
            hint=f"run it with one of those, or join a worker with Python {here}",
        )  # fmt: skip
    wanted = _beyond_a_bare_sandbox(requirements)
    if wanted and fitting and all(w.get("requirements_allowed") is False for w in fitting):
        return CompanyError(
            "requirements-not-allowed", f"the calls need {', '.join(wanted)}, and no worker of the company takes further packages"[:1000],
            hint="start one with company worker join … --allow-requirements",
        )  # fmt: skip
    return None


def _beyond_a_bare_sandbox(requirements: Iterable[str]) -> list[str]:
    wanted = sorted(requirements)
    if not wanted:
        return []
    from company.wheel_list import beyond_curated

    return list(beyond_curated(wanted))
