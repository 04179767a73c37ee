"""What happens to a fragment that failed, and when its job fails with it (pure).

A fragment that fails by itself is tried three times, on another worker where there is one; then it is final, and `MaxFails` decides about
the job. Losing a worker is nobody's fault and uses up no try; but a single fragment whose worker is lost five times running it is final
too, cause ``kills-its-worker``. A lost batch of many is halved before it is run again, so that such a fragment ends up alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from company.chief.ranges import Piece
from p2p.base.errors import UsageError
from p2p.base.record import record

MAX_TRIES = 3
MAX_INFRA_TRIES = 5  # losses of one single fragment before it counts as the killer of its workers
KILLER = "kills-its-worker"
MAX_OPEN = 100_000  # fragments that failed and are to be tried again; beyond it a failure is final at once, to bound memory
MAX_AVOIDED = 3  # workers remembered per fragment
_MAX_FAILS = re.compile(r"(\d{1,18})(%?)")


@record
class MaxFails:
    """How many fragments may fail for good before their job fails: ``count``, or ``percent`` of all."""

    count: int = 0
    percent: int | None = None

    @classmethod
    def parse(cls, text: str) -> MaxFails:
        """Read "0", "5" or "10%". Raises `UsageError`."""
        match = _MAX_FAILS.fullmatch(text.strip()) if text.isascii() else None
        if match is None or (match[2] and int(match[1]) > 100):
            raise UsageError("max-fails-malformed", f'max_fails must be like "0", "5" or "10%", got {text[:40]!r}')
        return cls(percent=int(match[1])) if match[2] else cls(count=int(match[1]))

    def is_exceeded(self, *, failed: int, total: int | None) -> bool:
        """Whether the job fails. A percentage is judged when the total is known, for before that nobody can know it is exceeded."""
        if self.percent is None:
            return failed > self.count
        return total is not None and failed * 100 > self.percent * total


@record
class Trouble:
    """What is known of one failing fragment."""

    tries: int = 0  # failures that were its own
    infra_tries: int = 0  # losses of its worker while it ran alone
    avoid: tuple[str, ...] = ()  # workers where it failed, the newest last


@record
class Verdict:
    """What to do with a fragment that failed. ``final``: give it up; else run it alone, rather not on a worker in ``trouble.avoid``."""

    trouble: Trouble
    final: bool
    cause: str


class RetryBook:
    """The failing fragments of one job. Only those still to be tried are kept; what is final is forgotten here (its row is on disk)."""

    def __init__(self, *, tries: int = MAX_TRIES, known: Iterable[tuple[int, Trouble]] = ()) -> None:
        """``known``: what an earlier run of the chief left."""
        if tries < 1:
            raise UsageError("retries-too-few", f"a fragment is tried at least once, got {tries}")
        self._tries = tries
        self._open: dict[int, Trouble] = dict(known)

    def __len__(self) -> int:
        return len(self._open)

    def fragments(self) -> tuple[int, ...]:
        """Those still to be tried."""
        return tuple(self._open)

    def of(self, fragment: int) -> Trouble:
        """What is known of this fragment; nothing known is no trouble."""
        return self._open.get(fragment, Trouble())

    def on_failure(self, fragment: int, *, worker: str, cause: str) -> Verdict:
        """The fragment failed by itself: raised, crashed, ran out of time or memory."""
        known = self.of(fragment)
        trouble = replace(known, tries=known.tries + 1, avoid=_with(known.avoid, worker))
        return self._judge(fragment, trouble, trouble.tries >= self._tries, cause)

    def on_loss(self, fragment: int, *, worker: str) -> Verdict:
        """The worker was lost while this fragment ran alone on it."""
        known = self.of(fragment)
        trouble = replace(known, infra_tries=known.infra_tries + 1, avoid=_with(known.avoid, worker))
        killer = trouble.infra_tries >= MAX_INFRA_TRIES
        return self._judge(fragment, trouble, killer, KILLER if killer else "worker-lost")

    def on_success(self, fragment: int) -> None:
        """A later try worked."""
        self._open.pop(fragment, None)

    def on_kept(self, fragment: int) -> None:
        """The worker that was taken for lost came back with this fragment still running: that was no loss."""
        known = self._open.get(fragment)
        if known is not None and known.infra_tries:
            self._open[fragment] = replace(known, infra_tries=known.infra_tries - 1)

    def allow(self, tries: int) -> None:
        """From now on a fragment is tried this often."""
        self._tries = max(1, tries)

    def forget(self, fragment: int) -> None:
        """A user asks to try a final fragment again, from zero."""
        self._open.pop(fragment, None)

    def _judge(self, fragment: int, trouble: Trouble, final: bool, cause: str) -> Verdict:
        if not final and fragment not in self._open and len(self._open) >= MAX_OPEN:
            final = True
        if final:
            self._open.pop(fragment, None)
        else:
            self._open[fragment] = trouble
        return Verdict(trouble, final, cause)


def pieces_after_loss(first: int, count: int, *, losses: int) -> list[Piece]:
    """How to run a range again whose worker was lost ``losses`` times (this one included): whole once, then in halves.

    Machines are lost now and then, so once proves nothing. Halving finds one bad fragment among n in log2(n) losses (bisection).
    """
    if losses < 2 or count < 2:
        return [(first, count)]
    half = count // 2
    return [(first, half), (first + half, count - half)]


def clip_text(text: str, *, max_bytes: int) -> str:
    """Shorten a traceback, message or preview to ``max_bytes`` of UTF-8, keeping head and tail: the cause is often at the end."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes:
        return raw.decode()
    gap = f"\n… {len(raw) - max_bytes} bytes or more left out …\n".encode()
    head = max(0, max_bytes - len(gap)) // 3
    tail = max(0, max_bytes - len(gap) - head)
    if tail == 0:
        return raw[:max_bytes].decode(errors="ignore")
    return raw[:head].decode(errors="ignore") + gap.decode() + raw[-tail:].decode(errors="ignore")


def _with(workers: tuple[str, ...], worker: str) -> tuple[str, ...]:
    return (*(w for w in workers if w != worker), worker)[-MAX_AVOIDED:]
