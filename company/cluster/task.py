"""What runs inside a process of the cluster: hand a batch to a slot of this machine and wait for its outcome (I/O).

The cluster's own processes stay clean of modules' code: a batch goes to a `company.cluster.node` process, kept for the next batch of the
same run. Everything here is called by the cluster's scheduler, in whatever thread it likes.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import threading
from collections import deque

from company.cluster.node import read_message, write_message

MAX_KEPT = 64


class Nodes:
    """The slot processes of this process that wait for work, per run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, deque[subprocess.Popen[bytes]]] = {}

    def run(self, run_id: str, spec: bytes, batch: bytes) -> bytes:
        """The parts of the batch's outcome. Raises `RuntimeError` when the slot could not be had or died."""
        process = self._take(run_id) or start(spec)
        try:
            answer = ask(process, batch)
        except BaseException:
            end(process)
            raise
        with self._lock:
            idle = self._idle.setdefault(run_id, deque())
            idle.append(process)
            extra = idle.popleft() if len(idle) > MAX_KEPT else None
        if extra is not None:
            end(extra)
        return answer

    def close(self, run_id: str) -> None:
        """The run is over."""
        with self._lock:
            idle = self._idle.pop(run_id, deque())
        for process in idle:
            end(process)

    def _take(self, run_id: str) -> subprocess.Popen[bytes] | None:
        with self._lock:
            idle = self._idle.get(run_id, deque())
            while idle:
                process = idle.pop()
                if process.poll() is None:
                    return process
        return None


def start(spec: bytes) -> subprocess.Popen[bytes]:
    """A slot of this job, ready for its first batch."""
    process = subprocess.Popen(
        [sys.executable, "-m", "company.cluster.node"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        ask(process, spec)
    except BaseException:
        end(process)
        raise
    assert process.stderr is not None
    threading.Thread(target=_drain, args=(process,), daemon=True).start()
    return process


def ask(process: subprocess.Popen[bytes], message: bytes) -> bytes:
    """Write one message and read its answer. Raises `RuntimeError` with the process's last words."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        write_message(process.stdin, message)
    answer = read_message(process.stdout)
    if answer is None:
        end(process)
        words = b"" if process.stderr is None or process.stderr.closed else process.stderr.read()
        raise RuntimeError(f"a slot of {platform.node()} ended: {words.decode('utf-8', 'replace').strip()[-2000:]}")
    return answer


def end(process: subprocess.Popen[bytes]) -> None:
    """End it and its sandboxes, which end with it."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _drain(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.buffer.write(line)  # into the cluster's own log


# One per process of the cluster: its scheduler knows functions only, and slots must be found again by the next call.
NODES = Nodes()


def run_batch(run_id: str, spec: bytes, batch: bytes) -> bytes:
    """A task of the cluster."""
    return NODES.run(run_id, spec, batch)


def close_run(run_id: str) -> None:
    """A task of the cluster, on each of its processes where it can be had there."""
    NODES.close(run_id)


def versions() -> tuple[str, str]:
    """Of Python and of company-compute, on this node."""
    from company import __version__

    return f"{sys.version_info.major}.{sys.version_info.minor}", __version__
