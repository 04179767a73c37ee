"""A chief that does exactly what a test tells it, on the real RPC server: for tests of a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgpack
import numpy as np
import trio

from company import messages as m
from company.package import PackageClaim, archive_of, files_digest, processor_files, sign_package
from p2p.base.codec import decode_value, encode_value
from p2p.base.errors import ParallelError
from p2p.base.frames import Frame
from p2p.base.keys import Identity
from p2p.base.schema import Message
from p2p.net.channel import Channel
from p2p.net.rpc import serve_rpc

SECRET = b"s" * 32


@dataclass
class Said:
    """One message of the worker."""

    message: Message
    frame: Frame

    def items(self) -> list[bytes]:
        return [bytes(item) for item in self.frame.cut()]


@dataclass
class ScriptedChief:
    """Keeps what workers say in ``inbox``; tests send with `send`, wait with `wait_for`."""

    identity: Identity = field(default_factory=lambda: Identity(b"C" * 32))
    heartbeat_ms: int = 200
    keep: Sequence[int] | None = None  # of a Resume; nil keeps all
    channel: Channel | None = None
    machine: m.Machine | None = None
    held: tuple[m.Held, ...] = ()
    resumes: int = 0
    joins: list[m.Join] = field(default_factory=list)
    purposes: list[str] = field(default_factory=list)
    inbox: list[Said] = field(default_factory=list)
    blobs: dict[tuple[int, int], bytes] = field(default_factory=dict)  # (token, index) -> bytes to give
    kept: dict[tuple[int, int], bytes] = field(default_factory=dict)
    ack: bool = True
    is_mute: bool = False  # answers no pings
    refuse: m.Refused | None = None
    _changed: trio.Event = field(default_factory=trio.Event)
    _read: int = 0

    # -- the server
    async def on_channel(self, channel: Channel) -> None:
        self.purposes.append(channel.purpose)
        try:
            if channel.purpose == "join":
                await self._on_join(channel)
            elif channel.purpose == "bulk":
                await self._on_bulk(channel)
            else:
                await self._on_worker(channel)
        except ParallelError:
            pass
        finally:
            if self.channel is channel:
                self.channel = None
            self._wake()

    async def _on_join(self, channel: Channel) -> None:
        message, frame = await channel.receive()
        assert isinstance(message, m.Join)
        self.joins.append(message)
        self.machine = m.Machine.parse_untrusted(msgpack.unpackb(frame.body))
        if message.secret != SECRET:
            await channel.send(m.Refused("token-unknown", "no such token", b""))
        else:
            await channel.send(m.Joined("w-1", "co-1", self.heartbeat_ms, 0))
        with trio.move_on_after(2):
            await channel.receive()

    async def _on_worker(self, channel: Channel) -> None:
        message, frame = await channel.receive()
        assert isinstance(message, m.Resume), message
        if self.refuse is not None:
            await channel.send(self.refuse)
            return
        self.machine = m.Machine.parse_untrusted(msgpack.unpackb(frame.body))
        self.held = message.held
        self.resumes += 1
        tokens = [h[0] for h in message.held]
        keep = tuple(t for t in tokens if self.keep is None or t in self.keep)
        drop = tuple((t, "not-yours") for t in tokens if t not in keep)
        await channel.send(m.Resumed(keep, drop, self.heartbeat_ms, 0))
        self.channel = channel
        self._wake()
        while True:
            for message, frame in await channel.receive_many():
                if isinstance(message, m.Ping):
                    if not self.is_mute:
                        await channel.send(m.Pong(message.at))
                    continue
                self.inbox.append(Said(message, frame))
                if self.ack and isinstance(message, m.Outcome):
                    await channel.send(m.Ack(((message.token, message.first),)))
            self._wake()

    async def _on_bulk(self, channel: Channel) -> None:
        while True:
            message, _ = await channel.receive()
            if isinstance(message, m.BlobGet):
                data = self.blobs[(message.token, message.index)]
                for start in range(0, len(data), 1 << 20):
                    piece = data[start : start + (1 << 20)]
                    await channel.send(m.BlobPart(start + len(piece) == len(data)), sizes_of(piece), piece)
            elif isinstance(message, m.BlobPut):
                got = b""
                while True:
                    part, frame = await channel.receive()
                    assert isinstance(part, m.BlobPart)
                    got += bytes(frame.body)
                    if part.last:
                        break
                self.kept[(message.token, message.index)] = got
                await channel.send(m.BlobKept(blake(got)))

    # -- for tests
    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_channel(self) -> Channel:
        while self.channel is None:
            await self._changed.wait()
        return self.channel

    async def wait_gone(self) -> None:
        while self.channel is not None:
            await self._changed.wait()

    async def wait_for(self, kind: type[Message], **want: Any) -> Said:
        """The next message of this kind with these fields, after the last one returned; others are skipped."""
        while True:
            while self._read < len(self.inbox):
                said = self.inbox[self._read]
                self._read += 1
                if isinstance(said.message, kind) and all(getattr(said.message, k) == v for k, v in want.items()):
                    return said
            await self._changed.wait()

    async def send(self, message: Message, items: Sequence[bytes] = ()) -> None:
        channel = await self.wait_channel()
        await channel.send(message, sizes_of(*items), b"".join(items))

    async def give_job(self, package: Package, *, job: str = "job", time_limit_ms: int = 60_000, **params: Any) -> None:
        """Describe a job, and hand out its processor when the worker asks for it."""
        await self.send(m.JobIs(job, package.processor, time_limit_ms, 512 << 20, package.requirements), [encode_value(params)])

    async def give_processor(self, package: Package) -> None:
        await self.wait_for(m.NeedProcessor, processor=package.processor)
        await self.send(package.message(self.identity), [package.archive])

    async def run(self, token: int, values: Sequence[Any], *, first: int = 0, slot: int = 0, job: str = "job") -> None:
        """Send one batch."""
        items = [encode_value(v) for v in values]
        await self.send(m.Run(token, slot, job, first, len(items), 1, ()), items)

    async def outcome(self, token: int) -> list[Any]:
        """All results of a batch, decoded, in order; waits for the end of the lease."""
        values: list[Any] = []
        while True:
            said = await self.wait_for(m.Outcome, token=token)
            assert isinstance(said.message, m.Outcome)
            values += [decode_value(item) for item in said.items()[3:]]
            if said.message.last:
                return values


@dataclass
class Package:
    """A processor and its signature."""

    files: dict[str, bytes]
    requirements: str = ""
    signer: Identity | None = None
    signed_for: str = "user"
    spoil: bool = False

    @property
    def processor(self) -> bytes:
        return files_digest(processor_files(self.files))

    @property
    def archive(self) -> bytes:
        return archive_of(processor_files(self.files))

    def message(self, chief: Identity) -> m.ProcessorIs:
        signer = self.signer or chief
        package = files_digest(self.files)
        claim = PackageClaim(package=package, processor=self.processor, name="test", version="", signed_for=self.signed_for)
        signature = sign_package(signer, claim)
        if self.spoil:
            signature = signature[:-1] + bytes([signature[-1] ^ 1])
        return m.ProcessorIs(self.processor, package, "test", self.signed_for, signer.public, signature)


def package(source: str, **options: Any) -> Package:
    """A package whose processor/main.py is ``source``."""
    return Package({"processor/main.py": source.encode()}, **options)


def sizes_of(*items: bytes) -> Any:
    return np.array([len(item) for item in items], dtype="<u4")


def blake(data: bytes) -> bytes:
    import hashlib

    return hashlib.blake2b(data, digest_size=32).digest()


@asynccontextmanager
async def serving(chief: ScriptedChief, port: int = 0) -> AsyncIterator[str]:
    """Serve ``chief`` on loopback; yields its address."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_rpc, identity=chief.identity, host="127.0.0.1", port=port, registry=m.MESSAGES, on_channel=chief.on_channel)
        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()
