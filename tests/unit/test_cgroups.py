"""Where a daemon may divide a control group, and what it writes there. The kernel's part: tests/e2e/test_sandbox_groups.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from company.sandbox.cgroups import SLACK_BYTES, Groups, find_groups, limits
from company.sandbox.profile import MIB, Profile


class Machine:
    """A tree like the kernel's: plain folders and files."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.mount = root / "cgroup"
        (self.proc / "self").mkdir(parents=True)

    def version_2(self, own: str, *, enabled: str = "", offered: str = "cpu io memory pids", pids: tuple[int, ...] = ()) -> Path:
        base = self.mount / own.lstrip("/")
        base.mkdir(parents=True, exist_ok=True)
        (self.proc / "self/cgroup").write_text(f"0::{own}\n")
        (self.proc / "self/mountinfo").write_text(f"31 23 0:27 / {self.mount} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n")
        (base / "cgroup.controllers").write_text(offered + "\n")
        (base / "cgroup.subtree_control").write_text(enabled + "\n")
        (base / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids or (os.getpid(),)))
        return base


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    # the kernel makes the files of a new group and takes them away with it; plain folders do neither
    monkeypatch.setattr(Path, "rmdir", lambda self: [*(file.unlink() for file in self.iterdir()), os.rmdir(self)])
    return Machine(tmp_path)


def test_version_2_steps_down_before_it_divides_what_was_handed_over(machine: Machine) -> None:
    base = machine.version_2("/system.slice/company.service")
    groups, words = find_groups(machine.proc)
    assert groups is not None and groups.version == 2
    assert words == "control groups (version 2) limit memory, pids, cpu of every child"
    assert (base / "company-daemon/cgroup.procs").read_text() == str(os.getpid())
    assert (base / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    group = groups.make(Profile(role="process", memory_bytes=100 * MIB, tmp_bytes=10 * MIB))
    (folder,) = group.folders
    assert folder.parent == base
    assert (folder / "memory.max").read_text() == str(110 * MIB + SLACK_BYTES)
    assert (folder / "pids.max").read_text() == "256" and (folder / "cpu.max").read_text() == "110000 100000"
    group.remove()
    assert not folder.exists()


def test_what_this_process_started_divides_beside_it(machine: Machine) -> None:
    base = machine.version_2("/company.service", enabled="memory pids cpu")
    (base / "company-daemon").mkdir()
    (machine.proc / "self/cgroup").write_text("0::/company.service/company-daemon\n")
    groups, _ = find_groups(machine.proc)
    assert groups is not None
    assert groups.make(Profile(role="process")).folders[0].parent == base


def test_a_group_with_strangers_in_it_is_left_alone(machine: Machine) -> None:
    stranger = 4_194_000
    (machine.proc / str(stranger)).mkdir()
    (machine.proc / str(stranger) / "stat").write_text(f"{stranger} (ba) sh) S 1 1 1 0")
    machine.version_2("/user.slice/session-1.scope", pids=(os.getpid(), stranger))
    groups, words = find_groups(machine.proc)
    assert groups is None and f"process {stranger}" in words


@pytest.mark.parametrize("offered", ["cpu io pids", ""])
def test_without_the_memory_controller_there_is_nothing_to_use(machine: Machine, offered: str) -> None:
    machine.version_2("/x", offered=offered)
    assert find_groups(machine.proc) == (None, "no control group on this machine is ours to divide")


@pytest.mark.parametrize("text", ["", "nonsense", "0:no"])
def test_strange_answers_of_the_kernel_are_not_fatal(machine: Machine, text: str) -> None:
    (machine.proc / "self/cgroup").write_text(text)
    (machine.proc / "self/mountinfo").write_text(text)
    assert find_groups(machine.proc)[0] is None


def test_a_machine_without_proc_has_none(tmp_path: Path) -> None:
    groups, words = find_groups(tmp_path)
    assert groups is None and "cannot be used" in words


def test_what_a_killed_daemon_left_is_swept(machine: Machine) -> None:
    base = machine.version_2("/x", enabled="memory pids cpu")
    dead, living = base / "company-4194001-3", base / f"company-{os.getpid()}-77"
    dead.mkdir()
    living.mkdir()
    Groups(2, {"memory": base})
    assert not dead.exists() and living.exists()


def test_kills_are_counted_from_the_kernels_own_words(machine: Machine) -> None:
    base = machine.version_2("/x", enabled="memory")
    group = Groups(2, {"memory": base}).make(Profile(role="process"))
    events = group.folders[0] / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 0\n")
    assert not group.was_out_of_memory()
    events.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 1\n")
    assert group.was_out_of_memory()


def test_version_1_has_the_same_limits_under_other_names() -> None:
    profile = Profile(role="process", memory_bytes=MIB, tmp_bytes=MIB)
    memory = str(2 * MIB + SLACK_BYTES)
    assert list(limits(1, "memory", profile)) == [
        ("memory.limit_in_bytes", memory, True), ("memory.memsw.limit_in_bytes", memory, False),
    ]  # fmt: skip
    assert [name for name, _, _ in limits(1, "cpu", profile)] == ["cpu.cfs_period_us", "cpu.cfs_quota_us"]
