"""What the kernel keeps for a whole child, where this machine lets us divide a control group."""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from company.sandbox import ChildDied, Sandbox
from company.sandbox.cgroups import find_groups
from company.sandbox.profile import MIB, Profile
from tests.support.sandbox_children import below, process_child, run, send_batch


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    groups, words = find_groups()
    if groups is None:
        pytest.skip(words)
    async with Sandbox.open(home=tmp_path, stage=[tmp_path / "jobs"], allow_none=False) as opened:
        yield opened


async def test_files_in_tmp_and_memory_together_have_a_bound(sandbox: Sandbox) -> None:
    """Each alone is allowed by rlimit and tmpfs; the machine would give both, and kernel memory besides."""
    source = """
import mmap
def process(wanted):
    files, memory = wanted
    with open("/tmp/full", "wb") as file:
        for _ in range(files):
            file.write(bytes(1 << 20))
    shared = mmap.mmap(-1, memory << 20)  # neither data nor stack: no rlimit but that of the address space counts it
    for at in range(0, len(shared), 4096):
        shared[at] = 1
    return len(shared)
"""
    async with process_child(sandbox, source, memory_bytes=150 * MIB, tmp_bytes=100 * MIB) as child:
        assert (await run(child, [(0, 200)])).results == [200 << 20]
        with pytest.raises(ChildDied) as death:
            await run(child, [(95, 300)])
    assert death.value.verdict.cause == "memory-limit"
    assert "control group" in death.value.verdict.text


async def test_a_fragment_that_starts_threads_gets_no_more_than_its_core(sandbox: Sandbox) -> None:
    source = """
import hashlib, threading, time
def process(x):
    end = time.monotonic() + 1.5
    def burn():
        while time.monotonic() < end:
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 20_000)
    threads = [threading.Thread(target=burn) for _ in range(4)]
    before, began = time.process_time(), time.monotonic()
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return (time.process_time() - before) / (time.monotonic() - began)
"""
    async with process_child(sandbox, source) as child:
        (cores,) = (await run(child, [0])).results
    assert cores < 1.3


async def test_nothing_is_left_of_a_group_when_its_child_is_gone(sandbox: Sandbox) -> None:
    child = await sandbox.start(Profile(role="process"))
    group = child._group
    assert group is not None and all(folder.is_dir() for folder in group.folders)
    await child.aclose()
    with trio.fail_after(5):
        while any(folder.exists() for folder in group.folders):
            group.remove()
            await trio.sleep(0.01)


async def test_without_a_group_too_nothing_below_a_child_runs_once_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("company.sandbox.sandbox.find_groups", lambda: (None, "none"))
    async with Sandbox.open(home=tmp_path, stage=[tmp_path / "jobs"], allow_none=False) as bare:
        for _ in range(8):
            async with process_child(bare, "def process(x):\n    while True: pass\n") as child:
                await send_batch(child, [1])
                watched = [os.pidfd_open(pid) for pid in below(child.pid)]
            for fd in watched:
                assert select.select([fd], [], [], 0)[0], "it is dead already"
                os.close(fd)
