"""Lending stays out of the owner's way: load, battery, caps, and no coming and going around a bound."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import trio
import trio.testing

from company import contract_views as cv
from company import views
from company.chief.contracts.service import ContractService
from company.chief.network.building import busy_workers, facts_of, silent_workers
from company.chief.network.idleness import QUIET_S, Owner, Owners
from company.chief.network.lending import RECLAIMED, Policy, Standing, most_slots, policy_as_json, policy_of_json, standing
from company.chief.network.lending import Facts as LendingFacts
from company.machine_reading import (
    MachineReader,
    OwnReader,
    _read_cpu_elsewhere,
    _read_processes_elsewhere,
    read_cpu,
    read_mains,
    read_processes,
    roots_of,
)
from company.machine_use import Cpu, Load, Machine
from company.own_use import OwnUse, Process, tree_of
from p2p.contracts.table import LIVE, State
from p2p.contracts.terms import Cause, Role
from p2p.reputation.favours import Favours, Supply
from tests.unit.test_chief_contracts import ASKER, HERE, Side, two, until
from tests.unit.test_lending import FACTS


def test_load_is_the_owners_share_of_all_cores_smoothed() -> None:
    load = Load()
    assert load.add(Cpu(100.0, 1000.0), 0.0) == 0.0, "one reading says nothing"
    values = [load.add(Cpu(100.0 + 2 * n, 1000.0 + 4 * n), float(n)) for n in range(1, 40)]  # two of four cores
    assert values == sorted(values) and values[2] < 0.3 < values[4] and abs(values[-1] - 0.5) < 0.01
    assert load.add(Cpu(178.0, 1156.0), 39.0) == values[-1], "the same moment again changes nothing"
    quiet = [load.add(Cpu(178.0, 1156.0 + 4 * n), 39.0 + n) for n in range(1, 30)]  # niced work runs, the owner's does not
    assert quiet == sorted(quiet, reverse=True) and quiet[-1] < 0.01


def test_lending_ends_at_once_and_begins_again_after_a_quiet_time() -> None:
    owner = Owner()

    def why(load: float, now: float, *, mains: bool | None = None, max_load: float | None = 0.3, needs_mains: bool = False) -> str:
        return owner.why_not(Machine(load, mains), max_load=max_load, needs_mains=needs_mains, now=now)

    assert why(0.2, 0.0) == "" and "40%" in why(0.4, 1.0)
    assert "begins again in 59 s" in why(0.1, 2.0) and why(0.1, 1.0 + QUIET_S) == ""
    assert why(0.9, 100.0, max_load=None) == "", "who did not ask for it is not held to it"
    assert "battery" in why(0.0, 200.0, mains=False, needs_mains=True)
    assert why(0.0, 200.0 + QUIET_S, mains=True, needs_mains=True) == ""
    assert Owner().why_not(Machine(0.0, None), max_load=None, needs_mains=True, now=0.0) == "", "a machine without a battery is on mains"


def test_what_the_owner_does_takes_offers_back_and_slots_under_contract_too() -> None:
    policy = Policy(max_slots=8, max_load_permille=300)
    said = standing(policy, replace(FACTS, owner_busy="its owner uses 40% of this machine, more than 30%"))
    assert (said.code, said.advertisements) == ("lending-not-idle", ()) and "40%" in said.text
    assert {"lending-not-idle", "lending-off-schedule", "lending-over"} == RECLAIMED and "not-lending" not in RECLAIMED
    assert policy_of_json(policy_as_json(policy)) == policy


def test_no_more_slots_than_the_caps_of_memory_and_disk_leave() -> None:
    policy = Policy(max_slots=8, memory_cap_mib=2048, disk_cap_mib=200)
    assert most_slots(policy, 512, 16, (0, 0)) == 4
    assert most_slots(policy, 512, 64, (0, 0)) == 3
    assert most_slots(policy, 512, 16, (1025, 0)) == 1
    assert most_slots(policy, 512, 16, (4096, 0)) == 0
    assert most_slots(Policy(max_slots=8), 512, 16, (10**6, 10**6)) > 8, "no cap, no bound"


async def test_the_machine_is_read_once_a_second_at_most(autojump_clock: trio.testing.MockClock) -> None:
    reads: list[float] = []

    def cpu() -> Cpu:
        reads.append(trio.current_time())
        return Cpu(0.9 * len(reads), float(len(reads)))

    reader = MachineReader(trio.current_time, cpu=cpu, mains=lambda: None)
    for _ in range(40):
        reader.machine()
        await trio.sleep(0.25)
    assert len(reads) == 10 and reader.is_known and 0.3 < reader.machine().load < 0.9


async def test_own_processes_are_looked_at_only_where_there_is_a_load_to_explain(autojump_clock: trio.testing.MockClock) -> None:
    now, busy_s, own_s, looks = [0.0], [0.0], [0.0], [0]

    def own() -> float:
        looks[0] += 1
        return own_s[0]

    reader = MachineReader(lambda: now[0], cpu=lambda: Cpu(busy_s[0], 4 * now[0]), mains=lambda: None, own=own)

    def pass_time(seconds: int, busy: float, ours: float) -> float:
        for _ in range(seconds):
            now[0], busy_s[0], own_s[0] = now[0] + 1, busy_s[0] + busy, own_s[0] + ours
            reader.machine()
        return reader.machine().load

    assert not reader.is_known and pass_time(10, 0.1, 0.1) < 0.05 and reader.is_known and looks == [0]
    assert pass_time(40, 4.0, 4.0) < 0.05 and looks == [40], "all four cores run own jobs"
    assert abs(pass_time(40, 4.0, 2.0) - 0.5) < 0.01, "the owner has two of them"


def process(parent: int, user: float, *, nice: bool = False, system: float = 0.0, gone: float = 0.0, start: float = 1.0) -> Process:
    return Process(parent, start, nice, user, system, gone)


def test_the_time_of_own_trees_is_that_of_all_that_descends_from_them() -> None:
    use = OwnUse()
    machine = {1: process(0, 50.0), 10: process(1, 1.0), 11: process(10, 2.0), 12: process(11, 3.0), 20: process(1, 99.0)}
    assert sorted(tree_of(machine, [10, 10, 404])) == [10, 11, 12]
    assert use.add(tree_of(machine, [10]), is_complete=True) == 0.0
    machine |= {12: process(11, 7.0), 13: process(10, 1.0), 20: process(1, 150.0)}
    assert use.add(tree_of(machine, [10]), is_complete=True) == 5.0
    del machine[12]  # it ends, and its parent takes over what it took
    machine[11] = process(10, 2.0, gone=8.0)
    assert use.add(tree_of(machine, [10]), is_complete=True) == 6.0
    del machine[13]  # it ends and nobody takes it over: that is no negative time
    assert use.add(tree_of(machine, [10]), is_complete=True) == 6.0
    machine[11] = process(1, 60.0, start=9.0)  # the pid again, of somebody else
    assert use.add(tree_of(machine, [10]), is_complete=True) == 6.0
    machine[10] = process(1, 2.0)
    assert use.add(tree_of(machine, [10]), is_complete=True) == 7.0


def test_guests_are_not_taken_off_a_load_that_they_are_not_in() -> None:
    use = OwnUse()
    machine = {10: process(1, 0.0), 11: process(10, 0.0), 12: process(11, 5.0, nice=True)}
    use.add(dict(machine), is_complete=True)
    machine[12] = process(11, 65.0, nice=True, system=1.0)
    assert use.add(dict(machine), is_complete=True) == 1.0, "only what they take in the kernel"
    del machine[12]
    machine[11] = process(10, 0.0, gone=66.0)
    assert use.add(dict(machine), is_complete=True) == 1.0, "nor when one ends"


def test_what_began_while_nobody_looked_counts_from_then_on() -> None:
    use = OwnUse()
    use.add({10: process(1, 0.0)}, is_complete=False)
    assert use.add({10: process(1, 0.0), 11: process(10, 30.0)}, is_complete=True) == 0.0
    assert use.add({10: process(1, 0.0), 11: process(10, 31.0), 12: process(10, 2.0)}, is_complete=True) == 3.0


def test_looking_for_own_processes_costs_a_small_share_of_the_time() -> None:
    now, asked = [0.0], []

    def processes(pids: Iterable[int] | None) -> dict[int, Process]:
        asked.append(None if pids is None else sorted(pids))
        now[0] += 0.1 if pids is None else 0.0
        return {10: process(1, now[0]), 11: process(10, 0.0), 20: process(1, 0.0)}

    reader = OwnReader(lambda: [10], clock=lambda: now[0], processes=processes)
    for _ in range(20):
        reader()
        now[0] += 1.0
    assert [number for number, pids in enumerate(asked) if pids is None] == [0, 5, 10, 15] and asked[1] == [10, 11]


def test_this_process_and_its_children_are_found(tmp_path: Path) -> None:
    reader = OwnReader(lambda: roots_of(tmp_path))
    before = reader()
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\nimport sys\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        assert child.pid in tree_of(read_processes(), roots_of(tmp_path))
        child.stdin.close()
    reader._scan_at = 0.0
    assert reader() - before > 0.2, "its parent has taken over what it took"
    assert any(p.user_s > 0 for p in _read_processes_elsewhere().values())


def test_this_machine_can_be_read() -> None:
    one, two = read_cpu(), read_cpu()
    assert 0 < one.owner_s <= one.total_s <= two.total_s and one.total_s > os.cpu_count()
    assert read_mains() in (True, False, None)
    other = _read_cpu_elsewhere()  # by the way that a machine without /proc takes
    assert abs(other.owner_s - two.owner_s) < 60 and abs(other.total_s - two.total_s) < 60


def test_each_worker_is_judged_by_its_own_machine_and_not_lent_while_nothing_is_known_of_it() -> None:
    def worker(name: str, load: float | None, *, mains: bool | None = None, **more: Any) -> views.WorkerView:
        made = {"state": "idle", "slots": 2, "isolation": "bubblewrap"} | more
        return views.WorkerView(id=f"w-{name}", name=name, owner_load=load, on_mains=mains, **cast(Any, made))

    policy, owners = Policy(max_slots=8, max_load_permille=300, needs_mains=True), Owners()
    here = [worker("quiet", 0.1), worker("used", 0.5), worker("unplugged", 0.0, mains=False), worker("silent", None)]
    here += [worker("gone", 0.9, state="offline"), worker("rest", 0.9, transport="rest")]
    busy = busy_workers(owners, policy, here, 0.0)
    assert sorted(busy) == ["w-unplugged", "w-used"]
    assert "used: its owner uses 50%" in busy["w-used"] and "battery" in busy["w-unplugged"]
    assert silent_workers(policy, here) == {"w-silent"}, "which takes nothing back, and lends nothing new"
    here[1].owner_load = here[3].owner_load = 0.0
    assert "begins again in" in busy_workers(owners, policy, here, 1.0)["w-used"] and not silent_workers(policy, here)
    assert sorted(busy_workers(owners, policy, here, QUIET_S)) == ["w-unplugged"]
    here[3].owner_load = None
    nobody_asked = Policy(max_slots=8)
    assert not busy_workers(owners, nobody_asked, here, QUIET_S) and not silent_workers(nobody_asked, here)


def test_a_worker_that_speaks_rest_is_no_slot_to_lend() -> None:
    rpc, rest = (
        views.WorkerView(id=name, name=name, state="idle", slots=2, cores=2, python="3.11.2", isolation="bubblewrap", transport=name)
        for name in ("rpc", "rest")
    )  # fmt: skip
    ground = cast(Any, SimpleNamespace(promised=lambda: 0, supply=Supply, endpoints=lambda: (), relays=()))
    found = facts_of(ground, [rpc, rest], "bubblewrap", 1)
    assert (found.slots, found.idle, found.machines) == (2, 2, 1)
    assert standing(Policy(max_slots=8), facts_of(ground, [rest], "bubblewrap", 1)).code == "lending-no-slots"


def service_of(lender: Side, standing: Standing, policy: Policy) -> ContractService:
    def lending() -> tuple[Policy, Standing, LendingFacts]:
        return policy, standing, HERE

    return ContractService(
        driver=lender.driver, links=cast(Any, None), living=cast(Any, None), desk=lender.desk, lending=lending, on_change=lambda id_: None,
        trust=cast(Any, SimpleNamespace(asker=lambda key: ASKER, favours=lambda companies: Favours())), seeker=cast(Any, None),
        supplying=cast(Any, None),
    )  # fmt: skip


async def test_a_contract_gives_its_slots_back_when_the_owner_needs_the_machine(tmp_path: Path) -> None:
    async with two(tmp_path, auto=True) as (borrower, lender):
        view = await borrower.desk.request(cv.ContractRequest(company="lender"))
        await until(lambda: State.ACTIVE in lender.changed and State.ACTIVE in borrower.changed)
        (key,) = lender.driver.book.contracts
        machine = lender.driver.book.contracts[key]
        async with trio.open_nursery() as nursery:
            lent = service_of(lender, Standing("lending", "one slot"), Policy(max_slots=4, memory_cap_mib=1024))
            nursery.start_soon(lent.follow)
            nursery.start_soon(service_of(lender, Standing("not-lending", "stopped"), Policy(max_slots=4)).follow)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert machine.state in LIVE, "what runs goes on while lending does, and after a plain stop"
            assert lent._promised(but=key) == (0, 0) and lent._promised(but=key._replace(nonce=b"o" * 32)) == (512, 64)
            nursery.start_soon(service_of(lender, Standing("lending-not-idle", "its owner uses 40%"), Policy(max_slots=4)).follow)
            await until(lambda: State.RATED in borrower.changed and State.RATED in lender.changed)
            nursery.cancel_scope.cancel()
        assert machine.a.causes == {Role.LENDER: Cause.OWNER_RECLAIM}
        assert "its owner uses 40%" in str([s.message for s in machine.a.out]), "the borrower is told why"
        assert (await borrower.desk.contract(view.id)).causes["lender"] == "the owner wanted the slots back"


async def test_taking_everything_back_returns_when_nothing_runs(tmp_path: Path) -> None:
    async with two(tmp_path, auto=True) as (borrower, lender):
        await borrower.desk.request(cv.ContractRequest(company="lender"))
        await until(lambda: State.ACTIVE in lender.changed and State.ACTIVE in borrower.changed)
        (machine,) = lender.driver.book.contracts.values()
        service = service_of(lender, Standing("not-lending", "stopped"), Policy(max_slots=4))
        told = lender.on_changed

        def on_changed(key: Any, cause: Cause) -> None:
            told(key, cause)
            service._moved.set()
            service._moved = trio.Event()

        lender.on_changed = on_changed  # type: ignore[method-assign]
        with trio.fail_after(20):
            await service.reclaim()
        assert machine.state not in LIVE | {State.REVOKING, State.BROKEN}
        await lender.driver.wait_durable()
