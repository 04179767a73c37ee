"""How many bytes of request bodies a process keeps in memory at once (pure): what is over is refused with a reason, never queued.

A bound per body alone lets a hundred callers bring a hundred bodies. So whoever reads a body whole reserves what it may become before
the first byte is read, and gives it back as soon as the bytes are elsewhere, not when its answer has been sent.
"""

from __future__ import annotations

from types import TracebackType

from p2p.base.errors import Unavailable
from p2p.net.http_types import BodyTooLarge

RETRY_AFTER_S = 1


class BodyBudget:
    """One total for all callers. ``max_body_bytes``: of one body."""

    def __init__(self, *, max_body_bytes: int, total_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self.total_bytes = total_bytes
        self.used_bytes = 0

    def reserve(self, announced: int | None) -> Reserved:
        """Room for one body. ``announced``: its Content-Length; nil: as much as one may have. Raises `BodyTooLarge`, `Unavailable`."""
        if announced is not None and announced > self.max_body_bytes:
            raise BodyTooLarge(self.max_body_bytes, announced)
        size = self.max_body_bytes if announced is None else announced
        if self.used_bytes + size > self.total_bytes:
            text = f"bodies of {self.used_bytes} bytes are being taken, {self.total_bytes} are allowed at once; send it again in a moment"
            raise Unavailable("bodies-full", text, used=self.used_bytes, limit=self.total_bytes, retry_after_s=RETRY_AFTER_S)
        return Reserved(self, size)


class Reserved:
    """A part of the total, until `release` or the end of the block."""

    def __init__(self, budget: BodyBudget, size: int) -> None:
        self._budget = budget
        self._size = size
        budget.used_bytes += size

    def release(self) -> None:
        """Give it back. Idempotent."""
        self._budget.used_bytes -= self._size
        self._size = 0

    def __enter__(self) -> Reserved:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()
