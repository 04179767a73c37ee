"""The system call filter of a child, assembled by hand (pure).

Denied: new processes (threads are allowed), sockets except a pair, everything that reaches into other processes, mounts,
namespaces, keys, kernel modules, clocks, memfd, SysV and POSIX IPC; calls of another architecture; and every call newer than
the ones known here (ENOSYS), so that a kernel's new surface is closed until somebody has looked at it.
execve stays: bwrap applies the filter before it starts Python, and without fork it can only replace the child by itself.
A package that says how many processes it starts gets a filter that lets it fork, where a pid namespace ends them all with the child.

Source: numbers from linux/arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import errno
import struct

from p2p.base.record import record

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL = 0x80000000
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24  # offsets in struct seccomp_data, low words (little endian)
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020080  # every CLONE_NEW* bit
_AF_UNIX = 1
_PR_SET_PDEATHSIG = 1
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_FIRST_NEW = 424  # from here on both architectures share the numbers
_NEW_ALLOWED = (436, 437, 439, 441, 449)  # close_range openat2 faccessat2 epoll_pwait2 futex_waitv


@record
class _Machine:
    audit_arch: int
    clone: int
    socketpair: int
    ioctl: int
    prctl: int
    fork: tuple[int, ...]  # the old ways; clone is looked at by its flags
    denied: tuple[int, ...]
    signals: tuple[int, ...]  # kill, tkill, pidfd…: denied where no pid namespace stands around


# fmt: off
_X86_64 = _Machine(
    audit_arch=0xC000003E, clone=56, socketpair=53, ioctl=16, prctl=157, fork=(57, 58), signals=(62, 200, 297, 129),
    denied=(
        41, 42, 43, 49, 50, 288,  # socket connect accept bind listen accept4
        46, 307,  # sendmsg sendmmsg: a descriptor under way in a socket holds a deleted file that no daemon can find
        101, 310, 311, 312,  # ptrace process_vm_readv process_vm_writev kcmp
        165, 166, 155, 161, 272, 308,  # mount umount2 pivot_root chroot unshare setns
        248, 249, 250,  # add_key request_key keyctl
        321, 298, 323, 319,  # bpf perf_event_open userfaultfd memfd_create
        246, 320, 175, 313, 176, 174, 177, 178,  # kexec_load kexec_file_load init_module finit_module delete_module and old ones
        169, 167, 168, 103, 163, 179,  # reboot swapon swapoff syslog acct quotactl
        164, 227, 305, 159,  # settimeofday clock_settime clock_adjtime adjtimex
        172, 173, 135, 154,  # iopl ioperm personality modify_ldt
        212, 303, 304, 300, 180, 153, 134, 136, 139, 156,  # lookup_dcookie *_handle_at fanotify_init nfsservctl vhangup old ones
        237, 238, 256, 279,  # mbind set_mempolicy migrate_pages move_pages
        29, 30, 31, 67, 64, 65, 66, 220, 68, 69, 70, 71,  # shm* sem* msg*
        240, 241, 242, 243, 244, 245,  # mq_*
        206, 207, 208, 209, 210,  # io_setup …
    ),
)
_AARCH64 = _Machine(
    audit_arch=0xC00000B7, clone=220, socketpair=199, ioctl=29, prctl=167, fork=(), signals=(129, 130, 138, 240),
    denied=(
        198, 203, 202, 200, 201, 242,
        211, 269,
        117, 270, 271, 272,
        40, 39, 41, 51, 97, 268,
        217, 218, 219,
        280, 241, 282, 279,
        104, 294, 105, 273, 106,
        142, 224, 225, 116, 89, 60,
        170, 112, 266, 171,
        92,
        18, 264, 265, 262, 42, 58,
        235, 237, 238, 239,
        194, 195, 196, 197, 190, 191, 192, 193, 186, 187, 188, 189,
        180, 181, 182, 183, 184, 185,
        0, 1, 2, 3, 4,
    ),
)
# fmt: on
_MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def is_known(machine: str) -> bool:
    """Whether there is a filter for ``platform.machine()``."""
    return machine in _MACHINES


def program(machine: str, *, deny_signals: bool = False, may_fork: bool = False) -> bytes:
    """The filter as an array of struct sock_filter. ``deny_signals``: also kill() and its kind, without a pid namespace."""
    m = _MACHINES[machine]
    steps: list[tuple[int, int, str, str]] = []  # code, k, label if true, label if false; "" falls through

    def step(code: int, k: int, yes: str = "", no: str = "") -> None:
        steps.append((code, k, yes, no))

    step(_LD, _ARCH)
    step(_JEQ, m.audit_arch, "", "kill")
    step(_LD, _NR)
    if machine == "x86_64":
        step(_JGE, 0x40000000, "kill", "")  # the x32 twins of every call
    step(_JGE, _FIRST_NEW, "new", "")
    step(_JEQ, m.clone, "clone", "")
    step(_JEQ, m.socketpair, "pair", "")
    step(_JEQ, m.ioctl, "ioctl", "")
    step(_JEQ, m.prctl, "prctl", "")
    for number in m.denied + (() if may_fork else m.fork) + (m.signals if deny_signals else ()):
        step(_JEQ, number, "deny", "")
    step(_RET, _ALLOW)
    marks = {"new": len(steps)}
    for number in _NEW_ALLOWED:
        step(_JEQ, number, "allow", "")
    step(_RET, _ERRNO | errno.ENOSYS)  # for clone3 this makes libc fall back to clone, whose flags can be read
    marks["clone"] = len(steps)
    step(_LD, _ARG0)
    step(_JSET, _CLONE_NEW, "deny", "")
    step(_JSET, _CLONE_THREAD, "allow", "allow" if may_fork else "deny")
    marks["pair"] = len(steps)
    step(_LD, _ARG0)
    step(_JEQ, _AF_UNIX, "allow", "deny")
    marks["ioctl"] = len(steps)
    step(_LD, _ARG1)
    step(_JEQ, _TIOCSTI, "deny", "")
    step(_JEQ, _TIOCLINUX, "deny", "")
    step(_RET, _ALLOW)
    marks["prctl"] = len(steps)
    # The filter binds bwrap's pid 1 as well, whose memory a child can write; nobody in there may cancel dying with the daemon.
    step(_LD, _ARG0)
    step(_JEQ, _PR_SET_PDEATHSIG, "deny", "")
    marks["allow"] = len(steps)
    step(_RET, _ALLOW)
    marks["deny"] = len(steps)
    step(_RET, _ERRNO | errno.EPERM)
    marks["kill"] = len(steps)
    step(_RET, _KILL)
    out = bytearray()
    for at, (code, k, yes, no) in enumerate(steps):
        jumps = [marks[label] - at - 1 if label else 0 for label in (yes, no)]
        out += struct.pack("<HBBI", code, *jumps, k)
    return bytes(out)


def number_of(machine: str, name: str) -> int:
    """A system call number that the parts without libc's wrapper need."""
    table = {"landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446}
    if machine not in _MACHINES:
        raise KeyError(machine)
    return table[name]
