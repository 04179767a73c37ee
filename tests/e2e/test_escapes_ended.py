"""Attempts that end the child: too long, forged words on the page, nonsense on the pipe, its own end, its neighbours' environment.

The layer that stops each stands in the test's name: the watch (the daemon's own clock), the parser (of the daemon), seccomp, the
pid namespace, the private tmpfs.
"""

# ruff: noqa: E501 - the attempts are programs in one line
from __future__ import annotations

import contextlib
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from company.sandbox import Child, ChildDied, ChildFailed, Profile, Sandbox, Verdict
from company.sandbox.output import descendants
from tests.support.escapes import PRELUDE
from tests.support.sandbox_children import outcomes, run, send_batch
from tests.support.sandbox_layers import ROLES, ask, begin, load, require_bubblewrap, start_of

LIMIT_S = 0.4
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
async def sandbox(home: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox.open(home=home, stage=[home / "jobs"]) as opened:
        require_bubblewrap(opened)
        yield opened


def source(role: str, body: str) -> str:
    """A module whose function of this role does ``body``, then answers as it should."""
    head = {
        "process": "def process(_):\n", "split": "def split(data):\n", "merge": "def merge(results, output):\n",
    }  # fmt: skip
    tail = {"process": "    return 1\n", "split": "    yield 1\n", "merge": "    return 1\n"}
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return PRELUDE + "\n" + head[role] + indented + tail[role]


async def death_of(sandbox: Sandbox, role: str, text: str, home: Path, *, limit_s: float = LIMIT_S, **profile: int) -> Verdict:
    """Run it under watch until it dies."""
    child = await sandbox.start(Profile(role=role, output=output_of(home) if role == "merge" else None, **profile))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: child.watch(time_limit_s=limit_s))
            with contextlib.suppress(ChildDied), trio.fail_after(30):
                await load(child, role, text)
                await begin(child, role)
                while True:
                    await child.receive()
            nursery.cancel_scope.cancel()
        assert child.verdict is not None
        return child.verdict
    finally:
        await child.aclose()


async def deaths_of(sandbox: Sandbox, body: str, home: Path, **options: Any) -> dict[str, Verdict]:
    """The same ``body`` in all three roles at once, by role."""
    found: dict[str, Verdict] = {}

    async def one(role: str) -> None:
        found[role] = await death_of(sandbox, role, source(role, body), home, **options)

    async with trio.open_nursery() as nursery:
        for role in ROLES:
            nursery.start_soon(one, role)
    assert len(found) == len(ROLES)
    return found


async def all_deaths(home: Path) -> dict[tuple[str, str], Verdict]:
    """Every attempt of the tables below in every role, some at a time, by (attempt, role)."""
    found: dict[tuple[str, str], Verdict] = {}
    room = trio.CapacityLimiter(9)
    async with Sandbox.open(home=home, stage=[home / "jobs"]) as sandbox:
        require_bubblewrap(sandbox)

        async def one(name: str, body: str, role: str, limit_s: float) -> None:
            async with room:
                found[name, role] = await death_of(sandbox, role, source(role, body), home, limit_s=limit_s)

        async with trio.open_nursery() as nursery:
            for table, limit_s in ((TOO_LONG, LIMIT_S), (FORGERIES, LIMIT_S), (NONSENSE, 10.0), (KILLED, 10.0)):
                for name, body in table.items():
                    for role in ROLES:
                        nursery.start_soon(one, name, body, role, limit_s)
    return found


@pytest.fixture(scope="module")
def verdicts(home: Path) -> dict[tuple[str, str], Verdict]:
    return trio.run(all_deaths, home)


def output_of(home: Path) -> Path:
    """A fresh folder for a merge."""
    (home / "jobs").mkdir(parents=True, exist_ok=True)
    output = Path(tempfile.mkdtemp(dir=home / "jobs"))
    output.chmod(0o755)
    return output


