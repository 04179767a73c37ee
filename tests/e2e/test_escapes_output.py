"""What a merge may leave in its output folder to harm the daemon that takes it over; the layer is the daemon's own look at it."""

# ruff: noqa: E501 - the attempts are programs in one line
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from company.sandbox import ChildDied, Profile, Sandbox
from tests.support.escapes import PRELUDE
from tests.support.sandbox_layers import begin, load, require_bubblewrap

LIMIT_BYTES = 8 << 20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
async def sandbox(home: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox.open(home=home, stage=[home / "jobs"]) as opened:
        require_bubblewrap(opened)
        yield opened


@pytest.fixture
def output(home: Path) -> Path:
    (home / "jobs").mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(dir=home / "jobs"))


async def merge(sandbox: Sandbox, output: Path, body: str) -> ChildDied | None:
    """Run a merge under watch; how it died, None when it came to its end."""
    text = (
        PRELUDE
        + "\ndef merge(results, output):\n    os.chdir('/output')\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
        + "    return 1\n"
    )
    child = await sandbox.start(Profile(role="merge", output=output, output_max_bytes=LIMIT_BYTES))
    died = None
    try:
        await load(child, "merge", text)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: child.watch(time_limit_s=20))
            try:
                with trio.fail_after(30):
                    await begin(child, "merge")
                    await child.receive()
            except ChildDied as death:
                died = death
            nursery.cancel_scope.cancel()
    finally:
        await child.aclose()
    return died


PLANTED = {
    "links": "os.symlink('/etc/shadow', 'a')\nos.symlink('/', 'b')\nos.symlink('../../../identity', 'c')\nos.mkdir('d')\nos.symlink('..', 'd/e')",
    "fifos-and-sockets": "os.mkfifo('a')\nos.mkdir('d')\nos.mkfifo('d/b')",
    "hard-links": "write('a')\nos.link('a', 'b')\nos.mkdir('d')\nos.link('a', 'd/c')\nos.unlink('a')",
    "set-uid": "write('a', b'#!/bin/sh')\nos.chmod('a', 0o6777)\nos.mkdir('d')\nos.chmod('d', 0o7777)",
    "nobody-may-read": "os.mkdir('d')\nwrite('d/a')\nos.chmod('d/a', 0)",
    "names-that-lie": "for n in (b'a\\nb', b'\\xff\\xfe', b'\\x1b[2J', 'a\\u202etxt.exe'.encode(), b'..\\\\..\\\\evil', b'x' * 255, b' ', b'-rf'):\n    write(n)\n    os.makedirs(b'd/' + n)\n    write(b'd/' + n + b'/' + n[:200])",
    "names-that-collide": "for n in (b'a\\nb', b'a\\tb', b'a_b', b'1_a_b'): write(n)",
    "a-device": "try: os.mknod('a', 0o600 | stat.S_IFCHR, os.makedev(1, 1))\nexcept PermissionError: pass",
    "extended-attributes": "write('a')\ntry: os.setxattr('a', 'user.x', b'y')\nexcept OSError: pass",
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
async def test_daemon_keeps_only_plain_files_with_plain_names(sandbox: Sandbox, output: Path, name: str) -> None:
    assert await merge(sandbox, output, PLANTED[name]) is None
    seen = 0
    for parent, folders, files in os.walk(output):
        for entry in [*folders, *files]:
            path, status = Path(parent, entry), os.lstat(Path(parent, entry))
            assert path.is_file() or path.is_dir()
            assert not path.is_symlink() and entry.isprintable() and "\\" not in entry, entry
            assert (status.st_uid, status.st_mode & 0o7022) == (os.geteuid(), 0), entry
            assert path.is_dir() or status.st_nlink == 1
            assert path.is_dir() or path.read_bytes() in (b"x", b"#!/bin/sh")
            seen += 1
    assert (
        seen
        == {
            "links": 1,
            "fifos-and-sockets": 1,
            "hard-links": 2,
            "set-uid": 2,
            "nobody-may-read": 2,
            "names-that-lie": 25,
            "names-that-collide": 4,
            "a-device": 0,
            "extended-attributes": 1,
        }[name]
    )


TOO_MUCH = {
    "one-large-file": "write('a', bytes(40 << 20))\ntime.sleep(60)",
    "many-files-at-once": "for n in range(12): write(f'f{n}', bytes(1 << 20))",
    "sparse-giants": "for n in range(100):\n    fd = os.open(f'f{n}', os.O_WRONLY | os.O_CREAT)\n    os.ftruncate(fd, 7 << 20)\n    os.close(fd)",
    "empty-files-without-end": "n = 0\nwhile True:\n    n += 1\n    os.close(os.open(f'f{n}', os.O_WRONLY | os.O_CREAT))",
    "deleted-but-open": "held = []\nfor n in range(12):\n    fd = os.open('f', os.O_WRONLY | os.O_CREAT)\n    os.write(fd, bytes(1 << 20))\n    os.unlink('f')\n    held.append(fd)\ntime.sleep(60)",
    "deleted-but-mapped": "held = []\nfor n in range(12):\n    fd = os.open('f', os.O_RDWR | os.O_CREAT)\n    os.write(fd, bytes(1 << 20))\n    held.append(mmap.mmap(fd, 4096))\n    os.unlink('f')\n    os.close(fd)\ntime.sleep(60)",
    "in-a-tree-too-deep": "for n in range(300):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\nfor n in range(12): write(f'f{n}', bytes(1 << 20))\ntime.sleep(60)",
    "through-many-hard-links": "write('a', bytes(1 << 20))\nfor n in range(12): os.link('a', f'f{n}')\ntime.sleep(60)",
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_watch_ends_a_merge_that_takes_too_much_room(sandbox: Sandbox, output: Path, name: str) -> None:
    died = await merge(sandbox, output, TOO_MUCH[name])
    assert died is not None and died.verdict.cause == "disk-limit", died
    shutil.rmtree(output, ignore_errors=True)


async def test_daemon_deletes_a_tree_that_no_path_reaches(sandbox: Sandbox, output: Path) -> None:
    body = "for n in range(400):\n    os.mkdir('d' * 100)\n    os.chdir('d' * 100)\nwrite('bottom')\nos.chdir('/output')\nwrite('kept')"
    died = await merge(sandbox, output, body)
    if died is None:
        assert [path.name for path in output.iterdir() if path.is_file()] == ["kept"]
    else:  # the watch saw it first
        assert died.verdict.cause == "disk-limit"
