"""Contract path 5/8 - foreign answers against own ones: the tasks that compute again, believe, and take back (I/O).

First a fragment is computed twice at home: unless both agree, nothing of the job goes abroad. Then answers that `Trial` chose are
computed again, in as many slots as are borrowed by the ten. One that differs is computed a third time before anybody is accused.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from random import Random
from uuid import uuid4

import msgpack
import trio

from company.chief import events as ev
from company.chief.commit import Committer
from company.chief.engine import Engine
from company.chief.outcome_cut import Cut
from company.chief.runtime import JobRuntime
from company.chief.secondment import believed
from company.chief.secondment.check_slot import CheckSlot, slots_for
from company.chief.secondment.trial import Answer, Spooled, Trial
from company.chief.specs import Guest
from company.chief.storybook import Storybook
from company.chief.window import Large
from company.one_fragment import FragmentOutcome
from p2p.base.errors import ParallelError
from p2p.reputation.checking import Policy

MAX_INPUT_BYTES = 64 << 20  # of one fragment that is kept for a check
RETRY_S = 2.0  # after a sandbox could not be had
_log = logging.getLogger("company.chief.secondment")
OnCaught = Callable[[str, str, int, bytes], Awaitable[None]]  # company, job, fragment, evidence
OnChecked = Callable[[str, bool], None]  # contract (hex), whether it was passed


@dataclass(slots=True)
class Checking:
    """``passed``: what companies passed in jobs before, loaded when they come."""

    engine: Engine
    committer: Committer
    story: Storybook
    slots: tuple[CheckSlot, ...]
    rng: Random
    reopen: Callable[[str, set[str]], Awaitable[None]]
    on_caught: OnCaught
    on_checked: OnChecked
    passed: dict[str, float] = field(default_factory=dict)
    trials: dict[tuple[str, str], Trial] = field(default_factory=dict)
    contracts: dict[str, str] = field(default_factory=dict)  # company -> contract under which it came last
    _marked: set[tuple[str, str]] = field(default_factory=set)
    _caught: dict[str, set[str]] = field(default_factory=dict)  # job -> companies
    _moving: set[str] = field(default_factory=set)  # jobs that are out of the machine for a moment
    _accusing: trio.Lock = field(default_factory=trio.Lock)
    _wake: trio.Event = field(default_factory=trio.Event)

    def wake(self) -> None:
        """A job, a guest or an answer is new."""
        self._wake.set()
        self._wake = trio.Event()

    def forget_job(self, job: str) -> None:
        """It is over: what its companies passed is remembered."""
        if job in self._moving:
            return
        for key in [k for k in self.trials if k[0] == job]:
            trial = self.trials.pop(key)
            self._save_passed(key[1], trial.passed)
        self._marked = {k for k in self._marked if k[0] != job}
        self._caught.pop(job, None)

    def _save_passed(self, origin: str, passed: float) -> None:
        self.passed[origin] = passed
        now = time.time()
        self.committer.add(ops=[lambda conn: believed.save_passed(conn, origin, passed, now)])

    # ---- answers come --------------------------------------------------------------------------------------------------------
    def take(self, job: str, guest: Guest, policy: Policy, cut: Cut, first: int) -> Callable[[], None]:
        """Choose checks while the inputs are here; call what is returned once the machine has taken the outcome."""
        self.contracts[guest.origin] = guest.contract
        if not guest.is_checked:
            return lambda: self._mark(job, guest.origin)
        runtime = self.engine.runtimes.get(job)
        trial = self.trials.get((job, guest.origin))
        if trial is None:
            trial = self.trials[job, guest.origin] = Trial(policy, self.rng, passed=self.passed.get(guest.origin, 0.0))
        if runtime is None or trial.is_caught:
            return lambda: None
        for start, count in cut.ok:
            checks, spare = trial.choose(count)
            kept = [self._answer(runtime, cut, first, start + offset) for offset in checks]
            more = [self._answer(runtime, cut, first, start + offset) for offset in spare]
            trial.add([a for a in kept if a is not None], [a for a in more if a is not None])
        self.wake()
        return lambda: self._settle(job, guest.origin)

    def _answer(self, runtime: JobRuntime, cut: Cut, first: int, index: int) -> Answer | None:
        if not runtime.window.has(index, 1):
            return None  # of before a restart; it is not believed for it, only not checked
        _, bodies, large = runtime.window.cut(index, 1)
        given = _keep(large[index], runtime.dirs.fragments) if index in large else b"".join(bodies)
        if given is None:
            return None
        _, result = cut.slice(first, index, 1)
        return Answer(index, given, bytes(result), cut.large.get(index))

    def is_behind(self, job: str, origin: str) -> bool:
        """Whether so much waits for the check slot that its company is to get nothing new."""
        trial = self.trials.get((job, origin))
        return trial is not None and trial.is_behind

    def _mark(self, job: str, origin: str) -> None:
        if (job, origin) not in self._marked:
            self._marked.add((job, origin))
            self.committer.add(ops=[lambda conn: believed.mark(conn, job, origin)])

    def _settle(self, job: str, origin: str) -> None:
        trial = self.trials.get((job, origin))
        live = self.engine.state.jobs.get(job)
        if trial is not None and live is not None and trial.is_clear and origin in live.foreign.provisional:
            self._mark(job, origin)
            self.engine.post(ev.Believed(job=job, origin=origin))

    # ---- the tasks -----------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for number, slot in enumerate(self.slots):
                nursery.start_soon(self._serve, number, slot)

    async def _serve(self, number: int, slot: CheckSlot) -> None:
        """One check slot; the first one proves jobs, the others idle while little is borrowed."""
        try:
            while True:
                woken = self._wake
                is_busy = False
                if number < self._needed():
                    try:
                        is_busy = (number == 0 and await self._prove_next(slot)) or await self._check_next(slot)
                    except (ParallelError, OSError) as error:
                        _log.warning("answers cannot be checked now: %s", error)
                        await trio.sleep(RETRY_S)
                        continue
                else:
                    await slot.aclose()
                if not is_busy:
                    await woken.wait()
        finally:
            await slot.aclose()

    def _needed(self) -> int:
        workers = self.engine.state.slots.workers.values()
        borrowed = sum(w.spec.slots for w in workers if w.connected and w.spec.guest is not None and w.spec.guest.is_checked)
        return slots_for(borrowed, len(self.slots))

    async def _prove_next(self, slot: CheckSlot) -> bool:
        """Compute one fragment of a job twice, where that was not done yet."""
        guests = [w.spec.guest for w in self.engine.state.slots.workers.values() if w.connected and w.spec.guest is not None]
        wanted = {g.processor for g in guests if g.is_checked}
        for job in list(self.engine.state.jobs.values()):
            if job.foreign.abroad is not None or job.spec.where == "own" or job.spec.processor not in wanted or job.spec.is_stream:
                continue
            runtime = self.engine.runtimes.get(job.id)
            given = None if runtime is None else await self._first_input(runtime)
            if runtime is None or given is None:
                continue
            one, two = [await slot.run(runtime, given[0], given[1]) for _ in range(2)]
            is_same = one.raw is not None and one.raw == two.raw
            why = "" if is_same else (
                f"two own runs of fragment {given[0]} gave different results" if one.raw is not None and two.raw is not None
                else f"fragment {given[0]} failed at home: {one.message or one.cause or two.message or two.cause}"
            )  # fmt: skip
            self.engine.post(ev.AbroadJudged(job=job.id, may=is_same, why=why[:500]))
            return True
        return False

    @staticmethod
    async def _first_input(runtime: JobRuntime) -> tuple[int, bytes] | None:
        index = runtime.window.first_held()
        if index is None:
            return None
        _, bodies, large = runtime.window.cut(index, 1)
        if index in large:
            return index, await trio.to_thread.run_sync(large[index].path.read_bytes)
        return index, b"".join(bodies)

    async def _check_next(self, slot: CheckSlot) -> bool:
        """Compute one chosen answer again."""
        for (job, origin), trial in list(self.trials.items()):
            runtime = self.engine.runtimes.get(job)
            if runtime is None or job not in self.engine.state.jobs:
                continue
            answer = trial.next_check()
            if answer is None:
                continue
            try:
                given = await _read(answer.given)
                own = await slot.run(runtime, answer.fragment, given)
            except (ParallelError, OSError):
                trial.put_back(answer)
                raise
            if self.trials.get((job, origin)) is not trial or trial.is_caught:
                return True  # taken back meanwhile, or about to be
            if await trio.to_thread.run_sync(agrees, answer, own) if answer.large is not None else agrees(answer, own):
                trial.is_passed()
                self.on_checked(self.contracts.get(origin, ""), True)
                self._settle(job, origin)
            else:
                async with self._accusing:
                    if self.trials.get((job, origin)) is trial and not trial.is_caught:
                        await self._differs(slot, runtime, job, origin, trial, answer, given, own)
            return True
        return False

    async def _differs(
        self, slot: CheckSlot, runtime: JobRuntime, job: str, origin: str, trial: Trial, answer: Answer, given: bytes, own: FragmentOutcome
    ) -> None:  # fmt: skip
        """Once more before anybody is accused; one accusation at a time."""
        try:
            again = await slot.run(runtime, answer.fragment, given)
        except (ParallelError, OSError):
            trial.put_back(answer)
            raise
        trial.is_failed()
        if own.raw != again.raw or (own.raw is None and own.cause != "raised"):
            why = f"own runs of fragment {answer.fragment} do not agree with each other, so answers of others cannot be checked"
            _log.warning("job %s: %s", job, why)
            await self._take_back(job, self._drop(job))
            self.engine.post(ev.AbroadJudged(job=job, may=False, why=why))
            return
        self.on_checked(self.contracts.get(origin, ""), False)
        self._save_passed(origin, 0.0)
        evidence: bytes = msgpack.packb([job, answer.fragment, given[:65536], answer.result[:65536], (own.raw or b"")[:65536]])
        _log.warning("job %s: %s gave a wrong answer to fragment %d", job, origin, answer.fragment)
        jobs = [j.id for j in self.engine.state.jobs.values() if j.foreign.of(origin)]
        for name in dict.fromkeys([job, *jobs]):
            self._caught.setdefault(name, set()).add(origin)
            text = f"{origin} gave a wrong answer (fragment {answer.fragment}); all it computed here is computed again."
            self.story.tell(name, "caught", text)
        await self.on_caught(origin, job, answer.fragment, evidence)
        for name in dict.fromkeys([job, *jobs]):
            self._drop(name)
            await self._take_back(name, {origin})
            self.engine.post(ev.AbroadJudged(job=name, may=True, caught=tuple(sorted(self._caught.get(name, ())))))

    async def _take_back(self, job: str, origins: set[str]) -> None:
        self._moving.add(job)
        try:
            await self.reopen(job, origins)
        finally:
            self._moving.discard(job)

    def _drop(self, job: str) -> set[str]:
        """Forget the job's trials and who is believed in it; returns the companies that had some."""
        origins = {origin for name, origin in self.trials if name == job}
        for origin in origins:
            del self.trials[job, origin]
        self._marked = {k for k in self._marked if k[0] != job}
        return origins


def _keep(large: Large, folder: Path) -> Spooled | None:
    """A second name for a large input, which outlives the window's and goes with the last one who may check it. Moves no bytes."""
    if large.size > MAX_INPUT_BYTES:
        return None
    kept = Spooled(folder / f"check-{uuid4().hex}", large.size)
    try:
        kept.path.hardlink_to(large.path)
    except OSError as error:
        _log.warning("an input is not kept for a check: %s", error)
        return None
    weakref.finalize(kept, kept.path.unlink, missing_ok=True)
    return kept


async def _read(given: bytes | Spooled) -> bytes:
    """An input; one out of a file is read beside the chief's own task."""
    return await trio.to_thread.run_sync(given.path.read_bytes) if isinstance(given, Spooled) else given


def agrees(answer: Answer, own: FragmentOutcome) -> bool:
    """Whether an own result is the same bytes."""
    if own.raw is None:
        return False
    if answer.large is not None:
        return answer.large == (len(own.raw), blake2b(own.raw, digest_size=32).digest())
    return own.raw == answer.result
