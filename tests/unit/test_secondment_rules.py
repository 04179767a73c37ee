"""Tickets, places, trials, accounts: the pure rules of lent and borrowed workers."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgpack
import pytest
import trio

from company import messages as m
from company.chief.contracts.port import YARDSTICK, ContractView
from company.chief.network.contact import Contact
from company.chief.secondment import borrowing, worked
from company.chief.secondment.borrowing import Borrowing, row_of
from company.chief.secondment.counting import Account, unpack_account
from company.chief.secondment.door import Admitted, admit, is_over
from company.chief.secondment.foreign import Foreign
from company.chief.secondment.naming import guest_id, origin_of
from company.chief.secondment.placing import Place, Spare, places_for
from company.chief.secondment.trial import Answer, Trial
from company.chief.store import meta
from company.ticket import Ticket, open_ticket_untrusted, sign_ticket
from company.worker.guests import Guests
from p2p.base.clock import Monotonic, UnixTime
from p2p.base.errors import MalformedMessage, PeerError
from p2p.base.keys import Identity, company_id_text
from p2p.contracts.table import State
from p2p.contracts.terms import Facts, Role
from p2p.reputation.checking import Policy
from tests.support.fake_contracts import FakeContracts, terms

LENDER, BORROWER, WORKER = Identity(b"l" * 32), Identity(b"b" * 32), Identity(b"w" * 32)
NET, CONTRACT, NOW = b"n" * 16, b"c" * 32, UnixTime(1_790_000_000)
MACHINE = m.Machine("guest", 2, 2, 1, "3.11", "Linux", "bubblewrap", False, None, None, "0")


def ticket(**changed: object) -> Ticket:
    made = Ticket(
        LENDER.public, WORKER.public, CONTRACT, BORROWER.public, (("127.0.0.1", 1),), (), 2, 60, bytes(32), 512, 16, 600, 60, 1, NOW,
        NOW + 60,
    )  # fmt: skip
    return replace(made, **changed)  # type: ignore[arg-type]


def guest(made: Ticket, signer: Identity = LENDER) -> m.Guest:
    return m.Guest(LENDER.public, *sign_ticket(signer, NET, made), ())


def view(**changed: object) -> ContractView:
    made = ContractView(
        id=CONTRACT, role=Role.BORROWER, state=State.ACTIVE, peer=LENDER.public, contact=Contact(key=LENDER.public), slots=2, revision=0,
        terms=terms(slots=2), may_work=True, why="", ends_at=Monotonic(1e9), drain_until=Monotonic(0),
    )  # fmt: skip
    return replace(made, **changed)  # type: ignore[arg-type]


def knock(message: m.Guest, *, key: Identity = WORKER, here: tuple[Admitted, ...] = (), **changed: object) -> Admitted:
    contracts = FakeContracts(folder=None)  # type: ignore[arg-type]
    contracts.views[CONTRACT] = view(**changed)
    return admit(message, MACHINE, key.public, own=BORROWER.public, network_id=NET, contracts=contracts, here=here, is_trusted=False)


def test_a_ticket_admits_the_worker_that_the_lender_named() -> None:
    found = knock(guest(ticket()))
    assert (found.spec.slots, found.spec.memory_bytes) == (2, 512 << 20)
    assert found.spec.origin == company_id_text(LENDER.public) == origin_of(found.spec.id)
    assert found.spec.id == guest_id(LENDER.public, CONTRACT, WORKER.public)


@pytest.mark.parametrize(
    ("message", "more", "code"),
    [
        (guest(ticket()), {"key": Identity(b"x" * 32)}, "ticket-refused"),  # stolen: shown by another key
        (guest(ticket(borrower=bytes(32))), {}, "ticket-refused"),
        (guest(ticket(processor=b"p" * 32)), {}, "ticket-refused"),
        (guest(ticket(), Identity(b"x" * 32)), {}, "bad-signature"),
        (guest(ticket(lender=WORKER.public)), {}, "malformed-message"),
        (guest(ticket(contract=b"d" * 32)), {}, "contract-unknown"),
        (guest(ticket()), {"peer": BORROWER.public}, "contract-unknown"),
        (guest(ticket()), {"role": Role.LENDER}, "contract-unknown"),
        (guest(ticket()), {"state": State.REVOKING}, "contract-over"),
        (guest(ticket()), {"slots": 1}, "slots-exceeded"),
    ],
)
def test_a_ticket_admits_nobody_else(message: m.Guest, more: dict[str, object], code: str) -> None:
    with pytest.raises(PeerError) as refused:
        knock(message, **more)  # type: ignore[arg-type]
    assert refused.value.code == code


@pytest.mark.parametrize("state", list(State))
def test_guests_of_a_contract_go_once_it_was_in_force_and_not_before(state: State) -> None:
    begun = state not in (State.DRAFT, State.OFFERED, State.ACCEPTED)
    assert is_over(view(state=state)) is (begun and state not in (State.ACTIVE, State.AMENDING, State.SUSPECT))


def test_slots_of_a_contract_are_counted_over_its_workers_and_a_worker_that_comes_back_counts_once() -> None:
    first = knock(guest(ticket()))
    other = Identity(b"o" * 32)
    with pytest.raises(PeerError, match="2 slots were agreed on"):
        knock(guest(ticket(worker=other.public)), key=other, here=(first,))
    assert knock(guest(ticket()), here=(first,)).spec.id == first.spec.id


@pytest.mark.parametrize("created", [0, NOW - 86_400, NOW + 7500, NOW + 10**9])
def test_a_ticket_is_good_while_its_contract_is_whatever_either_calendar_says(created: int) -> None:
    message = guest(ticket(created=created, expires=created + 60))
    assert knock(message).ticket.created == created
    with pytest.raises(PeerError, match="is revoking"):
        knock(message, state=State.REVOKING)


def test_a_ticket_of_another_network_or_lender_is_none() -> None:
    body, signature = sign_ticket(LENDER, NET, ticket())
    assert open_ticket_untrusted(LENDER.public, NET, body, signature) == ticket()
    for lender, network in ((LENDER.public, b"o" * 16), (Identity(b"o" * 32).public, NET)):
        with pytest.raises(MalformedMessage):
            open_ticket_untrusted(lender, network, body, signature)


def test_slots_come_from_the_idlest_workers_that_confine_strangers() -> None:
    workers = [Spare("a", "bubblewrap", 2, 0), Spare("b", "bubblewrap", 4, 3), Spare("c", "landlock", 8, 8), Spare("d", "bubblewrap", 1, 1)]
    assert places_for(6, workers) == [Place("b", 4), Place("d", 1), Place("a", 1)]
    assert places_for(9, workers) == [Place("b", 4), Place("d", 1), Place("a", 2)]  # fewer when there are no more
    assert places_for(0, workers) == []


# ---- trials ------------------------------------------------------------------------------------------------------------------
def trial(seed: int = 1, **policy: float) -> Trial:
    return Trial(Policy(**policy), random.Random(seed))  # type: ignore[arg-type]


def feed(tried: Trial, fragments: int, first: int = 0) -> None:
    for at in range(first, first + fragments, 20):
        checks, spare = tried.choose(20)
        tried.add([Answer(at + k, b"", b"") for k in checks], [Answer(at + k, b"", b"") for k in spare])


def test_nothing_is_believed_before_enough_checks_were_passed() -> None:
    tried = trial()
    assert tried.needed == 20
    feed(tried, 1000)
    passed = 0
    while tried.next_check() is not None:
        assert not tried.is_clear
        tried.is_passed()
        passed += 1
    assert tried.is_clear
    assert passed >= tried.needed
    assert 60 <= passed <= 140  # a tenth of a thousand


def test_choosing_costs_by_what_is_chosen_and_not_by_fragment() -> None:
    tried = trial()
    drawn = 0
    draw = tried._rng.random

    def counted() -> float:
        nonlocal drawn
        drawn += 1
        return draw()

    tried._rng.random = counted  # type: ignore[method-assign]
    checks, spare = tried.choose(100_000)
    assert 9_500 <= len(checks) <= 10_500 and tried.needed <= len(spare) <= 15 * tried.needed
    assert not set(checks) & set(spare) and checks == sorted(set(checks)) and spare == sorted(set(spare)) and spare[-1] < 100_000
    assert drawn <= len(checks) + 2 * len(spare) + 10


def test_a_short_jobs_answers_are_all_checked_and_then_believed() -> None:
    tried = trial()
    for n in range(7):
        checks, spare = tried.choose(1)
        tried.add([Answer(n, b"", b"")] * len(checks), [Answer(n, b"", b"")] * len(spare))
    seen = set()
    while (answer := tried.next_check()) is not None:
        seen.add(answer.fragment)
        tried.is_passed()
    assert seen == set(range(7))
    assert tried.is_clear


def test_every_answer_is_as_likely_to_be_checked_as_any_other() -> None:
    times = [0] * 100
    for seed in range(400):
        tried = trial(seed)
        feed(tried, 100)
        while (answer := tried.next_check()) is not None:
            times[answer.fragment] += 1
            tried.is_passed()
    total = sum(times)
    assert max(times) < 1.8 * total / 100, "some answers are checked far more often than others"
    assert min(times) > 0.4 * total / 100


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
def test_a_company_that_cheats_is_seen_and_gets_nothing_believed_any_more(share: float) -> None:
    rng = random.Random(5)
    caught = 0
    for seed in range(40):
        tried = trial(seed)
        wrong = {n for n in range(2000) if rng.random() < share}
        for at in range(0, 2000, 20):
            feed(tried, 20, at)
            while not tried.is_caught and (answer := tried.next_check()) is not None:
                if answer.fragment in wrong:
                    tried.is_failed()
                else:
                    tried.is_passed()
        caught += tried.is_caught
        assert not (tried.is_caught and tried.is_clear)
    assert caught == 40


def test_a_company_that_is_trusted_is_checked_less_and_never_less_than_the_least() -> None:
    tried = Trial(Policy(), random.Random(1), passed=50.0)
    assert tried.policy.check_rate(tried.passed) == pytest.approx(0.04)
    checks = [len(tried.choose(1000)[0]) for _ in range(10)]
    assert 300 <= sum(checks) <= 500


def test_a_guests_last_report_is_said_on_every_channel_until_the_own_chief_has_it(tmp_path: Path) -> None:
    sandbox, nursery = SimpleNamespace(is_for_strangers=True, rung="bubblewrap"), SimpleNamespace(start_soon=lambda *_: None)
    told: list[Any] = []
    guests = Guests(
        identity=WORKER, chief_key=LENDER.public, slots=2, sandbox=cast(Any, sandbox), scratch=tmp_path, machine=lambda: MACHINE,
        tell=told.append, nursery=cast(Any, nursery), rng=random.Random(1),
    )  # fmt: skip
    guests.on_message(m.Second(NET, *sign_ticket(LENDER, NET, ticket()), 0))
    run = guests.runs.pop(CONTRACT)
    run.report()
    run.state = "over"
    guests.on_down()
    run.report()  # nobody hears it: the own chief was killed
    (*_, last) = told
    told.clear()
    guests.on_up()
    guests.on_up()
    assert told == [last, last] and last.state == "over"
    told.clear()
    guests.on_message(m.Unsecond(CONTRACT, 0, "contract-over"))
    assert [(x.state, x.run == last.run) for x in told] == [("over", True), ("over", False)], (
        "its counts come before: it knows of nothing more"
    )
    guests.on_message(m.SecondedHeard(CONTRACT, last.serial, last.run))
    told.clear()
    guests.on_up()
    assert not told
    for number in range(300):
        guests._told(replace(last, run=number))
    assert len(guests.last) == 256


def test_a_worker_is_told_its_share_of_the_bandwidth_with_the_ticket_and_may_be_told_another(tmp_path: Path) -> None:
    sandbox, nursery = SimpleNamespace(is_for_strangers=True, rung="bubblewrap"), SimpleNamespace(start_soon=lambda *_: None)
    guests = Guests(
        identity=WORKER, chief_key=LENDER.public, slots=2, sandbox=cast(Any, sandbox), scratch=tmp_path, machine=lambda: MACHINE,
        tell=lambda _: None, nursery=cast(Any, nursery), rng=random.Random(1),
    )  # fmt: skip
    signed = sign_ticket(LENDER, NET, ticket())
    assert guests.on_message(m.Second(NET, *signed, 250_000))
    run = guests.runs[CONTRACT]
    assert run.pace.bytes_per_s == 250_000
    guests.on_message(m.Second(NET, *signed, 0))
    assert guests.runs[CONTRACT] is run and run.pace.bytes_per_s == 0


# ---- results and accounts ---------------------------------------------------------------------------------------------------
def test_a_foreign_result_is_hidden_until_its_company_is_believed() -> None:
    foreign = Foreign()
    foreign.came("co-a", [(0, 10)])
    foreign.came("co-b", [(20, 5)])
    assert foreign.is_open
    assert foreign.shown(5, 20) == [(10, 10)]
    assert foreign.believe("co-a") == 10
    assert foreign.shown(0, 25) == [(0, 20)]
    assert (foreign.of("co-a"), foreign.of("co-b"), foreign.waiting) == (10, 5, 5)
    assert foreign.believe("co-b") == 5
    assert not foreign.is_open


def came(account: Account, token: int, first: int, fragments: int, run_us: int, size: int, *, elapsed_us: float = 1e9) -> None:
    """One part arrives and is on disk at once."""
    account.on_disk(account.came(token, first, fragments, run_us, size, elapsed_us=elapsed_us, is_live=lambda token: True))


def test_what_is_counted_is_on_disk_once_and_took_no_longer_than_it_can_have() -> None:
    account = Account(Facts(10, 100, 1000))
    total = account.came(7, 0, 20, 900_000, 64, elapsed_us=2e6, is_live=lambda token: True)
    assert account.facts == (10, 100, 1000), "not on disk yet"
    account.on_disk(total)
    assert account.facts == (30, 1000, 1064)
    came(account, 7, 0, 20, 900_000, 64)  # the same part again, over another channel
    assert account.facts == (30, 1000, 1064)
    came(account, 8, 5, 1, 10**12, 1, elapsed_us=5e6)  # a lender that boasts
    assert account.facts == (31, 1000 + 5000, 1065)
    came(account, 8, 6, 1, 10**12, 1, elapsed_us=5e6)  # and again within the same batch
    assert account.facts == (32, 1000 + 5000, 1066)


def test_beside_what_was_measured_stands_what_own_workers_would_have_taken() -> None:
    account = Account(Facts(0, 0, 0))
    assert account.own_core_ms is None
    account.came(7, 0, 10, 900_000, 64, elapsed_us=2e6, is_live=lambda token: True)  # own workers have run none yet: as measured
    assert account.own_core_ms == 90
    account.came(7, 10, 30, 900_000, 64, elapsed_us=2e6, is_live=lambda token: True, own_us=10_000)
    account.came(7, 10, 30, 900_000, 64, elapsed_us=2e6, is_live=lambda token: True, own_us=10_000)  # again
    assert account.own_core_ms == (900 + 300) / 40
    assert unpack_account(account.pack(), Facts(0, 0, 0)).own_core_ms == account.own_core_ms
    older = msgpack.packb([30, 1000, 1064, 3, 1, []])
    assert unpack_account(older, Facts(0, 0, 0)).own_core_ms == 1000 / 30, "an earlier version wrote none: as measured"


def test_a_contract_keeps_as_many_leases_as_live() -> None:
    account = Account(Facts(0, 0, 0))
    for token in range(1000):
        account.came(token, 0, 1, 1, 1, elapsed_us=1e6, is_live=set(range(token - 4, token + 1)).__contains__)
    assert len(account.tokens) < 50


def test_what_was_counted_survives_the_borrowers_chief_also_where_nobody_acknowledged_it_yet() -> None:
    account = Account(Facts(10, 100, 1000))
    account.came(7, 0, 20, 900_000, 64, elapsed_us=2e6, is_live=lambda token: True)
    account.passed, account.failed = 3, 1
    packed = account.pack()  # written in one transaction with the outcome itself
    again = unpack_account(packed, Facts(10, 100, 1000))
    assert (again.facts, again.passed, again.failed) == ((30, 1000, 1064), 3, 1)
    came(again, 7, 0, 20, 900_000, 64)  # the guest did not hear of it and says it again
    assert again.facts == (30, 1000, 1064)
    assert unpack_account(packed, Facts(40, 2000, 2000)).facts == (40, 2000, 2000), "never less than is co-signed"
    assert unpack_account(None, Facts(40, 2000, 2000)).facts == (40, 2000, 2000)
    older = msgpack.packb([30, 1000, 1064, 3, 1])
    assert unpack_account(older, Facts(0, 0, 0)).facts == (30, 1000, 1064), "what an earlier version wrote"


class Disk:
    """A committer that holds what it is given, and an engine that takes every outcome."""

    def __init__(self) -> None:
        self.groups: list[tuple[list[Any], Any]] = []
        self.rows: dict[str, bytes] = {}

    def add(self, *, pieces: object = (), ops: Any = (), then: Any = None) -> None:
        self.groups.append((list(ops), then))

    def commit(self, groups: int) -> None:
        """So many of what was handed over is on disk and said."""
        for ops, then in self.groups[:groups]:
            for op in ops:
                op(self)
            if then is not None:
                then()
        del self.groups[:groups]


def test_a_guests_outcome_and_its_count_reach_the_disk_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A borrower killed right after it acknowledged has counted what it acknowledged."""
    disk = Disk()
    monkeypatch.setattr(meta, "put", lambda conn, key, value: conn.rows.update({key: value}))
    lease = SimpleNamespace(worker="g-1", job="j", first=0, count=40, granted_at=-100.0)
    told: list[m.Ack] = []

    def post_outcome(worker: str, message: m.Outcome, frame: object, cut: object, counted: Any = None) -> None:
        op, then = counted() if counted is not None else (None, None)
        disk.add(ops=[op] if op else [], then=lambda: told.append(m.Ack(((message.token, message.first),))))
        disk.add(then=then)

    state = SimpleNamespace(
        boot=0, leases=SimpleNamespace(get=lambda token: lease if token == 7 else None),
        jobs={"j": SimpleNamespace(own=(4, 20_000))},
    )  # fmt: skip
    guest = SimpleNamespace(origin="co-b")
    found = SimpleNamespace(
        spec=SimpleNamespace(guest=guest), ticket=SimpleNamespace(contract=b"c" * 32),
        view=SimpleNamespace(terms=terms(), ends_at=1e9),
    )  # fmt: skip
    idle = SimpleNamespace(take=lambda *_: lambda: None, is_behind=lambda *_: False)
    engine = SimpleNamespace(state=state, post_outcome=post_outcome, runtimes={"j": SimpleNamespace(guests={})})
    nobody = cast(Any, None)
    made = Borrowing(
        own=b"o" * 32, network_id=b"n" * 16, contracts=nobody, engine=cast(Any, engine), sessions=nobody, checking=cast(Any, idle),
        store=nobody, committer=cast(Any, disk), is_trusted=lambda key: True,
    )  # fmt: skip
    account = made.accounts[b"c" * 32] = Account(Facts(0, 0, 0))
    monkeypatch.setattr(borrowing, "cut_outcome_untrusted", lambda message, frame: None)
    monkeypatch.setattr(trio, "current_time", lambda: 0.0)
    noted: list[tuple[str, str, str]] = []
    monkeypatch.setattr(worked, "note", lambda conn, job, guest, contract: noted.append((job, guest, contract)))
    for first in (0, 20):
        message = m.Outcome(7, "j", first, 20, False, 500_000, 0, 0, 0, (), b"")
        made._outcome("g-1", cast(Any, found), message, cast(Any, SimpleNamespace(body=b"x" * 64)))
    assert account.facts.fragments == 0
    disk.commit(1)
    assert len(told) == 1
    again = unpack_account(disk.rows[row_of(b"c" * 32)], Facts(0, 0, 0))
    assert again.facts == (20, 500, 64), "what was acknowledged is counted after a restart"
    disk.commit(3)
    assert (len(told), account.facts) == (2, (40, 1000, 128))
    measured: dict[bytes, float] = {}
    made.contracts = cast(Any, SimpleNamespace(measure=measured.__setitem__, state=lambda *_, **__: None))
    made.tell_account(b"c" * 32)
    disk.commit(1)
    assert measured == {b"c" * 32: 5.0}, "at what own workers took: 25 ms were measured"
    assert disk.rows[YARDSTICK + (b"c" * 32).hex()] == b"5.0"
    assert noted == [("j", "g-1", (b"c" * 32).hex())], "who worked for the job is written with its first results, once"
