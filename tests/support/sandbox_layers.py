"""bubblewrap children with some layers taken away: how a test shows which layer stops what."""

from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import trio

from company.sandbox import Child, Profile, Sandbox, bwrap, host, rung_bubblewrap, wire
from company.sandbox.rung import all_mounts, check_readable, settings_hex
from company.sandbox.spawn import Ends, _as_user, spawn
from p2p.base.codec import decode_value, encode_value
from tests.support import escapes
from tests.support.sandbox_children import outcomes, send_batch

ALLOW_ALL = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
ROLES = ("process", "split", "merge")
Start = Callable[[Profile], Child]


def require_bubblewrap(sandbox: Sandbox) -> None:
    """Skip where the machine has none. Where it has, a sandbox that does not stand on it is broken, and that is a failure."""
    if sandbox.rung == rung_bubblewrap.NAME:
        return
    found = host.find_bwrap()
    argv = [
        *_as_user(64_000 if os.geteuid() == 0 else None),
        str(found and found.executable),
        "--unshare-all",
        "--ro-bind",
        "/",
        "/",
        "/bin/true",
    ]
    if found is None or subprocess.run(argv, check=False, capture_output=True).returncode:
        pytest.skip(f"stands on {sandbox.rung}: {sandbox.reason.text}")
    pytest.fail(f"bubblewrap works here, but the sandbox stands on {sandbox.rung}: {sandbox.reason.text}")


def start_of(sandbox: Sandbox, without: Collection[str] = ()) -> Start:
    """How ``sandbox`` starts its children, less some layers."""
    whole = sandbox._rung.start
    if not without:
        return whole
    assert isinstance(whole, rung_bubblewrap._Starter)

    def start(profile: Profile) -> Child:
        uid = whole.stage.next_uid()
        mounts = [(whole.stage.path(m.host), m.inside, m.writable) for m in all_mounts(profile)]
        check_readable(profile, uid)
        limits = dataclasses.replace(profile, memory_bytes=1 << 40, tmp_bytes=1 << 40) if escapes.RLIMIT in without else profile

        def argv(ends: Ends) -> list[str]:
            told = settings_hex(ends, limits, package="/package", paths=[], confine=None)
            return _edited(bwrap.command(whole.layout, profile, mounts, seccomp_fd=ends.seccomp_fd, settings_hex=told), without)

        program = ALLOW_ALL if escapes.SECCOMP in without else whole.programs[profile.processes > 0]
        return spawn(argv, profile=profile, filter_program=program, uid=uid, env={}, reachable={}, has_own_tmp=True)

    return start


def _edited(argv: list[str], without: Collection[str]) -> list[str]:
    if escapes.NET in without or escapes.PIDS in without:
        at = argv.index("--unshare-all")
        argv[at : at + 1] = ["--unshare-ipc", "--unshare-uts", *([] if escapes.NET in without else ["--unshare-net"])]
        argv[at:at] = [] if escapes.PIDS in without else ["--unshare-pid"]
    if escapes.USERNS in without:
        argv.remove("--disable-userns")
    if escapes.CAPS in without:
        argv[argv.index("--cap-drop") : argv.index("--cap-drop") + 2] = ["--cap-add", "ALL"]
    if escapes.READ_ONLY in without:
        while "--remount-ro" in argv:
            del argv[argv.index("--remount-ro") : argv.index("--remount-ro") + 2]
    if escapes.SIZE in without:
        while "--size" in argv:
            del argv[argv.index("--size") : argv.index("--size") + 2]
    return argv


async def ask(start: Start, role: str, source: str, x: Any, *, output: Path, **profile: Any) -> Any:
    """Load ``source`` in this role and return what it says."""
    if role == "merge":
        output.mkdir(exist_ok=True)
        profile["output"] = output
    child = start(Profile(role=role, **profile))
    try:
        with trio.fail_after(30):
            await load(child, role, source, x)
            if role == "process":
                await send_batch(child, [None])
                got = await outcomes(child)
                assert got.status == [0], got.results
                return got.results[0]
            if role == "split":
                assert (await child.receive()).header == [wire.COUNT, None]
                return decode_value((await child.receive()).cut()[0])
            await child.send([wire.END])
            return decode_value((await child.receive()).body)
    finally:
        await child.aclose()


async def load(child: Child, role: str, source: str, x: Any = None) -> None:
    """Hand over a package that has this source in the role's place."""
    name = {"process": "processor/main.py", "split": "split.py", "merge": "merge.py"}[role]
    await child.load(role=role, params=encode_value({"x": x}), files={name: source.encode()}, options={"data": "/data/none"})


async def begin(child: Child, role: str, values: int = 1) -> None:
    """Make the role's function start, after `load`."""
    if role == "process":
        await send_batch(child, [None] * values)
    elif role == "merge":
        await child.send([wire.END])