# -- the watch
TOO_LONG = {
    "burning": "while True: pass",
    "sleeping": "time.sleep(1000)",
    "in-c-code": "sum(range(10 ** 13))",
    "catching-every-signal": (
        "for n in range(1, 65):\n    try: signal.signal(n, lambda *a: None)\n    except (OSError, ValueError): pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nos.setsid() if os.getsid(0) != os.getpid() else None\nwhile True: pass"
    ),
    "swallowing-exceptions": "while True:\n    try: time.sleep(1000)\n    except BaseException: pass",
    "in-many-threads": "for _ in range(3):\n    threading.Thread(target=lambda: sum(range(10 ** 13)), daemon=True).start()\nsum(range(10 ** 13))",
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", TOO_LONG)
def test_watch_ends_what_runs_too_long(verdicts: dict[tuple[str, str], Verdict], name: str, role: str) -> None:
    verdict = verdicts[name, role]
    assert verdict.cause == "time-limit", verdict


FORGED = "page = mmap.mmap(5, 4096)\nslots = memoryview(page).cast('Q')\n"
FORGERIES = {
    "not-in-user-code": FORGED + "while True: slots[4] = 0; slots[2] = time.monotonic_ns()",
    "ever-new-fragments": FORGED + "n = 0\nwhile True:\n    n += 1; slots[0] = n % 7; slots[1] = n; slots[4] = 1; slots[2] = time.monotonic_ns()",
    "in-the-future": FORGED + "slots[2] = 1 << 63\nwhile True: time.sleep(1)",
    "a-page-of-its-own": "os.close(5)\nos.open('/dev/zero', os.O_RDWR)\n" + FORGED.replace("mmap.mmap(5,", "mmap.mmap(-1,") + "while True: time.sleep(1)",
    "drowned-in-statuses": FORGED
    + "import msgpack\nh = msgpack.packb([22, 1, 0, '', None])\nmany = (struct.pack('<IIQ', len(h), 0, 0) + h) * 4000\nwhile True:\n    slots[4] = 0\n    os.write(4, many)",
    "page-of-ones": FORGED + "slots[2] = slots[4] = 0\nfor n in (0, 1, 3, 5, 6, 7): slots[n] = (1 << 64) - 1\nwhile True: time.sleep(1)",
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", FORGERIES)
def test_watch_is_not_deceived_by_a_forged_page(verdicts: dict[tuple[str, str], Verdict], name: str, role: str) -> None:
    verdict = verdicts[name, role]
    assert verdict.cause == "time-limit", verdict


async def test_watch_is_not_deceived_by_empty_outcomes_statuses_and_crumbs_of_a_large_result(sandbox: Sandbox, home: Path) -> None:
    body = FORGED + (
        "def frame(header, *items):\n    import msgpack\n    h = msgpack.packb(header)\n"
        "    return struct.pack('<IIQ', len(h), len(items), sum(map(len, items))) + h + struct.pack(f'<{len(items)}I', *map(len, items)) + b''.join(items)\n"
        "while True:\n    slots[4] = 0\n    os.write(4, frame([20, 1, 0, 0, False, 0, 0, 0, 0, []], b'', b'', b''))\n"
        "    os.write(4, frame([22, 1, 0, 'busy', None]))\n    os.write(4, frame([5, 0, False], b'x'))\n    time.sleep(0.05)"
    )
    died = await death_of(sandbox, "process", source("process", body), home)
    assert died.cause == "time-limit" and "no answer" in died.text, died


async def test_watch_lets_an_honest_child_work_for_longer_than_its_limit_in_all(sandbox: Sandbox) -> None:
    child = await sandbox.start(Profile(role="process"))
    try:
        await load(child, "process", "import time\ndef process(x):\n    time.sleep(0.35)\n    return x\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: child.watch(time_limit_s=0.6))
            await send_batch(child, [1] * 6, token=1)
            await send_batch(child, [2] * 6, token=2)
            assert (await outcomes(child)).results == [1] * 6
            assert (await outcomes(child)).results == [2] * 6
            nursery.cancel_scope.cancel()
    finally:
        await child.aclose()


async def test_watch_does_not_blame_a_child_for_a_daemon_that_does_not_read(sandbox: Sandbox) -> None:
    child = await sandbox.start(Profile(role="process"))
    try:
        await load(child, "process", "from company import task\ndef process(x):\n    task.artifact('a', bytes(3 << 20))\n    return x\n")
        with trio.move_on_after(4):
            await send_batch(child, [1])
            await child.watch(time_limit_s=0.5)
        assert (await outcomes(child)).results == [1]
    finally:
        await child.aclose()


@pytest.mark.parametrize("role", ROLES)
async def test_watch_ends_an_import_without_end(sandbox: Sandbox, home: Path, role: str) -> None:
    name = {"process": "processor/main.py", "split": "split.py", "merge": "merge.py"}[role]
    child = await sandbox.start(Profile(role=role, output=output_of(home) if role == "merge" else None))
    try:
        with pytest.raises(ChildDied) as death, trio.fail_after(10):
            await child.load(role=role, files={name: b"while True: pass"}, options={"data": "/x"}, limit_s=0.5)
    finally:
        await child.aclose()
    assert death.value.verdict.cause == "time-limit" and "import" in death.value.verdict.text


# -- the parent's parser
FRAME = "def preamble(header, count, body): return struct.pack('<IIQ', header, count, body)\n"
NONSENSE = {
    "garbage": "os.write(4, b'\\xff' * 4096)",
    "a-body-of-exabytes": FRAME + "os.write(4, preamble(2, 1, 1 << 62) + b'\\x91\\x14')",
    "a-header-of-gigabytes": FRAME + "os.write(4, preamble(0xffffffff, 0, 0) + bytes(64))",
    "a-billion-items": FRAME + "os.write(4, preamble(2, 1 << 30, 0) + b'\\x91\\x14')",
    "sizes-that-lie": FRAME + "os.write(4, preamble(2, 2, 4) + b'\\x91\\x14' + struct.pack('<II', 0xffffffff, 5) + b'abcd')",
    "no-header": FRAME + "os.write(4, preamble(0, 0, 0))",
    "a-header-nested-without-end": FRAME + "os.write(4, preamble(60000, 0, 0) + b'\\x91' * 60000)",
    "a-header-that-is-a-map": FRAME + "os.write(4, preamble(1, 0, 0) + b'\\x80')",
    "an-unknown-message": FRAME + "os.write(4, preamble(2, 0, 0) + b'\\x91\\x7f')",
    "an-outcome-of-nothing": FRAME + "os.write(4, preamble(2, 0, 0) + b'\\x91\\x14')",
    "a-message-of-the-parents": FRAME + "os.write(4, preamble(2, 0, 0) + b'\\x91\\x02')",
    "half-a-frame-then-death": FRAME + "os.write(4, preamble(200, 0, 0) + b'\\x91')\nos._exit(0)",
    "closed-pipe": "os.closerange(3, 64)\ntime.sleep(1000)",
    "a-file-instead-of-the-pipe": "fd = os.open('/dev/null', os.O_RDWR)\nos.dup2(fd, 4)\nos.dup2(fd, 3)\ntime.sleep(1000)",
}  # fmt: skip
ARTIFACTS = ("../../evil", "/etc/evil", "a/b", "..", "", "x" * 300, "a\\b", "nul\0l")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", NONSENSE)
def test_parser_ends_a_child_that_speaks_nonsense(verdicts: dict[tuple[str, str], Verdict], name: str, role: str) -> None:
    verdict = verdicts[name, role]
    assert verdict.cause == ("exited" if "death" in name else "garbage-on-pipe"), verdict


@pytest.mark.parametrize("name", ARTIFACTS)
async def test_parser_refuses_an_artifact_that_would_lie_elsewhere(sandbox: Sandbox, home: Path, name: str) -> None:
    body = (
        f"import msgpack\nh = msgpack.packb([23, 1, 0, {name!r}, True])\n"
        "os.write(4, struct.pack('<IIQI', len(h), 1, 1, 0)[:16] + h + struct.pack('<I', 1) + b'x')"
    )
    died = await death_of(sandbox, "process", source("process", body), home, limit_s=10)
    assert died.cause == "garbage-on-pipe", died


async def test_parser_keeps_the_daemon_responsive_under_a_flood_of_tiny_frames(sandbox: Sandbox) -> None:
    flood = (
        "import msgpack\nh = msgpack.packb([22, 1, 0, '', None])\nmany = (struct.pack('<IIQ', len(h), 0, 0) + h) * 40000\n"
        "while True: os.write(4, many)"
    )
    child = await sandbox.start(Profile(role="process"))
    worst, seen = 0.0, 0

    async def read() -> None:
        nonlocal seen
        while True:
            await child.receive()
            seen += 1

    try:
        await load(child, "process", source("process", flood))
        await send_batch(child, [1])
        enough_at = trio.current_time() + 1.5
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                while seen <= 5_000 or trio.current_time() < enough_at:  # on a busy machine that takes longer
                    before = time.thread_time()  # not the clock: what others do with the machine is none of the parser's doing
                    await trio.lowlevel.checkpoint()
                    worst = max(worst, time.thread_time() - before)
                nursery.cancel_scope.cancel()
    finally:
        await child.aclose()
    assert seen > 5_000 and worst < 0.35, (seen, worst)


async def test_a_forged_page_and_log_do_not_harm_who_reads_them(sandbox: Sandbox) -> None:
    text = source(
        "process", FORGED + "for n in range(8): slots[n] = (1 << 64) - 1\nos.lseek(6, 1 << 62, 0)\nprint('x' * 2_000_000)\nos._exit(3)"
    )
    child = await sandbox.start(Profile(role="process"))
    try:
        await load(child, "process", text)
        await send_batch(child, [1])
        with pytest.raises((ChildDied, ChildFailed)), trio.fail_after(10):
            await outcomes(child)
        assert child.page().index == (1 << 64) - 1 and len(child.log_tail()) <= 8192
        child.kill("cancelled", "test")
        assert len((await child.wait()).log_tail) <= 8192
    finally:
        await child.aclose()


# -- seccomp, by the signal it sends
KILLED = {
    "32-bit-calls": "code = mmap.mmap(-1, 4096, prot=7)\ncode.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\nctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()",
    "x32-calls": "call(0x40000000 | 39)",
}  # fmt: skip


@x86_64
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", KILLED)
def test_seccomp_kills_for_calls_of_another_architecture(verdicts: dict[tuple[str, str], Verdict], name: str, role: str) -> None:
    verdict = verdicts[name, role]
    assert (verdict.cause, verdict.signal) == ("crashed", 31), verdict


async def test_no_new_privileges_strips_a_set_uid_binary(sandbox: Sandbox, home: Path) -> None:
    if not os.stat("/usr/bin/mount").st_mode & 0o4000:
        pytest.skip("mount is not set-uid here")
    body = "os.execv('/usr/bin/mount', ['mount', '-t', 'tmpfs', 'none', '/tmp'])"
    died = await deaths_of(sandbox, body, home, limit_s=10)
    for verdict in died.values():
        assert verdict.cause == "exited" and verdict.exit_code in (1, 32), verdict
        assert b"superuser" in verdict.log_tail or b"permission denied" in verdict.log_tail, verdict


async def test_rlimits_stop_a_thread_bomb(sandbox: Sandbox, home: Path) -> None:
    body = (
        "stop, made = threading.Event(), 0\n"
        "try:\n    while True:\n        threading.Thread(target=stop.wait, daemon=True).start()\n        made += 1\n"
        "except RuntimeError:\n    pass\nfinally:\n    stop.set()\nassert 5 < made < 300, made\nprint('BOUNDED', made)\nos._exit(9)"
    )
    died = await deaths_of(sandbox, body, home, limit_s=15, memory_bytes=8 << 30)
    assert all(v.exit_code == 9 and b"BOUNDED" in v.log_tail for v in died.values()), died


async def test_rlimits_stop_a_slow_memory_bomb_made_in_c(sandbox: Sandbox, home: Path) -> None:
    body = "libc.malloc.restype = ctypes.c_void_p\nn = 0\nwhile p := libc.malloc(4 << 20):\n    ctypes.memset(p, 1, 4 << 20)\n    n += 1\nassert n < 64, n\nprint('BOUNDED')\nos._exit(9)"
    died = await deaths_of(sandbox, body, home, limit_s=15, memory_bytes=128 << 20)
    assert all(v.exit_code == 9 and b"BOUNDED" in v.log_tail for v in died.values()), died


async def test_watch_ends_a_flood_of_files_in_tmp(sandbox: Sandbox, home: Path) -> None:
    """A tmpfs bounds bytes; its inodes are memory of the kernel's that no rlimit counts."""
    body = "import itertools\nfor n in itertools.count():\n    os.close(os.open(f'/tmp/f{n}', os.O_CREAT | os.O_WRONLY))"
    verdict = await death_of(sandbox, "process", source("process", body), home, limit_s=25)
    assert verdict.cause == "disk-limit", verdict


# -- what is left for others
@pytest.mark.parametrize("role", ROLES)
async def test_private_tmpfs_leaves_nothing_for_the_next_child(sandbox: Sandbox, home: Path, role: str) -> None:
    body = "for p in ('/tmp/left', '/package/left', '/package/processor/left', '/tmp/evil.so'):\n    try: write(p)\n    except OSError: pass\nos.environ['LD_PRELOAD'] = '/tmp/evil.so'\nos.environ['PYTHONPATH'] = '/tmp'"
    out = output_of(home)
    await ask(start_of(sandbox), role, source(role, body), None, output=out)
    look = "def process(_, *, x):\n    import os\n    return [os.path.join(p, f) for p, _, fs in [*os.walk('/tmp'), *os.walk('/package')] for f in fs], 'LD_PRELOAD' in os.environ or 'PYTHONPATH' in os.environ\n"
    assert await ask(start_of(sandbox), "process", look, None, output=out) == (["/package/processor/main.py"], False)


@pytest.mark.parametrize("role", ROLES)
async def test_pid_namespace_holds_no_exit_up(sandbox: Sandbox, home: Path, role: str) -> None:
    body = (
        "import atexit, gc\nclass Slow:\n    def __del__(self): time.sleep(1000)\n"
        "global kept\nkept = Slow(); kept.me = kept\natexit.register(time.sleep, 1000)\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    )
    begun = time.monotonic()
    assert await ask(start_of(sandbox), role, source(role, body).replace("(_)", "(_, *, x)"), None, output=output_of(home)) == 1
    assert time.monotonic() - begun < 100  # the threads and exit handlers would hold it for 1,000 s


DAEMON = """
import sys, trio
from pathlib import Path
sys.path.insert(0, {root!r})
from company.sandbox import Profile, Sandbox
from tests.support.sandbox_layers import begin, load
from tests.e2e.test_escapes_ended import source, output_of
async def main():
    home, role = Path(sys.argv[1]), sys.argv[2]
    async with Sandbox.open(home=home, stage=[home / "jobs"]) as sandbox:
        child = await sandbox.start(Profile(role=role, output=output_of(home) if role == "merge" else None))
        await load(child, role, source(role, sys.argv[3]))
        await begin(child, role)
        while b"READY" not in child.log_tail():
            await trio.sleep(0.02)
        print(child.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
CLING = (
    "for n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
    "libc.prctl(1, 0, 0, 0, 0)\nlibc.prctl(36, 1, 0, 0, 0)\ntry: os.setsid()\nexcept OSError: pass\nprint('READY')\nwhile True: time.sleep(1)"
)


@pytest.mark.parametrize("role", ROLES)
def test_pid_namespace_dies_with_a_daemon_that_is_killed(home: Path, role: str) -> None:
    code = DAEMON.format(root=str(Path(__file__).parents[2]))
    with subprocess.Popen([sys.executable, "-c", code, str(home), role, CLING], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        watched = [os.pidfd_open(p) for p in [pid, *descendants(pid)]]
        daemon.kill()
    assert len(watched) >= 3
    for fd in watched:
        assert select.select([fd], [], [], 10)[0], "a child outlived its daemon"
        os.close(fd)


TAKE_OVER_INIT = (
    "where = int(open('/proc/1/syscall').read().split()[-1], 16)\n"
    "code = b'\\xb8\\x9d\\0\\0\\0\\xbf\\x01\\0\\0\\0\\x31\\xf6\\x31\\xd2\\x0f\\x05' + b'\\xeb\\xfe'  # prctl(PR_SET_PDEATHSIG, 0), then for ever\n"
    "with open('/proc/1/mem', 'r+b', buffering=0) as memory:\n    memory.seek(where)\n    memory.write(code)\n"
    "print('INJECTED')\nos._exit(0)"
)


@x86_64
async def test_seccomp_and_daemon_hold_even_an_init_that_was_taken_over(sandbox: Sandbox, home: Path) -> None:
    """A child may write the memory of its pid 1. What runs there then is filtered, has no pipe, and dies by the daemon's hand."""
    child = await sandbox.start(Profile(role="process"))
    try:
        await load(child, "process", source("process", TAKE_OVER_INIT))
        watched = [os.pidfd_open(p) for p in [child.pid, *descendants(child.pid)]]
        await send_batch(child, [1])
        with pytest.raises(ChildDied) as death, trio.fail_after(10):
            await outcomes(child)
        assert b"INJECTED" in death.value.verdict.log_tail or death.value.verdict.cause == "exited", death.value.verdict
    finally:
        await child.aclose()
    for fd in watched:
        assert select.select([fd], [], [], 5)[0]
        os.close(fd)


async def test_failed_with_a_megabyte_of_words_is_cut(sandbox: Sandbox, home: Path) -> None:
    for role in ROLES:
        text = source(role, "raise type('E' * 100_000, (Exception,), {})('x' * 10_000_000)")
        child: Child = await sandbox.start(Profile(role=role, output=output_of(home) if role == "merge" else None))
        try:
            with trio.fail_after(10):
                await load(child, role, text)
                await begin(child, role)
                if role == "process":
                    (told,) = (await outcomes(child)).results
                    assert len(told["message"]) <= 1000
                else:
                    with pytest.raises((ChildFailed, ChildDied)):
                        while True:
                            await child.receive()
        finally:
            await child.aclose()


async def test_run_after_a_refused_attempt_works(sandbox: Sandbox) -> None:
    """The layers leave an honest neighbour in the same child alone."""
    child = await sandbox.start(Profile(role="process"))
    try:
        await load(child, "process", source("process", "try: os.fork()\nexcept PermissionError: pass"))
        assert (await run(child, [1, 2, 3])).results == [1, 1, 1]
    finally:
        await child.aclose()
