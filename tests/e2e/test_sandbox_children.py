"""Real children in a real sandbox: what they return, how they die, what they cannot do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import trio

from company.sandbox import ChildDied, ChildFailed, ChildPool, Mount, Profile, Sandbox, wire
from p2p.base.codec import decode_value, encode_value
from p2p.base.frames import encode_frame
from tests.support.sandbox_children import below, outcomes, packed, process_child, run, send_batch

IDENTITY = "def process(x): return x"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox.open(home=tmp_path, stage=[tmp_path / "jobs"], allow_none=False) as opened:
        yield opened


async def test_identity_of_two_hundred_thousand_ints_comes_back_in_order(sandbox: Sandbox) -> None:
    async with process_child(sandbox, IDENTITY) as child:
        for first in range(0, 200_000, 20_000):
            got = await run(child, list(range(first, first + 20_000)), first=first)
            assert got.results == list(range(first, first + 20_000))
            assert not any(got.status)


async def test_the_next_batch_may_be_in_the_pipe_before_the_answer_is_out(sandbox: Sandbox) -> None:
    async with process_child(sandbox, IDENTITY) as child:
        for token in range(1, 6):
            await send_batch(child, [token] * 10, token=token)
        for token in range(1, 6):
            assert (await outcomes(child)).results == [token] * 10


async def test_every_value_of_the_codec_makes_the_round_trip(sandbox: Sandbox) -> None:
    values = [None, True, 1 << 200, (1, (2, 3)), {1, 2}, {"a": [1.5]}, 3 + 4j, b"x", np.arange(6, dtype="f4").reshape(2, 3)]
    async with process_child(sandbox, IDENTITY) as child:
        got = await run(child, values)
    assert got.results[:-1] == values[:-1]
    assert got.results[-1].dtype == np.float32 and got.results[-1].tolist() == values[-1].tolist()


async def test_an_exception_is_one_fragments_failure_with_its_own_frames_only(sandbox: Sandbox) -> None:
    source = "import helper\ndef process(x):\n    if x % 3 == 1:\n        return helper.inverse(x - x)\n    return x\n"
    child = await sandbox.start(Profile(role="process"))
    try:
        files = {"processor/main.py": source.encode(), "processor/helper.py": b"def inverse(x):\n    return 1 / x\n"}
        await child.load(role="process", files=files, options={})
        got = await run(child, list(range(9)))
    finally:
        await child.aclose()
    assert got.status == [0, 1, 0] * 3
    assert got.results[0] == 0 and got.results[8] == 8
    failure = got.results[4]
    assert failure["type"] == "ZeroDivisionError" and failure["preview"] == "4"
    assert 'File "processor/main.py", line 4, in process' in failure["traceback"]
    assert 'File "processor/helper.py", line 2, in inverse' in failure["traceback"]
    assert "return 1 / x" in failure["traceback"]
    assert "/site/" not in failure["traceback"] and "sandbox" not in failure["traceback"]


async def test_a_result_that_cannot_travel_fails_alone(sandbox: Sandbox) -> None:
    async with process_child(sandbox, "def process(x): return object() if x == 2 else x") as child:
        got = await run(child, [1, 2, 3])
    assert got.status == [0, 1, 0] and got.results[1]["type"].endswith("CodecError") and got.results[2] == 3


async def test_bytes_that_are_no_value_fail_their_fragment_alone(sandbox: Sandbox) -> None:
    items = [encode_value(1), b"\xc1", encode_value("three"), b"\xc7\x01\x63x", encode_value(5)]
    sizes = np.fromiter(map(len, items), dtype="<u4", count=len(items))
    async with process_child(sandbox, IDENTITY) as child:
        await child.send([wire.RUN, 1, 0, []], sizes, b"".join(items))
        got = await outcomes(child)
    assert got.status == [0, 1, 0, 1, 0]
    assert got.results[0] == 1 and got.results[2] == "three" and got.results[4] == 5


async def test_sys_exit_is_a_failure_and_not_the_end_of_the_child(sandbox: Sandbox) -> None:
    async with process_child(sandbox, "import sys\ndef process(x):\n    if x == 1: sys.exit(3)\n    return x") as child:
        got = await run(child, [0, 1, 2])
    assert got.status == [0, 1, 0] and got.results[1]["type"] == "SystemExit"


async def test_where_a_fragment_leaves_no_memory_behind_the_results_of_its_neighbours_are_still_told(sandbox: Sandbox) -> None:
    source = """
        kept = []
        def process(x):
            print("at", x)
            for power in range(24 if x == 7 else 0, 9, -1):
                try:
                    while True: kept.append(bytes(1 << power))
                except MemoryError: pass
            if x == 7: raise ValueError("took it all")
            return x
    """
    async with process_child(sandbox, dedent(source), memory_bytes=64 << 20) as child:
        first, second = await run(child, list(range(15))), await run(child, list(range(15, 40)), first=15)
    assert [i for i, status in enumerate(first.status + second.status) if status] == [7]
    assert first.results[7]["message"] == "took it all"
    assert (first.results[14], second.results[24]) == (14, 39)


@pytest.mark.parametrize(
    ("body", "cause", "words"),
    [
        ("import os; os._exit(7)", "exited", "exit code 7"),
        ("import ctypes; ctypes.string_at(0)", "crashed", "SIGSEGV"),
        ("import os; os.abort()", "crashed", "SIGABRT"),
    ],
)
async def test_a_death_names_cause_and_fragment_and_keeps_its_last_lines(sandbox: Sandbox, body: str, cause: str, words: str) -> None:
    source = f"def process(x):\n    print('at', x)\n    if x == 15:\n        {body}\n    return x\n"
    async with process_child(sandbox, source) as child:
        await send_batch(child, list(range(10, 20)), first=10)
        with pytest.raises(ChildDied) as death:
            await outcomes(child)
    verdict = death.value.verdict
    assert (verdict.cause, verdict.index) == (cause, 15), verdict
    assert words in verdict.text
    assert verdict.log_tail.startswith(b"at 15\n"), verdict.log_tail
    if cause == "crashed":
        assert b"main.py" in verdict.log_tail  # faulthandler's view of it


async def test_what_was_flushed_before_a_crash_is_kept(sandbox: Sandbox) -> None:
    source = "import os, time\ndef process(x):\n    time.sleep(0.02)\n    if x == 19: os._exit(1)\n    return x\n"
    async with process_child(sandbox, source, options={"flush_us": 50_000}) as child:
        await send_batch(child, list(range(30)))
        seen = 0
        with pytest.raises(ChildDied) as death:
            while True:
                frame = await child.receive()
                assert frame.header[2] == seen
                seen += frame.header[3]
    assert death.value.verdict.index == 19
    assert 14 <= seen <= 19


async def test_a_fragment_past_its_time_limit_is_killed_and_named(sandbox: Sandbox) -> None:
    async with process_child(sandbox, "def process(x):\n    while x == 3: pass\n    return x") as child, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: child.watch(time_limit_s=0.4))
        await send_batch(child, list(range(5)))
        with pytest.raises(ChildDied) as death:
            await outcomes(child)
        nursery.cancel_scope.cancel()
    assert death.value.verdict.cause == "time-limit" and death.value.verdict.index == 3
    assert "0.4 s" in death.value.verdict.text


async def test_a_waiting_child_is_not_past_its_time_limit(sandbox: Sandbox) -> None:
    async with process_child(sandbox, IDENTITY) as child:
        with trio.move_on_after(0.5):
            await child.watch(time_limit_s=0.2)
        assert (await run(child, [1])).results == [1]


async def test_a_memory_bomb_is_its_fragments_failure_and_the_child_lives_on(sandbox: Sandbox) -> None:
    source = "def process(x):\n    return len(bytearray(4 << 30)) if x == 1 else x"
    async with process_child(sandbox, source) as child:
        got = await run(child, [0, 1, 2])
        assert got.status == [0, 1, 0] and got.results[1]["type"] == "MemoryError"
        assert (await run(child, [5])).results == [5]


async def test_a_slow_memory_bomb_ends_the_same_way(sandbox: Sandbox) -> None:
    source = "def process(x):\n    kept = []\n    while x: kept.append(bytearray(1 << 20))\n    return x"
    async with process_child(sandbox, source, memory_bytes=128 << 20) as child:
        got = await run(child, [0, 1, 0])
    assert got.status == [0, 1, 0] and got.results[1]["type"] == "MemoryError"


ATTEMPTS = {
    "fork": "import os; os.fork()",
    "subprocess": "import subprocess; subprocess.run(['/bin/true'], check=True)",
    "multiprocessing": "import multiprocessing as m; p = m.get_context('spawn').Process(target=print); p.start()",
    "tcp": "import socket; socket.create_connection(('127.0.0.1', 22))",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix": "import socket; socket.socket(socket.AF_UNIX)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "shadow": "open('/etc/shadow').read()",
    "passwd": "open('/etc/passwd').read()",
    "home": "import os; os.listdir('/root')",
    "parent": "open('/proc/%d/environ' % x).read()",
    "usr": "open('/usr/x', 'w')",
    "root": "open('/x', 'w')",
    "site": "open('/site/company/x', 'w')",
    "shm": "open('/dev/shm/x', 'w')",
    "sysctl": "open('/proc/sys/kernel/core_pattern', 'w').write('x')",
    "mount": "import ctypes, os\n    c = ctypes.CDLL(None, use_errno=True)\n    if c.mount(b'none', b'/tmp', b'tmpfs', 0, None): raise OSError(ctypes.get_errno(), 'no')",  # noqa: E501
    "unshare": "import ctypes, os\n    c = ctypes.CDLL(None, use_errno=True)\n    if c.unshare(0x10000000): raise OSError(ctypes.get_errno(), 'no')",  # noqa: E501
    "memfd": "import os; os.memfd_create('x')",
    "fill-tmp": "open('/tmp/x', 'wb').write(bytes(300 << 20))",
    "setuid": "import os; os.setuid(0)",
}


@pytest.mark.parametrize("name", sorted(ATTEMPTS))
async def test_what_a_child_may_not_do_fails(sandbox: Sandbox, name: str) -> None:
    if sandbox.rung != "bubblewrap":
        pytest.skip(f"stands on {sandbox.rung}")
    source = f"def process(x):\n    {ATTEMPTS[name]}\n    return 'it worked'\n"
    async with process_child(sandbox, source, memory_bytes=1 << 30) as child:
        got = await run(child, [os.getpid()])
        assert got.status == [1], got.results
        assert got.results[0]["type"] in ("PermissionError", "FileNotFoundError", "OSError", "BlockingIOError"), got.results[0]
        assert (await run(child, [0]) if name == "parent" else got) is not None


async def test_threads_socket_pairs_and_numpy_work(sandbox: Sandbox) -> None:
    source = (
        "import socket, threading\nimport numpy as np\n"
        "def process(x):\n    a, b = socket.socketpair()\n    seen = []\n"
        "    t = threading.Thread(target=lambda: seen.append(b.recv(3)))\n    t.start()\n    a.send(b'abc')\n    t.join()\n"
        "    return seen[0], float((np.eye(200) @ np.eye(200)).sum())\n"
    )
    async with process_child(sandbox, source) as child:
        assert (await run(child, [1])).results == [(b"abc", 200.0)]


async def test_nothing_of_the_parents_environment_and_packages_is_inside(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_PARENT", "x")
    source = (
        "import os, sys\n"
        "def process(name):\n    try:\n        __import__(name)\n    except ImportError:\n        return sorted(os.environ), sys.argv[1:] == []\n    return name\n"  # noqa: E501
    )
    async with process_child(sandbox, source) as child:
        got = await run(child, ["trio", "click", "aiohttp"])
    assert got.status == [0, 0, 0]
    assert all("SECRET_OF_PARENT" not in environ for environ, _ in got.results)


async def test_hashes_of_text_are_the_same_in_every_child(sandbox: Sandbox) -> None:
    seen = set()
    for _ in range(2):
        async with process_child(sandbox, "def process(x): return hash(x)") as child:
            seen.add((await run(child, ["a text"])).results[0])
    assert len(seen) == 1


async def test_prints_belong_to_their_fragment_and_stream(sandbox: Sandbox) -> None:
    source = "import os, sys\ndef process(x):\n    if x % 2:\n        print('odd', x)\n        print('bad', x, file=sys.stderr)\n    if x == 4: os.write(1, b'raw')\n    return x\n"  # noqa: E501
    async with process_child(sandbox, source) as child:
        got = await run(child, list(range(5)), first=100)
    assert got.logs[:4] == [(101, 1, b"odd 1\n"), (101, 2, b"bad 1\n"), (103, 1, b"odd 3\n"), (103, 2, b"bad 3\n")]
    assert got.logs[4][2] == b"raw"


async def test_a_flood_of_output_is_cut_and_counted_and_blocks_nothing(sandbox: Sandbox) -> None:
    source = "import os\ndef process(x):\n    for _ in range(20_000): print('y' * 99)\n    os.write(2, b'z' * 5_000_000) if x else None\n    return x\n"  # noqa: E501
    async with process_child(sandbox, source) as child:
        got = await run(child, [0, 0, 1])
        again = await run(child, [0])
    assert got.results == [0, 0, 1]
    kept = sum(len(record[2]) for record in got.logs)
    assert kept <= 1 << 20
    assert got.dropped > 5_000_000
    assert again.logs[0][2].startswith(b"y" * 99)


async def test_a_crash_after_a_flood_still_shows_the_last_lines(sandbox: Sandbox) -> None:
    source = "import os\ndef process(x):\n    for i in range(30_000): print('line', i, 'y' * 80)\n    print('the end')\n    os._exit(1)\n"
    async with process_child(sandbox, source) as child:
        await send_batch(child, [1])
        with pytest.raises(ChildDied) as death:
            await outcomes(child)
    assert death.value.verdict.log_tail.endswith(b"the end\n")


async def test_status_and_artifacts_arrive(sandbox: Sandbox) -> None:
    source = "from company import task\ndef process(x):\n    task.status('half', 0.5)\n    task.artifact('a.bin', bytes(1_500_000))\n    return task.index()\n"  # noqa: E501
    async with process_child(sandbox, source) as child:
        got = await run(child, [0], first=41)
    assert got.results == [41]
    assert got.other[0] == [wire.STATUS, 1, 41, "half", 0.5]
    assert [o[:5] for o in got.other[1:]] == [[wire.ARTIFACT, 1, 41, "a.bin", False], [wire.ARTIFACT, 1, 41, "a.bin", True]]
    assert sum(len(o[5]) for o in got.other[1:]) == 1_500_000


async def test_functions_get_the_parameters_they_name(sandbox: Sandbox) -> None:
    async with process_child(sandbox, "def process(x, *, factor=1): return x * factor", params={"factor": 3, "other": 1}) as child:
        assert (await run(child, [2])).results == [6]
    async with process_child(sandbox, "def process(x, **all): return sorted(all)", params={"factor": 3, "other": 1}) as child:
        assert (await run(child, [2])).results == [["factor", "other"]]


async def test_large_fragments_and_results_travel_in_chunks(sandbox: Sandbox, tmp_path: Path) -> None:
    large = encode_value(bytes(10 << 20))
    small, size = encode_value(b"s"), np.array([2, 0, 2], dtype="<u4")
    assert len(small) == 3
    small = encode_value(7)
    async with process_child(sandbox, "def process(x): return x + b'!' if isinstance(x, bytes) else x") as child:
        await child.send_blob(0, large)
        await child.send([wire.RUN, 1, 0, [[1, len(large)]]], np.array([1, 0, 1], dtype="<u4"), small * 2)
        got = await outcomes(child, tmp_path)
    del size
    assert got.results == [7, bytes(10 << 20) + b"!", 7]
    assert got.status == [0, 0, 0]


async def test_garbage_on_the_pipe_kills_the_child(sandbox: Sandbox) -> None:
    async with process_child(sandbox, "import os\ndef process(x):\n    os.write(4, b'\\xff' * 64)\n    return x") as child:
        await send_batch(child, [1])
        with pytest.raises(ChildDied) as death:
            await outcomes(child)
    assert death.value.verdict.cause == "garbage-on-pipe"


async def test_a_silent_fragments_death_is_not_shown_with_its_neighbours_lines(sandbox: Sandbox) -> None:
    source = (
        "import os\ndef process(x):\n    if x == 3: os.write(2, b'last words') and os._exit(1)\n    print('neighbour', x)\n    return x\n"
    )
    async with process_child(sandbox, source) as child:
        await send_batch(child, [0, 1, 2, 3])
        with pytest.raises(ChildDied) as death:
            await outcomes(child)
    assert death.value.verdict.log_tail == b"last words"


async def test_a_forged_message_kills_the_child_before_anyone_reads_it(sandbox: Sandbox) -> None:
    forged = b"".join(encode_frame([wire.OUTCOME, 1, 0, 5, True, 0, 0, 0, 0, []]))
    async with process_child(sandbox, f"import os\ndef process(x):\n    os.write(4, {forged!r})\n    return x\n") as child:
        await send_batch(child, [1])
        with pytest.raises(ChildDied) as death:
            await child.receive()
    assert death.value.verdict.cause == "garbage-on-pipe" and "OUTCOME of 5" in death.value.verdict.text


async def test_a_package_that_cannot_be_imported_says_where(sandbox: Sandbox) -> None:
    for source, kind in (("import no_such_thing", "ModuleNotFoundError"), ("def process(x:\n", "SyntaxError"), ("x = 1", "PackageError")):
        with pytest.raises(ChildFailed) as failed:
            async with process_child(sandbox, source):
                pass
        assert failed.value.where == "load" and failed.value.type.endswith(kind)


async def test_a_package_that_dies_at_import_is_a_crash_not_a_broken_sandbox(sandbox: Sandbox) -> None:
    with pytest.raises(ChildDied) as death:
        async with process_child(sandbox, "import os; os._exit(3)"):
            pass
    assert death.value.verdict.cause == "exited" and death.value.verdict.exit_code == 3


async def test_split_makes_fragments_on_demand_and_waits_for_its_reader(sandbox: Sandbox, tmp_path: Path) -> None:
    data = tmp_path / "jobs" / "numbers.txt"
    data.write_text("1000000")
    source = (
        b"from company import Fragment, task\n"
        b"def count(data): return int(data.read_text())\n"
        b"def split(data, factor=1):\n    for i in range(int(data.read_text())):\n"
        b"        print(i) if i % 10_000 == 0 else None\n        yield bytes(1000)\n"
    )
    child = await sandbox.start(Profile(role="split", mounts=(Mount(data, "/data/numbers.txt"),)))
    try:
        with trio.fail_after(30):
            ready = await child.load(role="split", files={"split.py": source}, options={"data": "/data/numbers.txt"})
            assert ready.functions == ("split", "count")
            assert (await child.receive()).header == [wire.COUNT, 1_000_000]
            frame = await child.receive()
            assert frame.header[:3] == [wire.FRAGS, 0, None]
            before = await _settled(child)
            assert before < 6000  # two pipes' worth, not the million
            seen = len(frame.sizes)
            while seen < 20_000:
                frame = await child.receive()
                assert frame.header[1] == seen
                seen += len(frame.sizes)
            assert child.page().index > before
    finally:
        await child.aclose()


async def _settled(child: object) -> int:
    """Wait until the generator stands still and return where."""
    last = -1
    while (index := child.page().index) != last or child.page().in_user:  # type: ignore[attr-defined]
        last = index
        await trio.sleep(0.05)
    return index


async def test_split_ends_with_the_total_and_gives_costs(sandbox: Sandbox) -> None:
    source = b"from company import Fragment\ndef split(data):\n    yield 'a'\n    yield Fragment('b', cost=2.5)\n    yield 'c'\n"
    child = await sandbox.start(Profile(role="split"))
    try:
        with trio.fail_after(30):
            await child.load(role="split", files={"Split.py": source}, options={"data": "/data/none"})
            assert (await child.receive()).header == [wire.COUNT, None]
            frame = await child.receive()
            assert frame.header[1:3] == [0, [1.0, 2.5, 1.0]]
            assert [decode_value(item) for item in frame.cut()] == ["a", "b", "c"]
            assert (await child.receive()).header == [wire.SPLIT_END, 3]
    finally:
        await child.aclose()


async def test_a_fragment_does_not_wait_for_its_slow_successor(sandbox: Sandbox) -> None:
    source = b"import time\ndef split(data):\n    yield 1\n    time.sleep(100)\n    yield 2\n"
    child = await sandbox.start(Profile(role="split"))
    try:
        with trio.fail_after(10):
            await child.load(role="split", files={"split.py": source}, options={"data": "/x"})
            await child.receive()
            assert (await child.receive()).header[0] == wire.FRAGS
    finally:
        await child.aclose()


async def test_an_exception_in_split_is_told(sandbox: Sandbox) -> None:
    child = await sandbox.start(Profile(role="split"))
    try:
        with trio.fail_after(10):
            await child.load(
                role="split", files={"split.py": b"def split(data):\n    yield 1\n    raise KeyError('k')\n"}, options={"data": "/x"}
            )
            with pytest.raises(ChildFailed) as failed:
                while True:
                    await child.receive()
        assert (failed.value.where, failed.value.type) == ("split", "KeyError")
        assert 'File "split.py", line 3' in failed.value.traceback
    finally:
        await child.aclose()


async def test_merge_streams_results_and_writes_files(sandbox: Sandbox, tmp_path: Path) -> None:
    output = tmp_path / "jobs" / "out"
    output.mkdir(parents=True)
    source = b"def merge(results, output, title='t'):\n    total = sum(results)\n    (output / 'sum.txt').write_text(f'{title} {total}')\n    return total\n"  # noqa: E501
    child = await sandbox.start(Profile(role="merge", output=output))
    try:
        with trio.fail_after(30):
            await child.load(role="merge", files={"merge.py": source}, params=encode_value({"title": "sum"}), options={})
            for first in range(0, 100_000, 5000):
                await child.send([wire.RESULTS, first, []], *packed(list(range(first, first + 5000))))
            await child.send([wire.END])
            frame = await child.receive()
    finally:
        await child.aclose()
    assert frame.header == [wire.MERGED, True] and decode_value(frame.body) == sum(range(100_000))
    assert (output / "sum.txt").read_text() == f"sum {sum(range(100_000))}"


async def test_an_output_folder_past_its_bound_is_a_disk_limit(sandbox: Sandbox, tmp_path: Path) -> None:
    output = tmp_path / "jobs" / "out"
    output.mkdir(parents=True)
    source = b"def merge(results, output):\n    i = 0\n    while True:\n        i += 1\n        (output / f'f{i % 64}').write_bytes(bytes(1 << 20))\n"  # noqa: E501
    child = await sandbox.start(Profile(role="merge", output=output, output_max_bytes=20 << 20))
    try:
        with trio.fail_after(30):
            await child.load(role="merge", files={"merge.py": source}, options={})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: child.watch(time_limit_s=None))
                with pytest.raises(ChildDied) as death:
                    await child.receive()
                nursery.cancel_scope.cancel()
    finally:
        await child.aclose()
    assert death.value.verdict.cause == "disk-limit"


async def test_same_compares_pairs(sandbox: Sandbox) -> None:
    child = await sandbox.start(Profile(role="same"))
    try:
        await child.load(
            role="same", files={"merge.py": b"def merge(r, output): pass\ndef same(a, b): return abs(a - b) < 1\n"}, options={}
        )
        assert (await run(child, [(1.0, 1.5), (1.0, 3.0)])).results == [True, False]
    finally:
        await child.aclose()


async def test_a_pool_gives_each_child_once_and_replaces_it(sandbox: Sandbox) -> None:
    async with ChildPool(sandbox, Profile(role="process"), 2) as pool:
        first, second = await pool.take(), await pool.take()
        assert first is not second
        first.kill("cancelled", "test")
        for child in (first, second):
            await child.aclose()
            assert not child.is_alive


async def test_closing_leaves_no_process_and_no_descriptor(sandbox: Sandbox) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with process_child(sandbox, "def process(x):\n    while True: pass") as child:
            await send_batch(child, [1])
            pid = child.pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_child_that_is_closed_while_it_starts_leaves_nothing(sandbox: Sandbox) -> None:
    for pause in range(12):
        child = await sandbox.start(Profile(role="process"))
        for _ in range(pause * 40):
            await trio.lowlevel.checkpoint()
        watched = [os.pidfd_open(pid) for pid in below(child.pid)]
        if pause % 2:
            child.kill("cancelled", "test")
        await child.aclose()
        for fd in watched:
            assert await trio.to_thread.run_sync(_ends, fd)
            os.close(fd)


DAEMON = """
import sys, trio
from pathlib import Path
sys.path.insert(0, {root!r})
from company.sandbox import Profile, Sandbox
from tests.support.sandbox_children import send_batch
async def main():
    async with Sandbox.open(home=Path(sys.argv[1])) as sandbox:
        child = await sandbox.start(Profile(role="process"))
        await child.load(role="process", files={{"processor/main.py": b"def process(x):\\n    while True: pass"}}, options={{}})
        await send_batch(child, [1])
        print(sandbox.rung, child.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


def _python() -> list[str]:
    return [sys.executable, "-c", DAEMON.format(root=str(Path(__file__).parents[2]))]


def test_children_die_with_a_daemon_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([*_python(), str(tmp_path)], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        _, pid = daemon.stdout.readline().split()
        descendants = below(int(pid))
        assert len(descendants) >= 2
        watched = [os.pidfd_open(p) for p in descendants]
        daemon.kill()
    for fd in watched:
        assert _ends(fd), "a child outlived its daemon"
        os.close(fd)


def _ends(pidfd: int) -> bool:
    import select

    return bool(select.select([pidfd], [], [], 10)[0])


def test_all_of_this_holds_for_an_ordinary_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("is being run by an ordinary user already")
    setpriv, python = shutil.which("setpriv"), f"/usr/bin/python3.{sys.version_info[1]}"
    root = Path(__file__).parents[2]
    site = Path(np.__file__).parents[1]
    if not setpriv or not os.path.exists(python):
        pytest.skip("needs setpriv and a Python that every user can read")
    as_user = [setpriv, "--reuid", "1234", "--regid", "1234", "--clear-groups"]
    if subprocess.run([*as_user, "test", "-r", str(site / "numpy"), "-a", "-r", str(root / "company")]).returncode:
        pytest.skip(f"{root} cannot be read by an ordinary user")
    folder = Path("/tmp") / f"sandbox-user-{os.getpid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        done = subprocess.run(
            [*as_user, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(folder / "t"), __file__, str(Path(__file__).with_name("test_sandbox_ladder.py"))],  # noqa: E501
            cwd=root, env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": f"{root}:{site}", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
