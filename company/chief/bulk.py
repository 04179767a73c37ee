"""Fragment path 5/9, large ones - fragments and results too large to inline, on a channel of their own (I/O)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trio

from company import messages as m
from company.chief.engine import Engine
from company.chief.requirement_wheels import RequirementWheels
from p2p.base.errors import MalformedMessage, ParallelError, PeerError
from p2p.net.channel import Channel
from p2p.net.hello import refusal

PIECE_BYTES = 1 << 20
IDLE_S = 600.0


async def serve_bulk(channel: Channel, worker: str, engine: Engine, wheels: RequirementWheels | None) -> None:
    """Answer what one worker asks for, one request at a time, until it leaves. ``wheels``: None for another company's worker."""
    while True:
        with trio.fail_after(IDLE_S):
            message, _ = await channel.receive()
        match message:
            case m.BlobGet():
                await _give(channel, worker, engine, message)
            case m.BlobPut():
                await _take(channel, worker, engine, message)
            case m.WheelsGet(job) if wheels is not None:
                await _list_wheels(channel, engine, wheels, job)
            case m.WheelGet(job, sha256) if wheels is not None:
                await _give_file(channel, (await wheels.wheel_of(engine.runtimes, job, sha256)).path)
            case _:
                raise MalformedMessage(f"{type(message).__name__} is not served on a bulk channel")


def _check(engine: Engine, worker: str, token: int, job: str, index: int) -> None:
    lease = engine.state.leases.get(token)
    if lease is None or lease.worker != worker or lease.job != job or not lease.first <= index < lease.first + lease.count:
        raise PeerError("stale-token", "This lease is over.", token=token)


async def _give(channel: Channel, worker: str, engine: Engine, message: m.BlobGet) -> None:
    _check(engine, worker, message.token, message.job, message.index)
    _, _, large = engine.runtimes[message.job].window.cut(message.index, 1)
    spooled = large.get(message.index)
    if spooled is None:
        raise PeerError("not-large", "This fragment was sent inline.")
    await _give_file(channel, spooled.path)


async def _give_file(channel: Channel, path: Path) -> None:
    left = path.stat().st_size
    async with await trio.open_file(path, "rb") as file:
        while True:
            piece = await file.read(PIECE_BYTES)
            left -= len(piece)
            is_last = left <= 0 or not piece
            await channel.send(m.BlobPart(is_last), np.array([len(piece)], dtype="<u4"), piece)
            if is_last:
                return


async def _list_wheels(channel: Channel, engine: Engine, wheels: RequirementWheels, job: str) -> None:
    try:
        listed = await wheels.of_job(engine.runtimes, job)
    except ParallelError as error:
        await channel.send(refusal(error.code, error.text))
        return
    await channel.send(m.WheelsAre(listed.signature), np.array([len(listed.body)], dtype="<u4"), listed.body)


async def _take(channel: Channel, worker: str, engine: Engine, message: m.BlobPut) -> None:
    _check(engine, worker, message.token, message.job, message.index)
    runtime = engine.runtimes[message.job]
    writer = await trio.to_thread.run_sync(runtime.segments.blob_writer, message.token, message.index)
    got = 0
    try:
        while True:
            with trio.fail_after(IDLE_S):
                part, frame = await channel.receive()
            if not isinstance(part, m.BlobPart):
                raise MalformedMessage(f"expected BlobPart, got {type(part).__name__}")
            got += len(frame.body)
            if got > message.size:
                raise MalformedMessage(f"more than the announced {message.size} bytes")
            await trio.to_thread.run_sync(writer.write, frame.body)
            if part.last:
                break
        if got != message.size:
            raise MalformedMessage(f"{got} of the announced {message.size} bytes came")
        _, digest = await trio.to_thread.run_sync(writer.finish)
    except BaseException:
        writer.abort()
        raise
    await channel.send(m.BlobKept(digest))
