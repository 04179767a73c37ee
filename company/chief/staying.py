"""Jobs that only own workers can compute, because their own runs disagree, while there is no own worker (pure).

Such a job would wait for ever. It is given up after a while, with the reason; an own worker that comes in time takes it.
"""

from __future__ import annotations

from company.chief.books import Books
from company.chief.jobrun import JobRun
from p2p.base.clock import Monotonic
from p2p.base.errors import Action, Reason

GIVEN_UP_S = 600.0  # without an own worker
_MEND = Action("make process depend on its fragment and parameters only, submit it again")
_START = Action("start an own worker, then submit it again", "company worker join")


def look(books: Books, now: Monotonic) -> tuple[str, ...]:
    """Note since when there is no own worker; the jobs that are to be given up now."""
    mine = [name for name in books.staying if (job := books.active.get(name)) is not None and job.foreign.abroad is False]
    books.staying = set(mine)
    if not mine or any(w.connected and w.spec.guest is None for w in books.slots.workers.values()):
        books.give_up_at = None
    elif books.give_up_at is None:
        books.give_up_at = Monotonic(now + GIVEN_UP_S)
    elif now >= books.give_up_at:
        books.give_up_at = None
        return tuple(sorted(mine))
    return ()


def waits(job: JobRun) -> Reason:
    """While it waits."""
    minutes = round(GIVEN_UP_S / 60)
    text = f"Only own workers can compute it and none is here ({job.foreign.why}); after {minutes} minutes without one it is given up."
    return Reason("abroad-differs", text, {"workers": 0, "given_up_after_s": GIVEN_UP_S}, (_START, _MEND))


def given_up(job: JobRun) -> Reason:
    """What ended it."""
    text = f"Only own workers can compute it ({job.foreign.why}), and for {round(GIVEN_UP_S / 60)} minutes there was none."
    return Reason("abroad-differs", text, {"workers": 0, "waited_s": GIVEN_UP_S}, (_START, _MEND))
