"""A slot that is somewhere on a cluster: what a local run sees of it (I/O).

Like a worker's slot it runs what is put into its queue, in order, and reports to the same port; up to two batches are with the cluster at
a time, so that the next one is there when one ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

import trio

from company.cluster.engines import Cluster
from company.cluster.wire import Told, decode_parts_untrusted, encode_batch
from company.worker.batch import Batch, SlotPort
from company.worker.results import HeldBlob, Part
from p2p.base.errors import MalformedMessage, ParallelError


class ClusterPort(SlotPort, Protocol):
    """A slot's port that hears of batches lost with a node."""

    def lost(self, token: int, why: str) -> None:
        """The cluster did not run this batch to its end; nothing of it is known."""


class ClusterSlot:
    """One of the cluster's slots."""

    def __init__(self, slot: int, cluster: Cluster, port: ClusterPort) -> None:
        self.slot = slot
        self._cluster = cluster
        self._port = port
        self._send, self._receive = trio.open_memory_channel[Batch](16)

    def submit(self, batch: Batch) -> None:
        """Put a batch behind the others."""
        self._send.send_nowait(batch)

    async def run(self) -> None:
        """Serve for ever."""
        async with trio.open_nursery() as nursery:
            async for batch in self._receive:
                nursery.start_soon(self._run, batch)

    async def _run(self, batch: Batch) -> None:
        try:
            await self._port.fetch_blobs(batch)
            answer = await self._on_cluster(await trio.to_thread.run_sync(encode_batch, batch))
        except (ParallelError, OSError) as error:
            self._port.give_back(batch.token, str(error))
            return
        finally:
            batch.drop_files()
        if isinstance(answer, Exception):
            self._port.lost(batch.token, f"{type(answer).__name__}: {answer}"[:1000])
            return
        try:
            told = await trio.to_thread.run_sync(decode_parts_untrusted, answer)
        except MalformedMessage as error:
            self._port.lost(batch.token, error.text)
            return
        for number, one in enumerate(told):
            self._port.part_made(await self._part(batch, one), last=number == len(told) - 1)

    async def _on_cluster(self, batch: bytes) -> bytes | Exception:
        token = trio.lowlevel.current_trio_token()
        answers: list[bytes | Exception] = []
        answered = trio.Event()

        def done(answer: bytes | Exception) -> None:
            answers.append(answer)
            with contextlib.suppress(trio.RunFinishedError):  # the run ended before the cluster did
                token.run_sync_soon(answered.set)

        # off this thread: a cluster's client may have to wait for its own loop
        await trio.to_thread.run_sync(self._cluster.submit, batch, done)
        await answered.wait()
        return answers[0]

    async def _part(self, batch: Batch, told: Told) -> Part:
        blobs: list[HeldBlob] = []
        for index, digest, content in told.blobs:
            path = self._port.spool_path()
            await trio.Path(path).write_bytes(content)
            blobs.append(HeldBlob(index, len(content), digest, path))
        return Part(batch.token, told.message, told.sizes, told.body, tuple(blobs))


SlotMaker = Callable[[int, ClusterPort], ClusterSlot]
