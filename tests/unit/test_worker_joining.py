"""A token, a relay, and what is remembered: how a worker comes to its chief."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from company import messages as m
from company.paths import Home
from company.sandbox import Sandbox
from company.tokens import JoinToken, encode_token
from company.worker.dialling import open_relay
from company.worker.link import Refusal
from company.worker.options import Membership, WorkerOptions, load_membership, save_membership
from company.worker.relay import Relay
from company.worker.retry import Heartbeat, wait_before_attempt_s
from company.worker.service import Worker, run_worker, split_listen, wipe
from p2p.base.clock import Monotonic
from p2p.base.errors import PeerError, Unavailable, UsageError
from p2p.base.keys import Identity
from p2p.net.rpc import dial, serve_rpc
from tests.support.scripted_chief import SECRET, ScriptedChief, package, serving

NOBODY = "127.0.0.1:1"  # a reserved port on which nothing listens
WORKER, RELAY, STRANGER = Identity(b"W" * 32), Identity(b"R" * 32), Identity(b"X" * 32)


def token_of(chief: ScriptedChief, *addresses: str, secret: bytes = SECRET, key: bytes | None = None) -> str:
    return encode_token(
        JoinToken(addresses=addresses, chief_key=key or chief.identity.public, role="worker", expires=None, id="t1", secret=secret)
    )


@asynccontextmanager
async def relaying(*addresses: str, **options: int) -> AsyncIterator[tuple[str, Relay]]:
    relay = Relay(addresses, **options)
    async with trio.open_nursery() as nursery:
        serve = partial(serve_rpc, identity=RELAY, host="127.0.0.1", port=0, registry=m.MESSAGES, on_channel=relay.on_channel)
        yield await nursery.start(serve), relay
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def working(home: Path, **options: object) -> AsyncIterator[Worker]:
    settings = WorkerOptions(home=Home(home), name="w", slots=1, rpc="off", handle_signals=False, **options)  # type: ignore[arg-type]
    tree = settings.home.worker("w").create()
    wipe(tree.scratch)
    with trio.fail_after(40):
        async with Sandbox.open(home=tree.root) as sandbox, trio.open_nursery() as nursery:
            worker = Worker(settings, tree, WORKER, sandbox, Random(1))
            nursery.start_soon(worker.run)
            yield worker
            nursery.cancel_scope.cancel()


async def test_a_token_is_used_once_and_a_restart_needs_none(tmp_path: Path) -> None:
    chief = ScriptedChief()
    async with serving(chief) as address:
        async with working(tmp_path, token=token_of(chief, address)):
            await chief.wait_channel()
        assert [(j.token_id, j.secret, j.via) for j in chief.joins] == [("t1", SECRET, None)]
        kept = load_membership(tmp_path / "workers/w")
        assert kept is not None and (kept.worker, kept.supervisor, kept.addresses) == ("w-1", "co-1", (address,))
        await chief.wait_gone()
        async with working(tmp_path):
            await chief.wait_channel()
        await chief.wait_gone()
        assert len(chief.joins) == 1 and chief.resumes == 2
        async with working(tmp_path, token=token_of(chief, address)):  # the same line typed again: the chief knows the key
            await chief.wait_channel()
        assert len(chief.joins) == 2 and chief.resumes == 3
        await chief.wait_gone()
        chief.refuse = m.Refused("token-used-up", "used up", b"")
        async with working(tmp_path, token=token_of(chief, address)):  # an old member needs no token that still counts
            with trio.fail_after(10):
                while len(chief.joins) < 3:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            chief.refuse = None
            await chief.wait_channel()
        again = load_membership(tmp_path / "workers/w")
        assert again is not None and again.worker == "w-1"


async def test_a_refused_token_ends_the_worker_with_the_chiefs_code(tmp_path: Path) -> None:
    chief = ScriptedChief()
    with pytest.RaisesGroup(Refusal, flatten_subgroups=True, allow_unwrapped=True) as caught:
        async with serving(chief) as address, working(tmp_path, token=token_of(chief, address, secret=b"wrong" * 4)):
            await trio.sleep_forever()
    assert "no such token" in str(caught.value.exceptions)
    assert load_membership(tmp_path / "workers/w") is None


async def test_a_chief_with_another_key_learns_no_secret(tmp_path: Path) -> None:
    chief = ScriptedChief()
    with pytest.RaisesGroup(PeerError, flatten_subgroups=True, allow_unwrapped=True):
        async with serving(chief) as address, working(tmp_path, token=token_of(chief, address, key=STRANGER.public)):
            await trio.sleep_forever()
    assert chief.purposes == []


async def test_a_worker_that_was_removed_ends_with_one_plain_error(tmp_path: Path) -> None:
    chief = ScriptedChief(refuse=m.Refused("worker-removed", "you were removed", b""))
    errors: list[Refusal] = []
    async with serving(chief) as address:
        settings = WorkerOptions(home=Home(tmp_path), name="w", rpc="off", handle_signals=False, token=token_of(chief, address))
        try:
            with trio.fail_after(20):
                await run_worker(settings)
        except Refusal as error:
            errors.append(error)
    assert [(e.code, e.text) for e in errors] == [("worker-removed", "you were removed")]


async def test_a_worker_without_membership_or_token_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        await run_worker(WorkerOptions(home=Home(tmp_path), name="w", handle_signals=False))
    assert caught.value.code == "not-joined" and "join" in caught.value.hint


async def test_join_and_work_through_another_worker_when_the_chief_cannot_be_dialled(tmp_path: Path) -> None:
    chief = ScriptedChief()
    what = package("def process(f): return f * 2\n")
    async with serving(chief) as address, relaying(address) as (via, relay), working(tmp_path, token=token_of(chief, NOBODY), via=via):
        await chief.wait_channel()
        assert chief.joins[0].via == via
        assert relay.active == 1
        await chief.give_job(what)
        await chief.give_processor(what)
        await chief.run(1, list(range(1000)))
        assert await chief.outcome(1) == [2 * n for n in range(1000)]


async def test_a_relay_sees_nothing_of_the_secret(tmp_path: Path) -> None:
    """What the relay carries is TLS to the chief: a relay that is the chief's impostor fails at the key."""
    impostor = ScriptedChief(identity=STRANGER)
    chief = ScriptedChief()
    async with serving(impostor) as address, relaying(address) as (via, _):
        with pytest.RaisesGroup(PeerError, flatten_subgroups=True, allow_unwrapped=True):
            async with working(tmp_path, token=token_of(chief, NOBODY), via=via):
                await trio.sleep_forever()
    assert impostor.joins == []


