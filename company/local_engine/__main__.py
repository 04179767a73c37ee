"""One run as a process of its own, for a program that must stay free meanwhile: `company.client.engine_run` starts it (I/O).

``python -m company.local_engine`` reads one line of JSON, the arguments of `run_local`, and answers in lines of JSON: began, progress, and
how it ended. It ends with its standard input, so with the program that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from company.cluster.engines import open_cluster
from company.errors import JobFailed, exit_code_of
from company.local_engine.run import run_local
from p2p.base.errors import ParallelError

EVERY_S = 0.1  # between two words of progress


class Teller:
    """Says lines of JSON; a program that no longer reads them has ended, and so does this."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._next_at = 0.0

    def say(self, what: str, **facts: Any) -> None:
        """One line."""
        self._stream.write(json.dumps({"say": what, **facts}, default=str).encode() + b"\n")
        self._stream.flush()

    def progress(self, done: int, total: int | None = None, failed: int = 0) -> None:
        """As `run_local` calls it, and passed on ten times a second at most; the last counts come with the end."""
        now = time.monotonic()
        if now >= self._next_at:
            self._next_at = now + EVERY_S
            self.say("progress", done=done, total=total, failed=failed)


def run(request: Mapping[str, Any], teller: Teller) -> None:
    """Run it, and say how that went."""
    options = dict(request)
    engine, address = options.pop("engine"), options.pop("address")
    try:
        with contextlib.ExitStack() as stack:
            cluster = stack.enter_context(open_cluster(engine, address)) if engine != "local" else None
            facts = run_local(**options, cluster=cluster, progress=teller.progress, on_begun=lambda: teller.say("began"))
    except JobFailed as error:
        reason = {"code": error.facts.pop("cause", error.code), "text": error.text, "traceback": error.facts.pop("traceback", "")}
        teller.say("ended", state="failed", reason=reason, facts=error.facts)
    except ParallelError as error:
        told = {"code": error.code, "text": error.text, "hint": error.hint, "facts": error.facts, "exit_code": exit_code_of(error)}
        teller.say("refused", error=told)
    except KeyboardInterrupt:
        teller.say("ended", state="cancelled", reason=None, facts={})
    else:
        teller.say("ended", state="done", reason=None, facts=facts)


def _first_line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (more := os.read(descriptor, 1 << 16)):
        line += more
    return line


def _end_with(descriptor: int) -> None:
    """By the descriptor: a thread that waits inside ``sys.stdin`` makes Python's own end fail."""
    while os.read(descriptor, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """See the module."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed is no answer
    request = json.loads(_first_line(0))
    threading.Thread(target=_end_with, args=(0,), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        run(request, Teller(answers))
    answers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
