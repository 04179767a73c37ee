"""From what is left of a dead child to a cause in words (pure)."""

from __future__ import annotations

import signal

from company.sandbox.page import Page
from company.sandbox.page_slots import STAGE_NONE
from p2p.base.record import record

CAUSES = (
    "crashed", "exited", "time-limit", "memory-limit", "disk-limit", "output-flood", "garbage-on-pipe", "cancelled", "sandbox-failed",
)  # fmt: skip


@record
class Killed:
    """Why we killed it, if we did."""

    cause: str
    text: str


@record
class Verdict:
    """Why a child is no more. ``index``: the fragment it was at; ``signal`` and ``exit_code`` are 0 when they say nothing."""

    cause: str
    text: str
    signal: int
    exit_code: int
    index: int
    log_tail: bytes
    in_user: bool = False


def judge(
    *, returncode: int, page: Page, log_tail: bytes, killed: Killed | None, memory_bytes: int, was_out_of_memory: bool = False
) -> Verdict:
    """Name the cause. returncode: as `subprocess.Popen` tells it; bubblewrap reports a signal as 128 + its number."""
    number, code = _signal_of(returncode)

    def verdict(cause: str, text: str) -> Verdict:
        return Verdict(cause, text, number, code, page.index, log_tail, page.in_user)

    if killed is not None:
        return verdict(killed.cause, killed.text)
    if was_out_of_memory:
        text = f"memory and files in /tmp together grew past what its control group may have (limit {memory_bytes >> 20} MiB of memory)"
        return verdict("memory-limit", text)
    if page.stage == STAGE_NONE:
        return verdict("sandbox-failed", f"the sandbox did not start: {_first_words(log_tail) or f'exit code {returncode}'}")
    if number == signal.SIGKILL:
        mib = memory_bytes >> 20
        return verdict("memory-limit", f"killed by the system, as it does when memory runs out (limit {mib} MiB)")
    if number:
        return verdict("crashed", f"the process crashed: {_signal_words(number)}")
    return verdict("exited", f"the process ended itself with exit code {code}")


def _signal_of(returncode: int) -> tuple[int, int]:
    if returncode < 0:
        return -returncode, 0
    if 128 < returncode <= 128 + 64:
        return returncode - 128, 0
    return 0, returncode


def _signal_words(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


def _first_words(log: bytes) -> str:
    lines = [line for line in log.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
