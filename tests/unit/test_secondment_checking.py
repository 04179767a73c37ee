"""Foreign answers computed again at home: how many at once, one accusation, nothing forgotten."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from company.chief.secondment import checking
from company.chief.secondment.check_slot import slots_for
from company.chief.secondment.trial import Answer, Trial
from company.chief.window import Large
from company.one_fragment import FragmentOutcome
from p2p.reputation.checking import Policy


def trial() -> Trial:
    """Every answer is a check."""
    return Trial(Policy(spot=1.0), random.Random(1))


class AtHome:
    """Check slots that compute when they are told to; ``own``: what comes out, or is raised, each in turn."""

    def __init__(self, *own: bytes | Exception) -> None:
        self.own, self.begun, self.go = list(own), 0, trio.Event()

    async def run(self, runtime: object, fragment: int, given: bytes) -> FragmentOutcome:
        self.begun += 1
        await self.go.wait()
        found = self.own.pop(0)
        if isinstance(found, Exception):
            raise found
        return FragmentOutcome(fragment, found, "", "", "")

    async def aclose(self) -> None: ...


def checking_of(home: AtHome, tried: Trial, slots: int, borrowed: int) -> tuple[checking.Checking, list[Any]]:
    """One company under trial in one job, and what is said of it."""
    said: list[Any] = []
    guest = SimpleNamespace(is_checked=True, processor=b"q", origin="co-b")
    worker = SimpleNamespace(spec=SimpleNamespace(guest=guest, slots=borrowed), connected=True)
    live = SimpleNamespace(id="j", foreign=SimpleNamespace(abroad=True, provisional={"co-b"}, of=lambda origin: True))
    engine = SimpleNamespace(
        state=SimpleNamespace(slots=SimpleNamespace(workers={"g": worker}), jobs={"j": live}), runtimes={"j": SimpleNamespace()},
        post=said.append,
    )  # fmt: skip

    async def caught(*about: object) -> None:
        said.append(about[:3])
        await trio.testing.wait_all_tasks_blocked()  # on disk, as the real one waits for

    async def reopen(job: str, origins: set[str]) -> None: ...

    made = checking.Checking(
        engine=cast(Any, engine), committer=cast(Any, SimpleNamespace(add=lambda **_: None)),
        story=cast(Any, SimpleNamespace(tell=lambda *_: None)), slots=cast(Any, (home,) * slots), rng=random.Random(1),
        reopen=reopen, on_caught=caught, on_checked=lambda *_: None,
    )  # fmt: skip
    made.trials["j", "co-b"] = tried
    return made, said


@pytest.mark.parametrize(("borrowed", "cores", "slots"), [(0, 8, 1), (10, 8, 1), (11, 8, 2), (80, 16, 8), (80, 2, 2)])
def test_there_is_a_check_slot_for_ten_borrowed_ones(borrowed: int, cores: int, slots: int) -> None:
    assert slots_for(borrowed, cores) == slots


@pytest.mark.parametrize(("borrowed", "at_once"), [(10, 1), (25, 3)])
async def test_answers_of_many_slots_are_computed_again_side_by_side(borrowed: int, at_once: int) -> None:
    home, tried = AtHome(*[b"right"] * 6), trial()
    tried.choose(6)
    tried.add([Answer(n, b"", b"right") for n in range(6)], [])
    made, _ = checking_of(home, tried, 4, borrowed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await trio.testing.wait_all_tasks_blocked()
        assert home.begun == at_once and not tried.is_clear
        home.go.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert home.begun == tried.checked == 6 and tried.is_clear


async def test_two_wrong_answers_that_are_found_at_once_are_one_accusation() -> None:
    home, tried = AtHome(*[b"right"] * 3), trial()
    tried.choose(2)
    tried.add([Answer(n, b"", b"wrong") for n in range(2)], [])
    made, said = checking_of(home, tried, 2, 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await trio.testing.wait_all_tasks_blocked()
        assert home.begun == 2
        home.go.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [x[:2] for x in said if isinstance(x, tuple)] == [("co-b", "j")] and home.begun == 3
    assert not made.trials


async def test_an_answer_that_cannot_be_looked_at_again_waits_and_is_not_forgotten() -> None:
    home, tried = AtHome(b"right", OSError("no sandbox")), trial()
    tried.choose(1)
    tried.add([Answer(0, b"", b"wrong")], [])
    made, _ = checking_of(home, tried, 1, 1)
    home.go.set()
    with pytest.raises(OSError, match="no sandbox"):
        await made._check_next(cast(Any, home))
    assert not tried.is_caught and tried.next_check() is not None


async def test_a_large_input_is_kept_for_its_check_and_no_longer(tmp_path: Path) -> None:
    spooled = tmp_path / "f-1"
    spooled.write_bytes(b"x" * 1000)
    kept = checking._keep(Large(spooled, 1000, bytes(32)), tmp_path)
    assert kept is not None
    spooled.unlink()  # its result is on disk, and the window has let go of it
    answer = Answer(1, kept, b"result")
    assert (await checking._read(kept), answer.size_bytes) == (b"x" * 1000, 6)
    del kept, answer
    assert list(tmp_path.iterdir()) == []
    assert checking._keep(Large(spooled, checking.MAX_INPUT_BYTES + 1, bytes(32)), tmp_path) is None, "too large to be computed again"
    assert checking._keep(Large(spooled, 1000, bytes(32)), tmp_path) is None, "gone before it was looked at"
