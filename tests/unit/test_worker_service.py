"""A real worker, in real sandboxes, against a chief that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from company import messages as m
from company.paths import Home
from company.sandbox import Sandbox
from company.worker.link import Refusal
from company.worker.options import Membership, WorkerOptions, save_membership
from company.worker.service import Worker, wipe
from p2p.base.codec import decode_value, encode_value
from p2p.base.keys import Identity
from tests.support.scripted_chief import ScriptedChief, package, serving

IDENTITY = package("def process(fragment):\n    return fragment\n")
WORKER = Identity(b"W" * 32)


@asynccontextmanager
async def working(home: Path, chief: ScriptedChief, address: str, **options: Any) -> AsyncIterator[Worker]:
    """A worker that has joined ``chief`` before."""
    options = {"slots": 1, "rpc": "off", "handle_signals": False} | options
    settings = WorkerOptions(home=Home(home), name="w", **options)
    tree = settings.home.worker("w").create()
    save_membership(tree.root, Membership(chief_key=chief.identity.public, addresses=(address,), worker="w-1", supervisor="co-1"))
    wipe(tree.scratch)
    with trio.fail_after(40):
        async with Sandbox.open(home=tree.root) as sandbox, trio.open_nursery() as nursery:
            worker = Worker(settings, tree, WORKER, sandbox, Random(1))
            nursery.start_soon(worker.run)
            yield worker
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def pair(home: Path, **options: Any) -> AsyncIterator[tuple[ScriptedChief, Worker]]:
    chief = ScriptedChief()
    async with serving(chief) as address, working(home, chief, address, **options) as worker:
        await chief.wait_channel()
        yield chief, worker


async def begin(chief: ScriptedChief, what: Any = IDENTITY, **options: Any) -> None:
    await chief.give_job(what, **options)
    await chief.give_processor(what)


async def test_ten_thousand_ints_come_back_in_order(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief)
        for token in range(1, 6):
            await chief.run(token, range(token * 2000, token * 2000 + 2000), first=token * 2000)
            if token > 1:
                assert await chief.outcome(token - 1) == list(range((token - 1) * 2000, token * 2000))
        assert await chief.outcome(5) == list(range(10_000, 12_000))


async def test_the_worker_says_what_its_machine_is(tmp_path: Path) -> None:
    async with pair(tmp_path, slots=3) as (chief, _):
        assert chief.machine is not None
        assert (chief.machine.name, chief.machine.slots) == ("w", 3)
        assert chief.machine.isolation == "bubblewrap" and chief.machine.memory_bytes > 1 << 28


CRASH = package(
    "import os, signal\n"
    "def process(fragment):\n"
    "    print('at', fragment)\n"
    "    if fragment == 'boom':\n"
    "        os.kill(os.getpid(), signal.SIGSEGV)\n"
    "    if fragment == 'leave':\n"
    "        os._exit(7)\n"
    "    return fragment\n"
)
LOOP = package("def process(fragment):\n    while fragment == 'loop':\n        pass\n    return fragment\n")


async def test_a_crash_names_the_guilty_fragment_and_the_batch_ahead_runs_all_the_same(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief, CRASH)
        await chief.run(1, ["a", "b", "boom", "c"], first=10)
        await chief.run(2, ["d"], first=14)
        said = await chief.wait_for(m.Failed)
        failed = said.message
        assert isinstance(failed, m.Failed)
        assert (failed.token, failed.index, failed.cause) == (1, 12, "crashed")
        assert failed.signal == 11
        tail, preview = said.items()
        assert b"at boom" in tail and preview == b"'boom'"
        assert await chief.outcome(2) == ["d"]


TINY = package(
    "import os, signal, sys, time\n"
    "def process(fragment):\n"
    "    if fragment == 'boom':\n"
    "        os.kill(os.getpid(), signal.SIGSEGV)\n"
    "    if fragment == 'loop':\n"
    "        time.sleep(60)\n"
    "    if fragment == 'once' and sys._getframe(1).f_code.co_name == '_run_span':\n"
    "        os._exit(3)\n"
    "    return fragment\n"
)


@pytest.mark.parametrize(("bad", "cause"), [("boom", "crashed"), ("loop", "time-limit")])
async def test_the_guilty_one_of_thousands_of_tiny_fragments_is_named(tmp_path: Path, bad: str, cause: str) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief, TINY, time_limit_ms=700)
        await chief.run(1, [*range(30_000), bad, *range(30)], first=10)
        failed = (await chief.wait_for(m.Failed)).message
        assert isinstance(failed, m.Failed)
        assert (failed.token, failed.index, failed.cause) == (1, 30_010, cause)


async def test_tiny_fragments_whose_child_died_among_them_are_run_again_one_by_one(tmp_path: Path) -> None:
    large = encode_value(bytes(40_000))  # so that some parts are out before it dies
    values = [*[bytes(40_000)] * 60, *range(20_000), "once", *range(50)]
    assert len(large) * 60 > 1 << 20
    async with pair(tmp_path) as (chief, _):
        await begin(chief, TINY)
        await chief.run(1, values, first=10)
        assert await chief.outcome(1) == values


async def test_a_module_that_ends_its_process_fails_with_its_exit_code(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief, CRASH)
        await chief.run(1, ["leave"])
        failed = (await chief.wait_for(m.Failed)).message
        assert isinstance(failed, m.Failed)
        assert (failed.index, failed.cause, failed.exit_code) == (0, "exited", 7)


async def test_a_fragment_past_its_time_limit_is_killed_and_named(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief, LOOP, time_limit_ms=300)
        await chief.run(1, ["a", "loop"], first=5)
        failed = (await chief.wait_for(m.Failed)).message
        assert isinstance(failed, m.Failed)
        assert (failed.index, failed.cause) == (6, "time-limit")
        await chief.run(2, ["b"])
        assert await chief.outcome(2) == ["b"]


async def test_limits_that_change_hold_from_the_next_batch_on(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief, LOOP, time_limit_ms=60_000)
        await chief.run(1, ["a"])
        assert await chief.outcome(1) == ["a"]  # its child is warm, and runs under the old limit
        await chief.give_job(LOOP, time_limit_ms=300)
        await chief.run(2, ["b", "loop"])
        failed = (await chief.wait_for(m.Failed)).message
        assert isinstance(failed, m.Failed)
        assert (failed.index, failed.cause) == (1, "time-limit")
        await chief.give_job(LOOP, time_limit_ms=60_000)
        await chief.run(3, ["c"])
        assert await chief.outcome(3) == ["c"]


async def test_a_cancelled_batch_dies_at_once_and_says_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, worker):
        await begin(chief, LOOP)
        await chief.run(1, ["loop"])
        await chief.run(2, ["a"])
        await worker.wait_until(lambda state: [h[4] for h in state.held()] == ["running", "queued"])
        await trio.testing.wait_all_tasks_blocked(0.05)  # the second batch is in the child's pipe by now
        await chief.send(m.Cancel(1, "job-cancelled"))
        assert await chief.outcome(2) == ["a"]
        assert not [s for s in chief.inbox if getattr(s.message, "token", None) == 1]


async def test_the_end_of_a_job_kills_what_runs_of_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief, LOOP, job="old")
        await chief.run(1, ["loop"], job="old")
        await chief.send(m.JobOver("old", "cancelled"))
        await chief.give_job(LOOP, job="new")  # the same processor is not asked for again
        await chief.run(2, ["a"], job="new")
        assert await chief.outcome(2) == ["a"]
        assert len([s for s in chief.inbox if isinstance(s.message, m.NeedProcessor)]) == 1


async def test_an_exception_is_a_result_and_its_neighbours_are_kept(tmp_path: Path) -> None:
    what = package("def process(fragment):\n    return 1 / fragment\n")
    async with pair(tmp_path) as (chief, _):
        await begin(chief, what)
        await chief.run(1, [1, 0, 2])
        said = await chief.wait_for(m.Outcome)
        status, _, _, *results = said.items()
        assert status == b"\0\1\0" and [decode_value(r) for r in (results[0], results[2])] == [1.0, 0.5]
        assert decode_value(results[1])["type"] == "ZeroDivisionError"


async def test_a_package_that_cannot_be_imported_fails_as_load_failed_with_traceback(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief, package("import nothing_of_this_name\ndef process(f): return f\n"))
        await chief.run(1, [1, 2], first=3)
        failed = (await chief.wait_for(m.Failed)).message
        assert isinstance(failed, m.Failed)
        assert (failed.index, failed.cause, failed.exc_type) == (3, "load-failed", "ModuleNotFoundError")
        assert "nothing_of_this_name" in failed.traceback


async def test_results_made_while_the_chief_is_away_are_handed_over_on_resume(tmp_path: Path) -> None:
    what = package("import time\ndef process(fragment):\n    time.sleep(0.4)\n    return fragment\n")
    async with pair(tmp_path) as (chief, _):
        await begin(chief, what)
        await chief.run(1, ["x"], first=3)
        await chief.run(2, ["y"], first=4)
        await (await chief.wait_channel()).aclose()
        await chief.wait_gone()
        await chief.wait_channel()
        assert chief.resumes == 2
        assert sorted(h[:4] for h in chief.held) == [(1, "job", 3, 1), (2, "job", 4, 1)]
        assert await chief.outcome(1) == ["x"]
        assert await chief.outcome(2) == ["y"]


async def test_an_outcome_without_acknowledgement_is_sent_again_on_the_next_channel(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, worker):
        chief.ack = False
        await begin(chief)
        await chief.run(1, [1, 2, 3], first=9)
        assert await chief.outcome(1) == [1, 2, 3]
        await (await chief.wait_channel()).aclose()
        await chief.wait_gone()
        chief.ack = True
        await chief.wait_channel()
        assert chief.held == ((1, "job", 9, 3, "done"),)
        assert await chief.outcome(1) == [1, 2, 3]
        await chief.run(2, [4], first=12)  # behind the acknowledgement
        assert await chief.outcome(2) == [4]
        assert worker.held() == () or worker.held()[0][0] == 2


async def test_a_lease_that_a_resume_drops_is_killed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, worker):
        await begin(chief, LOOP)
        await chief.run(1, ["loop"])
        await worker.wait_until(lambda state: state.held() == ((1, "job", 0, 1, "running"),))
        chief.keep = ()
        await (await chief.wait_channel()).aclose()
        await chief.wait_gone()
        await chief.wait_channel()
        await chief.run(2, ["a"])
        assert await chief.outcome(2) == ["a"]


async def test_a_chief_that_answers_no_heartbeat_is_dialled_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        chief.is_mute = True
        await chief.wait_gone()
        chief.is_mute = False
        await chief.wait_channel()
        assert chief.resumes == 2


async def test_a_chief_that_comes_back_on_its_port_gets_its_worker_back(tmp_path: Path) -> None:
    first, second = ScriptedChief(), ScriptedChief()
    async with serving(first) as address:
        port = int(address.rpartition(":")[2])
    async with working(tmp_path, first, address):
        async with serving(first, port):
            await first.wait_channel()
        async with serving(second, port):
            await second.wait_channel()
            await begin(second)
            await second.run(1, [1])
            assert await second.outcome(1) == [1]


async def test_a_spoilt_signature_blocks_the_job(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        what = package("def process(f): return f\n", spoil=True)
        await begin(chief, what)
        blocked = (await chief.wait_for(m.JobBlocked)).message
        assert isinstance(blocked, m.JobBlocked)
        assert (blocked.job, blocked.code_word) == ("job", "bad-signature")
        await chief.run(1, [1])
        assert (await chief.wait_for(m.Recalled)).message == m.Recalled(1, True)


async def test_an_owner_may_insist_on_a_clients_own_signature(tmp_path: Path) -> None:
    async with pair(tmp_path, require_client_signature=True) as (chief, _):
        await begin(chief)
        assert (await chief.wait_for(m.JobBlocked)).message.code_word == "signer-not-trusted"  # type: ignore[attr-defined]
        own = package("def process(f): return f + 1\n", signer=Identity(b"c" * 32), signed_for="")
        await begin(chief, own, job="own")
        await chief.run(1, [1], job="own")
        assert await chief.outcome(1) == [2]


async def test_a_processor_survives_a_restart_of_the_worker(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief)
        await chief.run(1, [1])
        await chief.outcome(1)
    async with pair(tmp_path) as (chief, _):
        await chief.give_job(IDENTITY)
        await chief.run(1, [2])
        assert await chief.outcome(1) == [2]
        assert not [s for s in chief.inbox if isinstance(s.message, m.NeedProcessor)]


async def test_a_missing_requirement_blocks_the_job_by_name(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await chief.give_job(package("def process(f): return f\n", requirements="no-such-distribution>=2"))
        blocked = (await chief.wait_for(m.JobBlocked)).message
        assert isinstance(blocked, m.JobBlocked)
        assert blocked.code_word == "requirements-not-allowed" and "no-such-distribution" in blocked.text


async def test_a_batch_ahead_can_be_recalled_and_a_running_one_cannot(tmp_path: Path) -> None:
    what = package("import time\ndef process(fragment):\n    time.sleep(0.5)\n    return fragment\n")
    async with pair(tmp_path) as (chief, worker):
        await begin(chief, what)
        await chief.run(1, ["a"], first=0)
        await chief.run(2, ["b"], first=1)
        await worker.wait_until(lambda state: [h[4] for h in state.held()] == ["running", "queued"])
        await chief.send(m.Recall(1))
        await chief.send(m.Recall(2))
        assert (await chief.wait_for(m.Recalled)).message == m.Recalled(1, False)
        assert (await chief.wait_for(m.Recalled)).message == m.Recalled(2, True)
        assert await chief.outcome(1) == ["a"]
        await chief.run(3, ["c"], first=2)
        assert await chief.outcome(3) == ["c"]
        assert not [s for s in chief.inbox if isinstance(s.message, m.Outcome) and s.message.token == 2]


async def test_large_fragments_and_results_travel_by_the_bulk_channel(tmp_path: Path) -> None:
    from tests.support.scripted_chief import blake

    big = bytes(range(256)) * (5 << 12)  # 5 MiB
    async with pair(tmp_path) as (chief, worker):
        await begin(chief)
        packed = encode_value(big)
        chief.blobs[(1, 8)] = packed
        await chief.send(m.Run(1, 0, "job", 7, 3, 1, ((1, len(packed), blake(packed)),)), [encode_value("a"), b"", encode_value("b")])
        outcomes: list[m.Outcome] = []
        sizes: list[int] = []
        while sum(o.count for o in outcomes) < 3:
            said = await chief.wait_for(m.Outcome)
            assert isinstance(said.message, m.Outcome)
            outcomes.append(said.message)
            sizes += [len(item) for item in said.items()[3:]]
        assert [(o.first + b[0], b[1:]) for o in outcomes for b in o.blobs] == [(8, (len(packed), blake(packed)))]
        assert sizes == [len(encode_value("a")), 0, len(encode_value("b"))]
        assert chief.kept == {(1, 8): packed}
        await worker.wait_until(lambda state: state.is_idle())
        assert not list((tmp_path / "workers/w/scratch").glob("blob-*"))


async def test_a_blob_that_is_not_what_was_announced_is_given_back(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief)
        chief.blobs[(1, 0)] = b"x" * 10
        await chief.send(m.Run(1, 0, "job", 0, 1, 1, ((0, 10, bytes(32)),)), [b""])
        assert (await chief.wait_for(m.Recalled)).message == m.Recalled(1, True)


REPORTS = package(
    "from company import task\n"
    "def process(fragment):\n"
    "    task.status('half way', 0.5)\n"
    "    task.artifact('plot.txt', b'picture')\n"
    "    print('hello')\n"
    "    return fragment\n"
)


async def test_status_artifact_and_output_of_a_fragment_arrive(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief, REPORTS)
        await chief.run(1, ["x"], first=4)
        said = await chief.wait_for(m.Outcome)
        assert b"hello" in said.items()[2]
        by_kind = {type(s.message): s for s in chief.inbox}
        assert by_kind[m.Status].message == m.Status(1, "job", 4, "half way", 500)
        assert by_kind[m.Artifact].message == m.Artifact(1, "job", 4, "plot.txt", 0, True)
        assert by_kind[m.Artifact].items() == [b"picture"]
        kinds = [type(s.message) for s in chief.inbox]
        assert kinds.index(m.Artifact) < kinds.index(m.Outcome)


FORGER = package(
    "import os, struct, msgpack\n"
    "def process(fragment):\n"
    "    header = msgpack.packb([20, 999, 0, 1, True, 0, 0, 0, 0, []])\n"
    "    os.write(4, struct.pack('<IIQ', len(header), 4, 5) + header + struct.pack('<4I', 1, 4, 0, 0) + bytes(5))\n"
    "    return fragment\n"
)


async def test_a_child_that_forges_an_outcome_is_killed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief, FORGER)
        await chief.run(1, ["x"], first=4)
        failed = (await chief.wait_for(m.Failed)).message
        assert isinstance(failed, m.Failed)
        assert (failed.token, failed.index, failed.cause) == (1, 4, "garbage-on-pipe")
        assert not [s for s in chief.inbox if isinstance(s.message, m.Outcome)]


async def test_each_job_gets_a_child_of_its_own(tmp_path: Path) -> None:
    what = package("seen = []\ndef process(fragment):\n    seen.append(fragment)\n    return list(seen)\n")
    async with pair(tmp_path) as (chief, _):
        await begin(chief, what, job="one")
        await chief.give_job(what, job="two")
        await chief.run(1, ["a"], job="one")
        assert await chief.outcome(1) == [["a"]]
        await chief.run(2, ["b"], job="one")
        assert await chief.outcome(2) == [["a", "b"]]  # warm
        await chief.run(3, ["c"], job="two")
        assert await chief.outcome(3) == [["c"]]  # a fresh one


async def test_a_paused_worker_keeps_its_channel_and_gives_work_back(tmp_path: Path) -> None:
    async with pair(tmp_path) as (chief, _):
        await begin(chief)
        await chief.send(m.Drain(True))
        assert (await chief.wait_for(m.SlotState)).message.state == "paused"  # type: ignore[attr-defined]
        await chief.run(1, [1])
        assert (await chief.wait_for(m.Recalled)).message == m.Recalled(1, True)
        await chief.send(m.Undrain())
        await chief.run(2, [2])
        assert await chief.outcome(2) == [2]


async def test_a_drained_worker_finishes_says_goodbye_and_ends(tmp_path: Path) -> None:
    what = package("import time\ndef process(fragment):\n    time.sleep(0.3)\n    return fragment\n")
    chief = ScriptedChief()
    async with serving(chief) as address, working(tmp_path, chief, address):
        await begin(chief, what)
        await chief.run(1, ["a"])
        await chief.send(m.Drain(False))
        assert await chief.outcome(1) == ["a"]
        await chief.wait_for(m.Bye)
        await chief.wait_gone()


async def test_a_stopped_worker_gives_back_what_has_not_begun(tmp_path: Path) -> None:
    what = package("import time\ndef process(fragment):\n    time.sleep(0.3)\n    return fragment\n")
    async with pair(tmp_path) as (chief, worker):
        await begin(chief, what)
        await chief.run(1, ["a"], first=0)
        await chief.run(2, ["b"], first=1)
        await worker.wait_until(lambda state: [h[4] for h in state.held()] == ["running", "queued"])
        worker.stop(10)
        assert (await chief.wait_for(m.Recalled)).message == m.Recalled(2, True)
        assert await chief.outcome(1) == ["a"]
        await chief.wait_for(m.Bye)


async def test_a_worker_that_is_refused_for_good_ends_with_the_chiefs_reason(tmp_path: Path) -> None:
    chief = ScriptedChief(refuse=m.Refused("worker-removed", "you were removed", b""))
    with pytest.RaisesGroup(Refusal, flatten_subgroups=True, allow_unwrapped=True):
        async with serving(chief) as address, working(tmp_path, chief, address):
            await trio.sleep_forever()
