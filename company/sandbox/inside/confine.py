"""Where no bubblewrap stands around: Landlock and the filter, put on by the child itself before it reads anything (I/O).

Source: Linux Documentation/userspace-api/landlock.rst; access bits of ABI 1-5, network of ABI 4, scopes of ABI 6.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from typing import Any

_VERSION_FLAG = 1
_RULE_PATH = 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER, _PR_SET_PDEATHSIG = 38, 22, 2, 1
_EXECUTE, _WRITE, _READ, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_BASE = (1 << 13) - 1
_SPECIAL = (1 << 6) | (1 << 11)  # character and block devices are nobody's to make
_SIGKILL = 9


def apply(confine: dict[str, Any]) -> None:
    """Die with the daemon, and give up everything but what ``confine`` names. Raises `OSError` when the kernel has no Landlock."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != confine["daemon"]:  # it died before we asked
        raise SystemExit(1)
    if "filter" not in confine:  # --sandbox none
        return
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    _landlock(libc, confine)
    _filter(libc, confine["filter"])


def _landlock(libc: Any, confine: dict[str, Any]) -> None:
    create, add, restrict = confine["calls"]
    abi = libc.syscall(create, None, 0, _VERSION_FLAG)
    if abi < 1:
        raise OSError(ctypes.get_errno(), "this kernel has no Landlock")
    handled = _BASE | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0) | (_IOCTL if abi >= 5 else 0)
    attributes = struct.pack("<QQQ", handled, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    attributes = attributes[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = libc.syscall(create, attributes, len(attributes), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for paths, access in (
        (confine["read"], _EXECUTE | _READ | _READ_DIR),
        (confine["write"], handled & ~_SPECIAL),
        (confine["devices"], _READ | _WRITE),
    ):
        for path in paths:
            _allow(libc, add, ruleset, path, access & handled)
    if libc.syscall(restrict, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)


def _allow(libc: Any, add: int, ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not on this machine
        return
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        access &= _EXECUTE | _WRITE | _READ | _TRUNCATE | _IOCTL
    rule = struct.pack("<Qi", access, fd)
    failed = libc.syscall(add, ruleset, _RULE_PATH, rule, 0) != 0
    os.close(fd)
    if failed:
        raise OSError(ctypes.get_errno(), f"landlock_add_rule {path}")


def _filter(libc: Any, program: bytes) -> None:
    instructions = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("first", ctypes.c_void_p)]

    whole = Program(len(program) // 8, ctypes.addressof(instructions))
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(whole), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")
