"""A worker of a company for as long as somebody's cluster lends its node: a process between the two (I/O).

``python -m company.cluster.pilot`` reads one line of JSON from standard input, starts `company worker join` with it in a temporary home,
and writes a line of JSON for each change. When its input ends, because the node was taken back or the process above has died, and when
no further byte comes for a while, because the command that lent it is silent, the worker gets the time to finish what it runs, and then
nothing of it is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

REQUEST_S = 60.0  # until the request is there
END_S = 45.0  # a worker that stops drains for 30 s
LOST_S = 60.0  # without a word from above
LOOK_S = 1.0
MAX_REQUEST_BYTES = 64 << 10
MAX_WORDS = 2000


def tell(state: str, **facts: Any) -> None:
    """One line for the process above, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps({"state": state, **facts}).encode() + b"\n")


def read_request() -> dict[str, Any]:
    """The line that says what to do. Raises `TimeoutError`, `ValueError`."""
    until = time.monotonic() + REQUEST_S
    found = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while not found.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                raise TimeoutError(f"no request within {REQUEST_S:g} s")
            data = os.read(0, 1 << 16)
            if not data or len(found) > MAX_REQUEST_BYTES:
                raise ValueError("the request is not one line")
            found += data
    asked = json.loads(found)
    if type(asked) is not dict:
        raise ValueError("the request is not an object")
    return asked


class Watched:
    """The worker and this process's input, in one loop: nothing here waits without an end."""

    def __init__(self, process: subprocess.Popen[bytes], above: int = 0, *, lost_s: float = LOST_S) -> None:
        self._process, self._above, self._lost_s = process, above, lost_s
        self._leave_at: float | None = None
        self._heard_at = time.monotonic()
        self._lines = self._words = b""

    def run(self) -> None:
        """Return when the worker is over."""
        process = self._process
        with selectors.DefaultSelector() as selector:
            selector.register(self._above, selectors.EVENT_READ, self._from_above)
            for stream, heard in ((process.stdout, self._said), (process.stderr, self._complained)):
                assert stream is not None
                selector.register(stream, selectors.EVENT_READ, heard)
            while process.poll() is None:
                for key, _ in selector.select(LOOK_S):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    key.data(data)
                if time.monotonic() - self._heard_at > self._lost_s:
                    self._leave()
                if self._leave_at is not None and time.monotonic() - self._leave_at > END_S:
                    process.kill()
            for stream, heard in ((process.stdout, self._said), (process.stderr, self._complained)):
                heard(_rest_of(stream))
        is_well = self._leave_at is not None or process.returncode == 0
        tell("left" if is_well else "failed", code=process.returncode, text=self._words.decode("utf-8", "replace"))

    def _from_above(self, data: bytes) -> None:
        if data:
            self._heard_at = time.monotonic()
        else:
            self._leave()

    def _leave(self) -> None:
        if self._leave_at is None:
            self._leave_at = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def _said(self, data: bytes) -> None:
        *whole, self._lines = (self._lines + data)[-MAX_REQUEST_BYTES:].split(b"\n")
        for line in whole:
            with contextlib.suppress(ValueError):
                tell("joined", worker=dict(json.loads(line)).get("worker", ""))

    def _complained(self, data: bytes) -> None:
        self._words = (self._words + data)[-MAX_WORDS:]


def _rest_of(stream: IO[bytes] | None) -> bytes:
    """What is in the pipe by now; a grandchild may hold it open for longer."""
    assert stream is not None
    os.set_blocking(stream.fileno(), False)
    try:
        return stream.read() or b""
    except BlockingIOError:
        return b""


def main() -> int:
    """Be a pilot until the input ends."""
    try:
        asked = read_request()
    except (TimeoutError, ValueError) as error:
        tell("failed", code=None, text=str(error))
        return 1
    with tempfile.TemporaryDirectory(prefix="company-pilot-", ignore_cleanup_errors=True) as home:
        command = [sys.executable, "-P", "-m", "company", "worker", "join", "--home", home, "--json", "--token-file", "-"]
        command += ["--name", str(asked["name"]), "--slots", str(int(asked["slots"])), *map(str, asked["options"])]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, start_new_session=True
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(str(asked["token"]).encode() + b"\n")
            process.stdin.close()
        Watched(process).run()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of its input is what ends it
    sys.exit(main())
