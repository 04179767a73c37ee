"""When workers are lent: ``mon-fri 18:00-08:00, sat-sun`` (pure).

Times are of the machine's own clock and zone. A span that ends before it begins runs past midnight and belongs to its first day.
"""

from __future__ import annotations

import re

from p2p.base.errors import UsageError
from p2p.base.record import record

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 1440
WEEK_MINUTES = 7 * DAY_MINUTES
MAX_CHARS = 64  # as in an advertisement
_SPAN = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))?)?\s*(?:(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d))?")


@record
class Schedule:
    """Spans of a week as [begin, end) in minutes since Monday 0:00; an end may lie past the week. Empty: always."""

    text: str = ""
    spans: tuple[tuple[int, int], ...] = ()

    def is_on(self, minute: int) -> bool:
        """Whether it lends in this minute of the week."""
        return not self.spans or any(begin <= at < end for begin, end in self.spans for at in (minute, minute + WEEK_MINUTES))

    def minutes_until_change(self, minute: int) -> int | None:
        """Minutes until it begins or ends; None where it never does."""
        now = self.is_on(minute)
        return next((n for n in range(1, WEEK_MINUTES + 1) if self.is_on((minute + n) % WEEK_MINUTES) != now), None)


def parse_schedule(text: str) -> Schedule:
    """Read a schedule. Raises `UsageError`."""
    plain = " ".join(text.lower().split())
    if not plain:
        return Schedule()
    if len(plain) > MAX_CHARS or not plain.isascii():
        raise _bad(text)
    spans: list[tuple[int, int]] = []
    for part in plain.split(","):
        spans += _spans_of(part.strip(), text)
    return Schedule(plain, tuple(spans))


def _spans_of(part: str, text: str) -> list[tuple[int, int]]:
    found = _SPAN.fullmatch(part)
    if found is None or not part:
        raise _bad(text)
    first, last, *clock = found.groups()
    if (first and first not in DAYS) or (last and last not in DAYS):
        raise _bad(text)
    begin = DAYS.index(first) if first else 0
    end = DAYS.index(last) if last else begin if first else 6
    days = [(begin + n) % 7 for n in range((end - begin) % 7 + 1)]
    if clock[0] is None:
        return [(day * DAY_MINUTES, (day + 1) * DAY_MINUTES) for day in days]
    h1, m1, h2, m2 = (int(part) for part in clock)
    start, stop = h1 * 60 + m1, h2 * 60 + m2
    if start >= DAY_MINUTES or stop > DAY_MINUTES or m1 > 59 or m2 > 59 or start == stop:
        raise _bad(text)
    return [(day * DAY_MINUTES + start, day * DAY_MINUTES + stop + (DAY_MINUTES if stop < start else 0)) for day in days]


def _bad(text: str) -> UsageError:
    return UsageError(
        "bad-schedule", f"{text[:80]!r} is no schedule", hint='write "18:00-08:00", "sat-sun" or "mon-fri 18:00-08:00, sat-sun"'
    )
