"""One peer in a process of its own, asked over its pipes, ended with all its children when it does not answer in time (I/O).

``python -m benchmarks.peer_process NAME SLOTS`` reads a JSON line per question and answers with one; what the peer itself prints goes to
standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.peers import CASES, PEERS, Mode

OPEN_TIMEOUT_S = 90.0
CASE_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 15.0


class PeerLost(Exception):
    """The peer did not open, answer or end in time, or it died; the text says which."""


class Peer:
    """One way to use one peer, seen from the benchmark. ``lost``: why it no longer answers."""

    def __init__(self, process: PeerProcess, mode: dict[str, Any]) -> None:
        self._process = process
        self.name, self.how, self.share = str(mode["name"]), str(mode["how"]), int(mode["share"])
        self.cases: list[str] = mode["cases"]

    @property
    def lost(self) -> str:
        return self._process.lost

    def ask(self, case: str, **arguments: Any) -> tuple[float, Any]:
        """Seconds and the answer's value. Raises `PeerLost`, from then on at every question."""
        answer = self._process.ask({"mode": self.name, "case": case, "arguments": arguments}, CASE_TIMEOUT_S)
        return float(answer["seconds"]), answer["value"]


class PeerProcess:
    """The process of a peer, in a session of its own."""

    def __init__(self, name: str, slots: int) -> None:
        self.lost = ""
        self._name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peer_process", name, str(slots)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._read = b""

    def modes(self) -> list[Peer]:
        """Its ways, once it is warm. Raises `PeerLost`."""
        answer = self._line(OPEN_TIMEOUT_S, "opening")
        if "missing" in answer:
            raise PeerLost(str(answer["missing"]))
        return [Peer(self, mode) for mode in answer["modes"]]

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """One question and its answer. Raises `PeerLost`."""
        if self.lost:
            raise PeerLost(self.lost)
        try:
            self._in.write(json.dumps(question).encode() + b"\n")
            self._in.flush()
        except BrokenPipeError:
            raise self._lose("it died") from None
        answer = self._line(timeout_s, f"{question['case']} by {question['mode']}")
        if "error" in answer:
            raise self._lose(str(answer["error"]))
        return answer

    def _line(self, timeout_s: float, what: str) -> dict[str, Any]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not selector.select(timeout_s):
                    raise self._lose(f"{what}: no answer within {timeout_s:g} s")
                found = os.read(self._out.fileno(), 1 << 16)
                if not found:
                    raise self._lose(f"{what}: the process ended")
                self._read += found
        line, _, self._read = self._read.partition(b"\n")
        return dict(json.loads(line))

    def _lose(self, why: str) -> PeerLost:
        self.lost = f"{self._name}: {why}"
        self._kill()
        return PeerLost(self.lost)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Let it end; what is left of its session is killed."""
        self._in.close()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass  # killed below, as are children that it left
        self._kill()
        self._out.close()


@contextlib.contextmanager
def open_peers(slots: int, names: Iterable[str] = tuple(PEERS)) -> Iterator[tuple[list[Peer], dict[str, str]]]:
    """The peers that there are, and why the others are not."""
    missing: dict[str, str] = {}
    found: list[Peer] = []
    with contextlib.ExitStack() as stack:
        for name in names:
            process = PeerProcess(name, slots)
            stack.callback(process.close)
            try:
                found += process.modes()
            except PeerLost as error:
                missing[name] = str(error)[:200]
        yield found, missing


def serve(name: str, slots: int) -> None:
    """Be the peer: answer questions until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the peer prints is no answer
    try:
        opened = PEERS[name](slots)
        modes = opened.__enter__()
    except Exception as error:  # noqa: BLE001 - the boundary of this process: whatever a peer raises is said
        answers.write(json.dumps({"missing": f"{type(error).__name__}: {error}"[:200]}) + "\n")
        return
    told = [{"name": m.name, "how": m.how, "share": m.share, "cases": m.cases} for m in modes]
    answers.write(json.dumps({"modes": told}) + "\n")
    by_name: dict[str, Mode] = {mode.name: mode for mode in modes}
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                seconds, value = CASES[asked["case"]](by_name[asked["mode"]], **asked["arguments"])
                answers.write(json.dumps({"seconds": seconds, "value": value}) + "\n")
            except Exception as error:  # noqa: BLE001 - as above
                answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:200]}) + "\n")
    finally:
        opened.__exit__(None, None, None)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
