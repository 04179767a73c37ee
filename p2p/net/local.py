"""Channels between two processes of one user on one machine: a socket in a private folder, not encrypted (I/O).

The kernel says who is at the other end: a process of another user is shown nothing, by either side. Then the greeting of `p2p.net.rpc`
proves both keys, so that neither an address nor a place in the file system is believed. A megabyte costs some 0.4 ms of CPU
both sides together, where TLS and loopback cost 4: what leaves the machine is always encrypted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Never

import trio

from p2p.base.errors import PeerError, Unavailable
from p2p.base.keys import Identity
from p2p.net.channel import STREAM_ERRORS, Channel, Registry
from p2p.net.endings import ENDINGS, Endings
from p2p.net.rpc import PORT, OnChannel, RpcLimits, RpcServer, greet
from p2p.net.stream import PlainStream, close_at_once

HOST = "127.0.0.1"
ADDRESS = "127.0.0.1:0"  # what logs and pages call the other end: it is on this machine and has no port
LIMITS = RpcLimits(connections=64, per_address=64)
BACKLOG = 64
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of Linux
_log = logging.getLogger("parallel.rpc")


async def serve_local(
    *, identity: Identity, path: Path, registry: Registry, on_channel: OnChannel, limits: RpcLimits = LIMITS, endings: Endings = ENDINGS,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> Never:  # fmt: skip
    """Serve at ``path`` until cancelled, then remove it. Whoever calls holds the folder's lock: what lies there is of a dead process.

    Raises `Unavailable` "local-socket" where the folder is open to others, or the system has no such sockets.
    """
    server = RpcServer(identity, registry, on_channel, None, limits, endings, is_local=True)
    listening = await _listen(path)

    async def serve(stream: trio.SocketStream) -> None:
        if _uid_of(stream) != os.geteuid():
            endings.note(PORT, "another-user", ADDRESS, f"user {_uid_of(stream)} is at the other end")
            await close_at_once(stream)
            return
        await server.serve_stream(stream, HOST, ADDRESS)

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, serve, [trio.SocketListener(listening)])
            task_status.started()
            await trio.sleep_forever()
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    raise AssertionError("unreachable")


async def dial_local(
    path: Path, *, identity: Identity, expected_key: bytes, purpose: str, registry: Registry, deadline_s: float = 5.0
) -> Channel:
    """Open a channel to the process that serves at ``path``.

    Raises as `p2p.net.rpc.dial`: `Unavailable` at once where nobody does or the folder is open to others, `PeerError` "wrong-key".
    """
    with trio.move_on_after(deadline_s):
        try:
            stream = await _connect(path)
            return await greet(PlainStream(stream), str(path), identity, expected_key, purpose, registry)
        except STREAM_ERRORS as error:
            raise Unavailable("unreachable", f"{path} cannot be used: {error}", peer=str(path)) from error
    raise Unavailable("handshake-timeout", f"{path} did not finish the handshake within {deadline_s:g} s", peer=str(path))


async def _listen(path: Path) -> trio.socket.SocketType:
    try:
        _check_folder(path.parent)
        listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)
            with _short_name(path) as name:
                await listening.bind(name)
            path.chmod(0o600)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except (OSError, PeerError) as error:
        raise Unavailable("local-socket", f"cannot listen at {path}: {error}") from error
    return listening


async def _connect(path: Path) -> trio.SocketStream:
    """Raises `OSError`, `PeerError` when another user's process listens there."""
    _check_folder(path.parent)
    calling = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_name(path) as name:
            await calling.connect(name)
        stream = trio.SocketStream(calling)
        if _uid_of(stream) != os.geteuid():
            raise PeerError("another-user", f"{path} is served by user {_uid_of(stream)}")
    except BaseException:
        calling.close()
        raise
    return stream


def _check_folder(folder: Path) -> None:
    if sys.platform != "linux":
        raise OSError("this system does not say who is at the other end of a socket")
    found = os.stat(folder, follow_symlinks=False)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PeerError("folder-not-private", f"{folder} belongs to user {found.st_uid} with mode {found.st_mode & 0o777:o}")


@contextlib.contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """The same file by a name that fits a socket's address, which has 108 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _uid_of(stream: trio.SocketStream) -> int:
    """The user of the process at the other end, as it was when that connected or began to listen."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid
