"""Try from inside a child what must not work there, and what must (I/O).

Run when a daemon opens its sandbox and by ``company doctor``. One child, about 60 ms.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Callable

import numpy as np
import trio

from company.sandbox import wire
from company.sandbox.child import Child, ChildDied, ChildFailed
from company.sandbox.profile import MIB, Profile
from p2p.base.codec import decode_value_untrusted, encode_value
from p2p.base.errors import MalformedMessage
from p2p.base.record import record

TIMEOUT_S = 15.0
_PROBE = b"""
import os, sys, socket, errno

def refused(what, *arguments):
    try:
        result = what(*arguments)
    except OSError as error:
        return True, os.strerror(error.errno) if error.errno else str(error)
    except Exception as error:
        return True, type(error).__name__
    return False, f"{what.__name__} worked: {str(result)[:60]}"

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid

def write(path):
    with open(path, "w") as file:
        file.write("x")

def shared(theirs):
    found = []
    for name, link in theirs.items():
        try:
            if os.readlink("/proc/self/ns/" + name) == link:
                found.append(name)
        except OSError:
            continue
    return found

def status():
    try:
        with open("/proc/self/status") as file:
            return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    except OSError:
        return {}

def process(wanted):
    home, version, full, theirs = wanted
    common, seen = shared(theirs), status()
    powers = int(seen.get("CapEff", "0"), 16) | int(seen.get("CapPrm", "0"), 16)
    checks = {
        "python": (sys.version == version, sys.version.split()[0]),
        "no-fork": refused(fork),
        "no-network": refused(socket.socket, socket.AF_INET, socket.SOCK_STREAM),
        "no-unix-socket": refused(socket.socket, socket.AF_UNIX, socket.SOCK_STREAM),
        "no-shadow": refused(os.open, "/etc/shadow", os.O_RDONLY),
        "no-passwd-write": refused(write, "/etc/probe"),
        "no-home": refused(os.listdir, home),
        "no-root-write": refused(write, "/probe"),
        "no-usr-write": refused(write, "/usr/probe"),
        "not-root": (os.getuid() != 0, f"uid {os.getuid()}"),
        "environment": (not (set(os.environ) - set(full)), ", ".join(sorted(set(os.environ) - set(full)))[:200]),
        "tmp": (not refused(write, os.environ["TMPDIR"] + "/probe")[0], "writable"),
        "sysctl": refused(write, "/proc/sys/kernel/core_pattern"),
        "namespaces": (not common, "shared with the daemon: " + ", ".join(common) if common else "own"),
        "no-capabilities": (not powers, hex(powers)),
        "no-new-privileges": (seen.get("NoNewPrivs", "1") == "1", "cannot gain any"),
    }
    return {name: list(value) for name, value in checks.items()}
"""
_ENVIRONMENT = (
    "PATH", "HOME", "TMPDIR", "LANG", "TZ", "PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_",
    "LD_LIBRARY_PATH", "PWD", "LC_CTYPE",
)  # fmt: skip

_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts")


@record
class SelfTest:
    """checks: (name, whether it is as it should be, what was seen)."""

    ok: bool
    checks: tuple[tuple[str, bool, str], ...]

    def first_failure(self) -> str:
        """The first thing that is wrong, in words."""
        return next((f"{name}: {text}" for name, ok, text in self.checks if not ok), "")


async def run_self_test(start: Callable[[Profile], Child], rung: str) -> SelfTest:
    """Start a child with ``start`` and try."""
    try:
        child = start(Profile(role="process", tmp_bytes=MIB))
    except OSError as error:
        return SelfTest(False, (("start", False, str(error)),))
    try:
        with trio.fail_after(TIMEOUT_S):
            return await _probe(child, rung)
    except ChildDied as death:
        return SelfTest(False, (("start", False, death.verdict.text),))
    except (ChildFailed, MalformedMessage, trio.TooSlowError) as error:
        return SelfTest(False, (("start", False, str(error) or "it did not answer in time"),))
    finally:
        await child.aclose()


async def _probe(child: Child, rung: str) -> SelfTest:
    await child.load(role="process", files={"processor/main.py": _PROBE}, options={})
    home = pwd.getpwuid(os.getuid()).pw_dir if _has_account() else "/root"
    ours = {name: os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES} if rung == "bubblewrap" else {}
    item = encode_value([home, sys.version, _ENVIRONMENT, ours])
    await child.send([wire.RUN, 0, 0, []], np.array([len(item)], dtype="<u4"), item)
    frame = await child.receive()
    if frame.header[0] != wire.OUTCOME:
        raise MalformedMessage("the probe answered with something else")
    *_, result = frame.cut()
    found = decode_value_untrusted(result)
    if type(found) is not dict or "python" not in found:
        raise MalformedMessage(f"the probe failed: {str(found)[:300]}")
    checks = tuple((str(name), bool(ok), str(text)) for name, (ok, text) in found.items())
    return SelfTest(all(ok for _, ok, _ in checks), checks)


def _has_account() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
