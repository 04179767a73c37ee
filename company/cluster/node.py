"""One slot on a node of somebody's cluster: a process with a sandbox, which runs the batches of one job (I/O).

``python -m company.cluster.node`` reads messages from standard input, each behind its length as u64: first the job, then batches. Every
batch is answered with one message on standard output. It ends with its standard input, so with the cluster's worker that started it,
and by itself after `IDLE_S` without a batch.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO

import trio

from company.cluster.wire import MAX_MESSAGE_BYTES, decode_batch_untrusted, decode_spec_untrusted, encode_parts
from company.one_fragment import environment_of
from company.sandbox import Sandbox
from company.worker.batch import Batch, JobSpec
from company.worker.children import Children
from company.worker.results import Part
from company.worker.slots import SlotRunner
from p2p.base.errors import MalformedMessage, Unavailable
from p2p.base.schema import Message

IDLE_S = 120.0  # the run that started it is over, and could not say so


class NodePort:
    """What the slot asks of the process around it (`company.worker.batch.SlotPort`): one job, one batch at a time."""

    def __init__(self, spec: JobSpec, folder: Path) -> None:
        self._spec = spec
        self._folder = folder
        self._serial = 0
        self._parts: list[Part] = []
        self._over = trio.Event()
        self._why = ""

    async def run(self, runner: SlotRunner, batch: Batch) -> list[Part]:
        """The parts of its outcome. Raises `Unavailable` when it could not be begun here."""
        self._parts, self._over, self._why = [], trio.Event(), ""
        runner.submit(batch)
        await self._over.wait()
        if self._why:
            raise Unavailable("node-cannot-run", self._why)
        return self._parts

    def job_spec(self, job: str) -> JobSpec | None:
        return self._spec if job == self._spec.job else None

    def batch_began(self, token: int) -> None:
        """Nobody waits for this here."""

    def part_made(self, part: Part, *, last: bool) -> None:
        self._parts.append(part)
        if last:
            self._over.set()

    def give_back(self, token: int, reason: str) -> None:
        self._why = f"a batch could not be begun: {reason}"
        self._over.set()

    def slot_changed(self, slot: int, state: str, reason: str) -> None:
        if state == "broken":
            self._why = f"no sandbox could be started: {reason}"

    def forward(self, message: Message) -> None:
        """A status: the run's progress is counted by results."""

    async def fetch_blobs(self, batch: Batch) -> None:
        """They came with the batch."""

    async def wait_room(self) -> None:
        """One batch at a time is the bound."""

    def spool_path(self) -> Path:
        self._serial += 1
        return self._folder / f"out-{self._serial}"


def read_message(stream: IO[bytes]) -> bytes | None:
    """The next message, nil at the end. Raises `MalformedMessage`."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "little")
    if size > MAX_MESSAGE_BYTES:
        raise MalformedMessage(f"a message may have {MAX_MESSAGE_BYTES} bytes, got {size}")
    data = stream.read(size)
    return data if len(data) == size else None


def write_message(stream: IO[bytes], data: bytes) -> None:
    """One message behind its length."""
    stream.write(len(data).to_bytes(8, "little"))
    stream.write(data)
    stream.flush()


async def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Be a slot until there is nothing more to read."""
    first = await trio.to_thread.run_sync(read_message, source)
    if first is None:
        return
    spec, allow_none, requirements = decode_spec_untrusted(first)
    with tempfile.TemporaryDirectory(prefix="company-node-") as name:
        folder = Path(os.path.realpath(name))
        site = environment_of(requirements, folder)
        spec = replace(spec, site=site)
        stage = (site.parent,) if site is not None else ()
        async with (
            Sandbox.open(home=folder, stage=stage, allow_none=allow_none) as sandbox,
            Children.open(sandbox, 1) as children,
            trio.open_nursery() as nursery,
        ):
            port = NodePort(spec, folder)
            runner = SlotRunner(0, children, port)
            nursery.start_soon(runner.run)
            write_message(sink, sandbox.rung.encode())
            while True:
                data: bytes | None = None
                with trio.move_on_after(IDLE_S):
                    data = await trio.to_thread.run_sync(read_message, source, abandon_on_cancel=True)
                if data is None:
                    break
                parts = await port.run(runner, decode_batch_untrusted(data, folder))
                write_message(sink, await trio.to_thread.run_sync(encode_parts, parts))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed is no answer
    trio.run(serve, sys.stdin.buffer, answers)
