"""The filter, run by a small BPF interpreter."""

import errno
import struct

import pytest

from company.sandbox import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
X86, ARM = 0xC000003E, 0xC00000B7
DENY, MISSING = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


def _decide(program: bytes, arch: int, number: int, *arguments: int) -> int:
    data = struct.pack("<IIQ6Q", number, arch, 0, *(list(arguments) + [0] * 6)[:6])
    steps = list(struct.iter_unpack("<HBBI", program))
    value = at = 0
    while True:
        code, yes, no, k = steps[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, k)
        elif code == 0x06:
            return int(k)
        else:
            holds = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            at += yes if holds else no


@pytest.fixture(params=[("x86_64", X86), ("aarch64", ARM)], ids=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> tuple[bytes, int, dict[str, int]]:
    name, arch = request.param
    x86 = name == "x86_64"
    numbers = {
        "read": 0 if x86 else 63,
        "execve": 59 if x86 else 221,
        "clone": 56 if x86 else 220,
        "clone3": 435,
        "fork": 57 if x86 else 220,  # there is no such call on aarch64: clone
        "vfork": 58 if x86 else 220,
        "socket": 41 if x86 else 198,
        "socketpair": 53 if x86 else 199,
        "ioctl": 16 if x86 else 29,
        "ptrace": 101 if x86 else 117,
        "unshare": 272 if x86 else 97,
        "memfd_create": 319 if x86 else 279,
        "kill": 62 if x86 else 129,
        "io_uring_setup": 425,
        "close_range": 436,
        "landlock_create_ruleset": 444,
    }
    return seccomp.program(name), arch, numbers


def test_ordinary_calls_and_threads_pass(machine: tuple[bytes, int, dict[str, int]]) -> None:
    program, arch, n = machine
    for name in ("read", "execve", "kill", "close_range"):
        assert _decide(program, arch, n[name]) == ALLOW, name
    assert _decide(program, arch, n["clone"], 0x3D0F00) == ALLOW  # what pthread_create asks for
    assert _decide(program, arch, n["socketpair"], 1) == ALLOW
    assert _decide(program, arch, n["ioctl"], 0, 0x5401) == ALLOW


def test_processes_sockets_namespaces_and_peeking_are_refused(machine: tuple[bytes, int, dict[str, int]]) -> None:
    program, arch, n = machine
    for name in ("socket", "ptrace", "unshare", "memfd_create"):
        assert _decide(program, arch, n[name]) == DENY, name
    assert _decide(program, arch, n["clone"], 0x1200011) == DENY  # fork
    assert _decide(program, arch, n["clone"], 0x10000 | 0x10000000) == DENY  # a thread in a new user namespace
    assert _decide(program, arch, n["socketpair"], 2) == DENY
    assert _decide(program, arch, n["ioctl"], 0, 0x5412) == DENY  # typing into the terminal


@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_a_package_that_says_so_may_fork_and_nothing_else(name: str, machine: tuple[bytes, int, dict[str, int]]) -> None:
    _, arch, n = machine
    if (name == "x86_64") != (arch == X86):
        pytest.skip("the other machine's numbers")
    program = seccomp.program(name, may_fork=True)
    assert _decide(program, arch, n["clone"], 0x1200011) == ALLOW  # fork
    assert _decide(program, arch, n["clone"], 0x4111) == ALLOW  # vfork
    assert _decide(program, arch, n["fork"]) == _decide(program, arch, n["vfork"]) == ALLOW
    for flag in (0x00000080, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert _decide(program, arch, n["clone"], 0x11 | flag) == DENY  # in a new namespace
    assert _decide(program, arch, n["clone3"]) == MISSING
    for call in ("socket", "ptrace", "unshare", "memfd_create"):
        assert _decide(program, arch, n[call]) == DENY, call


def test_calls_that_nobody_has_looked_at_do_not_exist(machine: tuple[bytes, int, dict[str, int]]) -> None:
    program, arch, n = machine
    for name in ("clone3", "io_uring_setup", "landlock_create_ruleset"):
        assert _decide(program, arch, n[name]) == MISSING, name
    assert _decide(program, arch, 9999) == MISSING


def test_calls_of_another_architecture_kill() -> None:
    assert _decide(seccomp.program("x86_64"), 0x40000003, 1) == KILL
    assert _decide(seccomp.program("x86_64"), X86, 0x40000000 | 57) == KILL
    assert _decide(seccomp.program("aarch64"), X86, 0) == KILL


def test_signals_are_refused_where_no_pid_namespace_stands_around() -> None:
    assert _decide(seccomp.program("x86_64", deny_signals=True), X86, 62) == DENY
    assert _decide(seccomp.program("aarch64", deny_signals=True), ARM, 129) == DENY


def test_an_unknown_machine_has_no_filter() -> None:
    assert not seccomp.is_known("riscv64")
