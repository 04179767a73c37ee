"""Failures grouped by what went wrong, so that 10,000 equal errors are one line (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from company import views
from p2p.base.record import record

MAX_NUMBERS = 20
_CHANGING = re.compile(r"0x[0-9a-fA-F]+|\d+")


@record
class Group:
    """Failures that look alike; ``first`` stands for all."""

    first: views.FailureView
    count: int
    fragments: tuple[int, ...]

    @property
    def title(self) -> str:
        """What went wrong, in one line."""
        first = self.first
        what = f"{first.exc_type}: {first.message}" if first.exc_type else first.message or first.cause
        return f"{what} (signal {first.signal})" if first.signal else what


def groups_of(failures: Iterable[views.FailureView]) -> list[Group]:
    """Groups, the largest first. Numbers and addresses in messages do not tell errors apart."""
    found: dict[tuple[str, str, str, int], list[views.FailureView]] = {}
    for failure in failures:
        key = (failure.cause, failure.exc_type, _CHANGING.sub("#", failure.message)[:300], failure.signal)
        found.setdefault(key, []).append(failure)
    groups = [Group(same[0], len(same), tuple(f.fragment for f in same[:MAX_NUMBERS])) for same in found.values()]
    return sorted(groups, key=lambda g: (-g.count, g.fragments))