async def test_a_relay_whose_chief_is_away_says_so() -> None:
    async with relaying(NOBODY) as (via, _):
        with pytest.raises(Unavailable) as caught:
            await open_relay(via, WORKER)
    assert caught.value.code == "chief-unreachable"


@pytest.mark.parametrize("purpose", ["worker", "bulk", "join", "client"])
async def test_nobody_can_give_a_worker_work_at_its_own_port(purpose: str) -> None:
    """Not a client, not its chief: work comes over the connection that the worker opened itself (P4)."""
    async with serving(ScriptedChief()) as address, relaying(address) as (via, relay):
        with trio.fail_after(10):
            channel = await dial(via, identity=STRANGER, expected_key=RELAY.public, purpose=purpose, registry=m.MESSAGES)
            answer, _ = await channel.receive()
            await channel.aclose()
        assert isinstance(answer, m.Refused) and answer.code_word == "not-a-chief"
        assert relay.active == 0


async def test_a_full_relay_says_so() -> None:
    async with serving(ScriptedChief()) as address, relaying(address, max_relays=0) as (via, _):
        with pytest.raises(Unavailable) as caught:
            await open_relay(via, WORKER)
    assert caught.value.code == "relay-full"


async def test_a_relay_ends_a_stream_at_its_byte_cap() -> None:
    async with serving(ScriptedChief()) as address, relaying(address, max_bytes=1000) as (via, _):
        stream = await open_relay(via, WORKER)
        await stream.send_all(b"x" * 2000)
        with trio.fail_after(5):
            while await stream.receive_some():
                pass
        await stream.aclose()


def test_back_off_doubles_with_jitter_up_to_five_seconds() -> None:
    rng = Random(7)
    waits = [wait_before_attempt_s(n, rng) for n in range(1, 12)]
    for n, wait in enumerate(waits, 1):
        ceiling = min(5.0, 0.2 * 2 ** (n - 1))
        assert ceiling / 2 <= wait <= ceiling
    assert len(set(waits)) == len(waits)


def test_three_silent_intervals_are_death_and_any_byte_is_life() -> None:
    heart = Heartbeat(2.0, Monotonic(0.0))
    assert not heart.is_ping_due(Monotonic(1.9))
    assert heart.is_ping_due(Monotonic(2.0)) and not heart.is_ping_due(Monotonic(2.0))
    assert not heart.is_dead(Monotonic(5.9))
    assert heart.next_deadline() == 4.0
    assert heart.is_dead(Monotonic(6.0))
    heart.on_heard(Monotonic(5.5))
    assert not heart.is_dead(Monotonic(11.4))


def test_membership_survives_and_damage_is_named(tmp_path: Path) -> None:
    made = Membership(chief_key=b"k" * 32, addresses=("a:1", "b:2"), worker="w-1", supervisor="co-1", via="v:3", extra={"token": "x"})
    save_membership(tmp_path, made)
    assert load_membership(tmp_path) == made
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0
    (tmp_path / "state.json").write_text('{"chief_key": 5}')
    with pytest.raises(UsageError) as caught:
        load_membership(tmp_path)
    assert caught.value.code == "worker-state-damaged"


def test_listen_addresses() -> None:
    assert split_listen("0.0.0.0:0") == ("0.0.0.0", 0)
    assert split_listen(":9000") == (None, 9000)
    assert split_listen("[::1]:0") == ("::1", 0)
    assert split_listen("127.0.0.1:80") == ("127.0.0.1", 80)
