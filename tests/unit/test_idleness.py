"""Lending stays out of the owner's way: load, battery, caps, and no coming and going around a bound."""

from __future__ import annotations

import os
from dataclasses import replace

import trio
import trio.testing

from company.chief.network.idleness import QUIET_S, Cpu, Load, Machine, Owner
from company.chief.network.lending import RECLAIMED, Policy, most_slots, policy_as_json, policy_of_json, standing
from company.chief.network.owner_load import OwnerLoad, read_cpu, read_mains
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

    load = OwnerLoad(cpu=cpu, mains=lambda: None)
    for _ in range(40):
        load.why_not(0.3, False)
        await trio.sleep(0.25)
    assert len(reads) == 10 and "more than 30%" in load.why_not(0.3, False)


def test_this_machine_can_be_read() -> None:
    one, two = read_cpu(), read_cpu()
    assert 0 < one.owner_s <= one.total_s <= two.total_s and one.total_s > os.cpu_count()
    assert read_mains() in (True, False, None)
