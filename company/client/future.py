"""The future of one call, with an id by which any process finds its result again (I/O: it waits)."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from company.client.session import Chunk

T = TypeVar("T")
SENT_S = 60.0


class Future(concurrent.futures.Future[T]):
    """A `concurrent.futures.Future` of a call on a company."""

    def __init__(self) -> None:
        super().__init__()
        self._chunk: Chunk | None = None
        self._at = 0
        self.fn: Any = None  # what is called, for an executor that may have to call it here
        self._bound = threading.Event()  # not the future's own condition: those who wait for a result take any wake for its end
        self.add_done_callback(lambda _: self._bound.set())

    def bind(self, chunk: Chunk, position: int) -> None:
        """The call is on its way as the ``position``-th of ``chunk``."""
        self._chunk, self._at = chunk, position
        self._bound.set()

    @property
    def id(self) -> str:
        """``JOB/FRAGMENT/CALL``; waits until the call is on the chief's disk, so that the id is good from then on."""
        self._bound.wait(SENT_S)
        chunk = self._chunk
        if chunk is None or not chunk.sent.wait(SENT_S):
            raise concurrent.futures.TimeoutError("the call has not been sent yet")
        return f"{chunk.job}/{chunk.index}/{self._at}"

    @property
    def worker(self) -> str:
        """Which worker gave the result, "" while there is none."""
        return self._chunk.worker if self._chunk is not None else ""


def split_id(text: str) -> tuple[str, int, int]:
    """``JOB/FRAGMENT/CALL`` as its three parts. Raises `UsageError`."""
    from p2p.base.errors import UsageError

    job, _, rest = text.partition("/")
    fragment, _, call = rest.partition("/")
    if not (job and fragment.isdecimal() and (call or "0").isdecimal()):
        raise UsageError("future-id-malformed", f"a future's id is JOB/FRAGMENT/CALL, got {text[:80]!r}")
    return job, int(fragment), int(call or 0)


def attach(client: Any, text: str) -> concurrent.futures.Future[Any]:
    """The future with this id, from any process that may read the job."""
    from company.client.call_errors import FragmentError, opened_error
    from company.client.chunks import opened
    from company.client.session import Chunk
    from company.client.transport import Transport, path_of
    from company.errors import NotFoundError

    job, fragment, position = split_id(text)
    future: Future[Any] = Future()
    chunk = Chunk(b"", 0, lambda chunk, body, trouble: None)
    chunk.job, chunk.index = job, fragment
    chunk.sent.set()
    future.bind(chunk, position)
    future.set_running_or_notify_cancel()

    def fetch() -> None:
        transport = Transport(client.transport.address)
        try:
            while True:
                view = transport.json("GET", path_of("jobs", job), query={"wait": 1}, timeout_s=60.0)
                try:
                    answer = transport.request("GET", path_of("jobs", job, "fragments", fragment, "result"))
                    break
                except NotFoundError:
                    dead = transport.json("GET", path_of("jobs", job, "failures"), query={"limit": 1000})["items"]
                    found = next((f for f in dead if f["fragment"] == fragment and f["final"]), None)
                    if found is not None:
                        raise FragmentError.of_death(client, chunk, found, ((), {})) from None
                    if view["state"] in ("done", "failed", "cancelled"):
                        raise
            result = opened(answer.body, None)
            if position >= len(result.values):
                text = (
                    f"call {position} of {job}/{fragment} was not run there: its calls took long, and those left went into another fragment"
                )
                raise NotFoundError("call-not-run", text)
            if position in result.failed:
                future.set_exception(opened_error(result.values[position], client, chunk, position, None, ((), {})))
            else:
                future.set_result(result.values[position])
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
            future.set_exception(error)
        finally:
            transport.close()

    threading.Thread(target=fetch, name="company-attach", daemon=True).start()
    return future
