"""What is lent, when, to whom, and what others are told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from company.chief.network.advertising import Advertising
from company.chief.network.lending import (
    Facts,
    Policy,
    checked,
    idle_of,
    is_due,
    is_trusted,
    lendable,
    may_borrow,
    policy_as_json,
    policy_of_json,
    standing,
    what_they_get,
    who_may_ask,
)
from company.chief.network.questions import Question
from company.chief.network.schedule import parse_schedule
from company.chief.network.service import NetworkService
from p2p.base.clock import UnixTime
from p2p.base.errors import PeerError, UsageError
from p2p.base.keys import Identity, company_id_text
from p2p.dht.advertisement import Advertisement
from p2p.dht.directory import Published
from p2p.reputation.favours import Supply

NOW = UnixTime(1_700_000_000)
FACTS = Facts(
    arch="x86_64", pythons=("3.11",), rung="bubblewrap", slots=20, idle=12, machines=5, cores=20, memory_mib=2048, speed=900,
    endpoints=(("203.0.113.9", 8468),), relays=(), minute_of_week=0, now=NOW,
)  # fmt: skip


def at(day: int, hour: int, minute: int = 0) -> int:
    return day * 1440 + hour * 60 + minute


def test_slots_and_machines_are_said_and_no_more_than_allowed_is_offered() -> None:
    said = standing(Policy(max_slots=8), FACTS)
    assert said.text == "8 slots on 5 machines are offered."
    (offer,) = said.advertisements
    assert (offer.capability, offer.slots, offer.speed) == ("spare/v1/x86_64/py3.11/bubblewrap", 8, 900)
    assert standing(Policy(max_slots=50), FACTS).advertisements[0].slots == 12  # what is idle


def test_what_the_control_of_supply_keeps_back_is_neither_offered_nor_said_to_be_idle() -> None:
    half = replace(FACTS, supply=Supply(offered=0.5))
    said = standing(Policy(max_slots=10), half)
    assert said.text == "5 slots on 5 machines are offered." and said.advertisements[0].slots == 5
    assert lendable(Policy(max_slots=10), half) == 5 and lendable(Policy(max_slots=1), half) == 1
    assert [idle_of(Policy(max_slots=10), replace(half, promised=n)) for n in (0, 3, 5, 9)] == [5, 2, 0, 0]
    assert idle_of(Policy(max_slots=10), replace(FACTS, idle=4)) == 4


def test_an_owner_reads_who_may_ask_and_what_they_get() -> None:
    open_to_all = Policy(max_slots=2)
    assert "also one of which nothing is known" in who_may_ask(open_to_all)
    assert "at least 0.3" in who_may_ask(Policy(max_slots=2, min_trust_permille=300))
    assert who_may_ask(Policy(max_slots=2, only_to=("co-aaaaaaaaaaaaaaaa",))) == "only the companies that are named"
    gives = what_they_get(open_to_all, standing(open_to_all, FACTS))
    assert "up to 2048 MiB" in gives and "no favours asked" in gives
    assert "2 favours per core-second" in what_they_get(Policy(max_slots=2, price_milli=2000), standing(None, FACTS))


@pytest.mark.parametrize(
    ("policy", "facts", "code"),
    [
        (None, FACTS, "not-lending"),
        (Policy(max_slots=1, until=NOW), FACTS, "lending-over"),
        (Policy(max_slots=1, schedule="tue"), FACTS, "lending-off-schedule"),
        (Policy(max_slots=1), replace(FACTS, rung="landlock"), "lending-unsafe"),
        (Policy(max_slots=1), replace(FACTS, slots=0), "lending-no-slots"),
        (Policy(max_slots=1), replace(FACTS, endpoints=()), "lending-unreachable"),
    ],
)
def test_nothing_is_offered_that_may_not_be(policy: Policy | None, facts: Facts, code: str) -> None:
    said = standing(policy, facts)
    assert (said.code, said.advertisements) == (code, ())


@pytest.mark.parametrize(
    "policy",
    [
        Policy(max_slots=0), Policy(max_slots=1, until=NOW), Policy(max_slots=1, min_trust_permille=1001),
        Policy(max_slots=1, only_to=("lab",)), Policy(max_slots=1, schedule="whenever"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_meant_is_refused(policy: Policy) -> None:
    with pytest.raises(UsageError):
        checked(policy, NOW)


def test_a_policy_survives_the_database() -> None:
    policy = Policy(max_slots=3, until=UnixTime(NOW + 9), schedule="sat-sun", only_to=("co-aaaaaaaaaaaaaaaa",), price_milli=5)
    assert policy_of_json(policy_as_json(policy)) == policy


def test_only_those_who_are_named_may_borrow() -> None:
    named = Policy(max_slots=1, only_to=("co-aaaaaaaaaaaaaaaa",))
    assert may_borrow(named, "co-aaaaaaaaaaaaaaaa") and not may_borrow(named, "co-bbbbbbbbbbbbbbbb")
    assert may_borrow(Policy(max_slots=1), "co-bbbbbbbbbbbbbbbb") and not may_borrow(None, "co-bbbbbbbbbbbbbbbb")


def test_who_is_unknown_is_trusted_as_a_newcomer_and_nobody_below_the_bound() -> None:
    assert is_trusted(Policy(max_slots=1), None) and is_trusted(Policy(max_slots=1), 0.0)
    assert is_trusted(Policy(max_slots=1, min_trust_permille=50), None)
    assert not is_trusted(Policy(max_slots=1, min_trust_permille=51), None)
    asked = Policy(max_slots=1, min_trust_permille=600)
    assert is_trusted(asked, 0.6) and not is_trusted(asked, 0.599)


async def test_a_company_that_is_not_trusted_enough_is_told_so_and_has_no_slot() -> None:
    asker, trust = Identity(b"a" * 32), 0.3
    ground = SimpleNamespace(
        trust_of=lambda company: trust if company == company_id_text(asker.public) else None, identity=Identity(b"u" * 32),
        could_take=lambda company: 3 if company == asker.public else 0,
    )  # fmt: skip
    own = Advertising(cast(Any, ground), cast(Any, None), lambda: FACTS, True, policy=Policy(max_slots=4, min_trust_permille=400))
    own.standing = standing(own.policy, FACTS)
    question = Question(
        asker=asker.public, asked=b"u" * 32, nonce=b"n" * 16, capability="spare/v1/x86_64/py3.11/bubblewrap", slots=1, memory_mib=0,
        frame_s=0, created=NOW,
    )  # fmt: skip
    with pytest.raises(PeerError) as refused:
        own.answer(question)
    assert refused.value.code == "trust-too-low" and "0.4" in refused.value.text
    trust = 0.5
    assert own.answer(question).idle_slots == 4
    own.facts = lambda: replace(FACTS, promised=4)
    assert own.answer(question).idle_slots == 3  # everything is lent, but three would go back for this one
    own.policy = Policy(max_slots=4)
    assert own.answer(replace(question, asker=b"z" * 32)).idle_slots == 0


@pytest.mark.parametrize(("policy", "code"), [(Policy(max_slots=4), "lending-no-slots"), (None, "not-lending")])
async def test_an_offer_that_is_judged_before_the_first_look_does_not_hear_that_nothing_is_lent(policy: Policy | None, code: str) -> None:
    stored = policy_as_json(policy) if policy is not None else b""
    store = SimpleNamespace(read=lambda _: trio.to_thread.run_sync(lambda: stored))
    own = Advertising(cast(Any, None), cast(Any, store), lambda: FACTS, True)
    await own.load()
    assert own.standing.code == code


def test_a_number_of_slots_waits_a_little_and_other_terms_and_zero_do_not() -> None:
    (offer,) = standing(Policy(max_slots=20), FACTS).advertisements
    assert is_due(offer, None, 0) and not is_due(offer, offer, 1e6)
    assert not is_due(replace(offer, slots=5), offer, 29) and is_due(replace(offer, slots=5), offer, 30)
    assert is_due(replace(offer, slots=0), offer, 0) and is_due(replace(offer, price_milli=9), offer, 0)


async def test_a_worker_that_joins_is_offered_at_once(autojump_clock: trio.testing.MockClock) -> None:
    told: list[Advertisement] = []

    async def publish(offer: Advertisement) -> Published:
        told.append(offer)
        return Published(keys=1, stored=1)

    async def put(*_: object) -> Published:
        return Published(keys=1, stored=1)

    facts = [replace(FACTS, slots=0, idle=0, pythons=())]
    directory = SimpleNamespace(publish=publish, put=put)
    ground = SimpleNamespace(directory=directory, name="", endpoints=tuple, relays=(), identity=Identity(b"u" * 32))
    own = Advertising(cast(Any, ground), cast(Any, None), lambda: facts[0], True, policy=Policy(max_slots=4))
    parts: Any = dict.fromkeys(("finding", "asking", "outreach", "door", "relays", "tracker", "machines"))
    network = NetworkService(ground=cast(Any, ground), advertising=own, **parts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(own.run)
        await trio.sleep(0.5)
        assert own.standing.code == "lending-no-slots" and not told
        facts[0] = FACTS
        began = trio.current_time()
        network.poke("job", "j")
        await trio.testing.wait_all_tasks_blocked()
        assert not told  # a job's progress is no reason to look
        network.poke("worker", "w-1")
        await trio.testing.wait_all_tasks_blocked()
        assert [offer.slots for offer in told] == [4] and trio.current_time() == began
        nursery.cancel_scope.cancel()


def test_a_night_runs_past_midnight_and_past_the_week() -> None:
    nights = parse_schedule("mon-fri 18:00-08:00, sun 22:00-02:00")
    assert nights.is_on(at(0, 18)) and nights.is_on(at(1, 7, 59)) and not nights.is_on(at(1, 8))
    assert nights.is_on(at(5, 7)) and not nights.is_on(at(5, 18))  # Friday's night ends on Saturday
    assert nights.is_on(at(6, 23)) and nights.is_on(at(0, 1, 59)) and not nights.is_on(at(0, 2))
    assert nights.minutes_until_change(at(0, 17)) == 60


def test_whole_days_every_day_and_always() -> None:
    assert parse_schedule("sat-mon").is_on(at(0, 12)) and not parse_schedule("sat-mon").is_on(at(1, 0))
    assert all(parse_schedule("09:00-10:00").is_on(at(day, 9)) for day in range(7))
    assert parse_schedule("").is_on(5) and parse_schedule("").minutes_until_change(5) is None


@pytest.mark.parametrize("text", ["whenever", "mon-xyz", "25:00-26:00", "10:00-10:00", "mon 9-10", "mon,,tue", "mo" * 40, "09:60-10:00"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_schedule(text)
