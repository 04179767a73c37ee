"""Work that somebody waits for: what a job of the chief and a run on another engine have in common (pure but for the waiting).

``view`` is what was last seen of it: id, name, state, reason, and counts of fragments.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from company.errors import FragmentsFailed, JobCancelled, JobFailed, WaitTimedOut

if TYPE_CHECKING:
    from company.client.progress import Bar

ENDED = ("done", "failed", "cancelled")
POLL_S = 25.0  # one long poll
BAR_POLL_S = 1.0  # where somebody looks


class Waited:
    """What can be waited for. A subclass has ``status`` and ``failures``."""

    def __init__(self, view: Mapping[str, Any]) -> None:
        self.view: dict[str, Any] = dict(view)

    @property
    def id(self) -> str:
        """The full id."""
        return str(self.view["id"])

    @property
    def state(self) -> str:
        """The state last seen."""
        return str(self.view["state"])

    @property
    def is_over(self) -> bool:
        """Whether the state last seen is a final one."""
        return self.state in ENDED

    @property
    def failures_hint(self) -> str:
        """How to see what failed."""
        return ""

    @property
    def goes_on_hint(self) -> str:
        """How to see it again after somebody no longer waits."""
        return ""

    def status(self, *, wait_s: float = 0.0) -> dict[str, Any]:
        """The view of now; with ``wait_s`` the call returns when the work ended or that time is over."""
        raise NotImplementedError

    def failures(self, *, limit: int = 1000, offset: int = 0) -> dict[str, Any]:
        """The fragments that failed at least once: items, total, returned, truncated."""
        raise NotImplementedError

    def wait(self, timeout_s: float | None = None, *, check: bool = False, progress: bool | None = None) -> Self:
        """Return when the work has ended. Raises `WaitTimedOut`; with ``check`` also what `raise_for_state` raises.

        ``progress``: a bar, by default where standard error is a terminal.
        """
        from company.client.progress import bar_of

        bar = bar_of(str(self.view.get("name") or self.id), None, progress)
        try:
            self._wait(timeout_s, bar)
        finally:
            if bar is not None:
                bar.close()
        if check:
            self.raise_for_state()
        return self

    def _wait(self, timeout_s: float | None, bar: Bar | None) -> None:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = POLL_S if end is None else min(POLL_S, max(0.0, end - time.monotonic()))
            self.status(wait_s=left if bar is None else min(left, BAR_POLL_S))
            if self.is_over:
                return
            if bar is not None:
                counts = self.view.get("fragments") or {}
                bar.reach(int(counts.get("done", 0)) + int(counts.get("failed", 0)), counts.get("total"))
            if end is not None and time.monotonic() >= end:
                text = f"{self.id} is still {self.state} after {timeout_s:g} s"
                raise WaitTimedOut("wait-timed-out", text, hint=self.goes_on_hint, job=self.id)

    def raise_for_state(self) -> None:
        """Raise `JobFailed`, `JobCancelled` or `FragmentsFailed` unless the work is whole."""
        reason = self.view.get("reason") or {}
        if self.state == "failed":
            text = str(reason.get("text") or f"{self.id} failed")
            raise JobFailed("job-failed", text, hint=self.failures_hint, job=self.id, groups=self.errors())
        if self.state == "cancelled":
            raise JobCancelled("job-cancelled", f"{self.id} was cancelled", job=self.id)
        failed = int((self.view.get("fragments") or {}).get("failed", 0))
        if self.state == "done" and failed:
            text = f"{failed} fragments of {self.id} failed"
            raise FragmentsFailed("fragments-failed", text, hint=self.failures_hint, job=self.id)

    def errors(self) -> list[dict[str, Any]]:
        """Failures in groups of the same cause, exception and message, the largest first."""
        return group_failures(self.failures()["items"])


def group_failures(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Failures in groups of the same cause, exception and place, the largest first."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for item in items:
        place = _last_place(str(item.get("traceback", "")))
        key = (str(item.get("cause", "")), str(item.get("exc_type", "")), place or str(item.get("message", "")))
        empty = {"cause": key[0], "exc_type": key[1], "place": place, "message": item.get("message", ""), "count": 0}
        group = groups.setdefault(key, empty | {"fragments": [], "first": item})
        group["count"] += 1
        if len(group["fragments"]) < 20:
            group["fragments"].append(item.get("fragment"))
    return sorted(groups.values(), key=lambda g: (-int(g["count"]), str(g["exc_type"]), str(g["message"])))


def _last_place(traceback: str) -> str:
    """``processor/main.py:14`` of the innermost frame, empty when there is none."""
    for line in reversed(traceback.splitlines()):
        stripped = line.strip()
        if stripped.startswith('File "'):
            name, _, rest = stripped[6:].partition('", line ')
            number = rest.partition(",")[0]
            return f"{'/'.join(name.split('/')[-2:])}:{number}"
    return ""
