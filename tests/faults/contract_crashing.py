"""`company` whose chief can be made to die at a record of a contract: ``python -m tests.faults.contract_crashing start …`` (I/O).

$FAULT_FILE names the moment and the number of the record: *unwritten* (made and signed, not on disk), *written* (on disk, nothing of it
said yet), *said* (its message has left). After every event the book is checked: what does not hold, and slots promised beyond $FAULT_SLOTS,
goes into $FAULT_VIOLATIONS.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import trio

from company.chief.contracts.driver import BookDriver
from p2p.contracts import book as b
from p2p.contracts import events as e
from p2p.contracts.table import HOLDING
from p2p.contracts.terms import Role
from tests.faults.crashing import watch_machine

MOMENTS = ("unwritten", "written", "said")
SAID_S = 0.05  # after the message was handed to its channel


def wrap_journal(path: Path) -> None:
    """Die where the file says."""

    def is_now(moment: str, ordinals: Iterable[int]) -> bool:
        said = path.read_text().split() if path.exists() else []
        return len(said) == 2 and said[0] == moment and int(said[1]) in set(ordinals)

    def die() -> None:
        with contextlib.suppress(FileNotFoundError):  # taken away meanwhile: then it is not to die
            path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    async def die_soon() -> None:
        await trio.sleep(SAID_S)
        die()

    perform, on_disk = BookDriver._perform, BookDriver._on_disk

    def performing(self: BookDriver, effects: Any) -> None:
        if is_now("unwritten", [x.effect.ordinal for x in effects if isinstance(x, b.Of) and isinstance(x.effect, e.Persist)]):
            die()
        perform(self, effects)

    def written(self: BookDriver, rows: list[tuple[b.Key, int]], halves: Any) -> None:
        ordinals = [ordinal for _, ordinal in rows]
        if is_now("written", ordinals):
            die()
        on_disk(self, rows, halves)
        if is_now("said", ordinals):
            trio.lowlevel.spawn_system_task(die_soon)

    BookDriver._perform = performing  # type: ignore[method-assign]
    BookDriver._on_disk = written  # type: ignore[method-assign]


def watch_book(path: Path, slots: int) -> None:
    """Check the book after every event."""
    handle = BookDriver.handle

    def handled(self: BookDriver, event: Any) -> None:
        try:
            handle(self, event)
        finally:
            try:
                self.book.validate()
                lent = sum(c.a.slots for c in self.book.contracts.values() if c.a.role is Role.LENDER and c.state in HOLDING)
                assert lent <= slots, f"{lent} slots are promised, {slots} are lent"
            except Exception:  # noqa: BLE001 whatever it is, it is a violation
                with path.open("a") as file:
                    file.write(f"after {type(event).__name__}: {traceback.format_exc()}\n")

    BookDriver.handle = handled  # type: ignore[method-assign]


def main() -> None:
    wrap_journal(Path(os.environ["FAULT_FILE"]))
    violations = Path(os.environ["FAULT_VIOLATIONS"])
    watch_machine(violations)
    watch_book(violations, int(os.environ["FAULT_SLOTS"]))
    from company.cli import main as command_line

    sys.argv[0] = "company"
    command_line()


if __name__ == "__main__":
    main()
