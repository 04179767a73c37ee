"""Contract path 5/8 - what another company may have run here: one processor, capped, counted (I/O through the slots).

Every limit of the job is cut down to the contract's. What stands against the contract is refused and told; what has to be killed for
passing a cap of the contract is counted, and too much of it ends the secondment as an overrun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from company import messages as m
from company.sandbox import Child, ChildPool, Profile, Sandbox
from company.ticket import Ticket
from company.worker.batch import JobSpec
from company.worker.core import WorkerCore
from company.worker.results import Part
from p2p.base.frames import Frame
from p2p.base.schema import Message
from p2p.contracts.terms import Facts

MIB = 1 << 20
LOWEST_PRIORITY = 19
MAX_OVERRUNS = 3  # children killed at a cap of the contract; one may be an accident
MAX_JOBS = 64
ALWAYS_OVERRUN = frozenset({"disk-limit", "output-flood", "garbage-on-pipe"})  # no limit of the job is named by these
MAX_READY = 2


def guest_profile(ticket: Ticket, memory_bytes: int) -> Profile:
    """The sandbox of a guest: at the lowest priority, without a network as all, within the contract's memory and scratch."""
    return Profile(
        role="process", memory_bytes=min(memory_bytes or ticket.memory_mib * MIB, ticket.memory_mib * MIB),
        tmp_bytes=max(MIB, ticket.disk_mib * MIB), cpu_niceness=LOWEST_PRIORITY,
    )  # fmt: skip


class GuestChildren:
    """Blank sandboxes of the guest profile."""

    def __init__(self, sandbox: Sandbox, ticket: Ticket) -> None:
        self._ticket = ticket
        self.pool = ChildPool(sandbox, guest_profile(ticket, 0), min(ticket.slots, MAX_READY))

    async def take(self, spec: JobSpec) -> Child:
        """A blank child within the contract's bounds; nothing but the processor is ever mounted."""
        return await self.pool.take(guest_profile(self._ticket, spec.memory_bytes))

    def gave_up(self) -> None:
        """Nothing to do: the pool has replaced the child when it was taken."""


class Meter:
    """What was done and handed over, cumulative, with a digest over all of it in order."""

    def __init__(self) -> None:
        self.facts = Facts(0, 0, 0)
        self.results = bytes(32)
        self._run_us = 0

    def add(self, part: Part, body: bytes | memoryview) -> None:
        """An outcome that the borrower has on disk."""
        message = part.message
        assert isinstance(message, m.Outcome)
        self._run_us += message.run_us
        size = len(body) + sum(blob.size for blob in part.blobs)
        self.facts = Facts(self.facts.fragments + message.count, self._run_us // 1000, self.facts.bytes + size)
        said = hashlib.blake2b(self.results + body, digest_size=32)
        for blob in part.blobs:
            said.update(blob.digest)
        self.results = said.digest()


class GuestCore(WorkerCore):
    """A `WorkerCore` that keeps to a ticket."""

    def __init__(self, ticket: Ticket, *, on_overrun: Callable[[str, str], None], **parts: Any) -> None:
        super().__init__(slots=ticket.slots, **parts)
        self._ticket = ticket
        self._on_overrun = on_overrun
        self._overruns = 0
        self.meter = Meter()

    async def on_message(self, message: Message, frame: Frame) -> None:
        """What the borrower's chief says, as far as the contract lets it."""
        match message:
            case m.Run() if message.slot >= self._ticket.slots:
                self._on_overrun("slots", f"a batch came for slot {message.slot}; {self._ticket.slots} were agreed on")
            case m.ProcessorIs() if message.processor != self._ticket.processor:
                self._on_overrun("processor", "a processor came that is not in the contract")
            case m.Ack(parts):
                for token, first in parts:
                    self._count(token, first)
                await super().on_message(message, frame)
            case m.Drain() | m.Undrain() | m.Second() | m.Unsecond():
                return  # a borrower gives no orders about this worker
            case _:
                await super().on_message(message, frame)

    def _count(self, token: int, first: int) -> None:
        for part in self._results.parts_of(token):
            if part.first == first and isinstance(part.message, m.Outcome):
                self.meter.add(part, self._results.body_of(part))
                return

    def on_job(self, message: m.JobIs, params: bytes) -> None:
        """A job was described: its limits are the contract's, or tighter."""
        if message.processor != self._ticket.processor:
            self._upstream.tell(m.JobBlocked(message.job, "processor-not-agreed", "the contract names another processor"))
            return
        if len(self._jobs) >= MAX_JOBS and message.job not in self._jobs:
            self._upstream.tell(m.JobBlocked(message.job, "too-many-jobs", f"{MAX_JOBS} jobs are open under this contract"))
            return
        limit_ms = self._ticket.fragment_s * 1000
        cap = self._ticket.memory_mib * MIB
        super().on_job(
            replace(
                message, time_limit_ms=min(message.time_limit_ms or limit_ms, limit_ms), memory_bytes=min(message.memory_bytes or cap, cap)
            ),
            params,
        )

    def part_made(self, part: Part, *, last: bool) -> None:
        if isinstance(part.message, m.Artifact):
            return  # files are not in the contract
        if isinstance(part.message, m.Failed) and self._is_overrun(part.message):
            self._overruns += 1
            if self._overruns >= MAX_OVERRUNS:
                self._on_overrun(part.message.cause, part.message.message)
        super().part_made(part, last=last)

    def _is_overrun(self, failed: m.Failed) -> bool:
        """Whether a child was killed at a cap of the contract, not at a tighter one of its own job."""
        job = self._jobs.get(failed.job)
        if failed.cause in ALWAYS_OVERRUN or job is None:
            return failed.cause in ALWAYS_OVERRUN
        if failed.cause == "time-limit":
            return job.message.time_limit_ms >= self._ticket.fragment_s * 1000
        return failed.cause == "memory-limit" and job.message.memory_bytes >= self._ticket.memory_mib * MIB
