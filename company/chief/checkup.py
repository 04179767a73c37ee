"""What `company doctor` says of a machine and of a running chief (I/O: looks, changes nothing).

Each finding has an id, a verdict, a text, what mends it, and a section of docs/doctor.md.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from company import views
from company.listening import is_loopback
from company.paths import Home
from company.sandbox.sandbox import Sandbox
from p2p.base.errors import UsageError

NETWORK_FILE_SYSTEMS = frozenset(
    (
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "9p", "afs", "glusterfs", "fuse.glusterfs",
        "ceph", "lustre",
    )
)  # fmt: skip
LOW_DISK_BYTES = 1 << 30
SKEW_WARN_S = 30
PORTS = (("--rpc", "0.0.0.0", 8468), ("--http", "127.0.0.1", 8470))  # where `company start` listens when nothing else is said


class _Addresses(Protocol):
    http: str
    rpc: str
    dht: str | None


def finding(check: str, verdict: str, text: str, fix: str = "") -> dict[str, Any]:
    """One line of the doctor. verdict: ok, warn or fail."""
    return {"id": check, "verdict": verdict, "text": text, "fix": fix, "link": f"docs/doctor.md#{check}"}


async def checkup(
    *, home: Home, sandbox: Sandbox, addresses: _Addresses, workers: Sequence[views.WorkerView], release: str
) -> list[dict[str, Any]]:
    """Every finding about a chief's machine and the workers it knows. ``release``: the chief's own version of company-compute."""
    found = [await isolation(sandbox), limits(sandbox), disk(home.root), file_system(home.root), ports(addresses), bytecode()]
    return [*found, *pythons(workers), *releases(workers, release), *clocks(workers), *unreachable(workers)]


async def local_checkup(home: Home) -> list[dict[str, Any]]:
    """What can be said of this machine where no chief runs."""
    return [*await isolation_here(), disk(home.root), file_system(home.root), free_ports(), bytecode()]


# ---- isolation -----------------------------------------------------------------------------------------------------------------
async def isolation(sandbox: Sandbox) -> dict[str, Any]:
    """Which rung of the ladder, proven now, and how to climb."""
    proof = await sandbox.self_test()
    failed = [name for name, ok, _ in proof.checks if not ok]
    if sandbox.rung == "bubblewrap" and proof.ok:
        return finding("isolation", "ok", f"bubblewrap: {len(proof.checks)} checks passed just now.")
    if failed and sandbox.rung != "none":
        return finding("isolation", "fail", f"{sandbox.rung}: {', '.join(failed)} did not hold.", climb())
    verdict = "fail" if sandbox.rung == "none" else "warn"
    return finding("isolation", verdict, f"{sandbox.rung}: {sandbox.reason.text}", climb())


async def isolation_here() -> list[dict[str, Any]]:
    """The same for a process that has no sandbox yet: one is opened for the test."""
    with tempfile.TemporaryDirectory(prefix="company-doctor-") as folder:
        os.chmod(folder, 0o711)
        try:
            async with Sandbox.open(home=Path(folder)) as sandbox:
                return [await isolation(sandbox), limits(sandbox)]
        except UsageError as error:
            return [finding("isolation", "fail", error.text, climb())]


def limits(sandbox: Sandbox) -> dict[str, Any]:
    """Whether the kernel keeps limits for a child as a whole, besides the rlimits that hold everywhere."""
    if sandbox.has_groups:
        return finding("limits", "ok", sandbox.limits)
    text = f"{sandbox.limits}; children have rlimits, which count neither files in /tmp nor what the kernel holds for them."
    return finding("limits", "warn", text, "run it as a service, whose unit hands a control group over: --install-service")


def climb() -> str:
    """The command that is most likely to lift this machine to the highest rung."""
    for setting, value, command in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
    ):
        if _setting(setting) == value:
            return f"{command}   (as root; to keep it, in /etc/sysctl.d/company.conf)"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "this is a container: start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
    return "install bubblewrap (apt install bubblewrap, dnf install bubblewrap) and a Python in /usr of the same version as this one"


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


# ---- where the home lies ---------------------------------------------------------------------------------------------------------
def disk(root: Path) -> dict[str, Any]:
    """Free space where the home lies, or will."""
    usage = shutil.disk_usage(_existing(root))
    free = f"{usage.free / (1 << 30):.1f} GiB free of {usage.total / (1 << 30):.1f} in {root}"
    if usage.free < LOW_DISK_BYTES:
        return finding("disk", "fail", free, "free space, or remove old jobs and data: company job rm ID, company data rm DIGEST")
    if usage.free < usage.total * 0.05:
        return finding("disk", "warn", free, "remove old jobs and data: company job rm ID, company data rm DIGEST")
    return finding("disk", "ok", free)


def file_system(root: Path) -> dict[str, Any]:
    """SQLite's WAL needs shared memory, which network file systems do not give."""
    kind = file_system_of(root)
    if kind in NETWORK_FILE_SYSTEMS:
        text = f"{root} lies on {kind}, a network file system: the database can be damaged there."
        return finding("file-system", "fail", text, "company start --home /a/local/directory")
    return finding("file-system", "ok", f"{root} lies on {kind or 'an unknown file system'}.")


def file_system_of(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that holds ``path``, as ``mounts`` says; "" where that is not there."""
    best, kind = "", ""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    for line in lines:
        _, mount, name, *_ = line.split()
        mount = mount.replace("\\040", " ")
        if (real == mount or real.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


# ---- the interpreter -------------------------------------------------------------------------------------------------------------
def bytecode(root: Path = Path(__file__).parents[1]) -> dict[str, Any]:
    """Whether Python finds our modules compiled; where it may not keep what it compiled, each start does it again."""
    modules = [path for path in root.rglob("*.py") if "static" not in path.parts]
    bare = [path for path in modules if not Path(importlib.util.cache_from_source(str(path))).exists()]
    if not bare or not sys.dont_write_bytecode:
        return finding(
            "bytecode", "ok", f"{len(modules) - len(bare)} of {len(modules)} modules are compiled; Python keeps what it compiles."
        )
    text = (
        f"{len(bare)} of {len(modules)} modules are not compiled and Python may not keep what it compiles: every start takes seconds more."
    )
    return finding(
        "bytecode", "warn", text, f"unset PYTHONDONTWRITEBYTECODE, or once: {sys.executable} -m compileall -q {root} {root.parent / 'p2p'}"
    )


# ---- the network -----------------------------------------------------------------------------------------------------------------
def ports(addresses: _Addresses) -> dict[str, Any]:
    """Where a chief listens, and the firewall command that opens it."""
    text = f"workers connect to {addresses.rpc} (TCP); web page and REST on {addresses.http}"
    if is_loopback(addresses.rpc):
        return finding("ports", "warn", f"{text}: only this machine can reach it.", "company start --rpc 0.0.0.0:8468")
    return finding("ports", "ok", f"{text}. If workers cannot connect: {firewall_command(int(addresses.rpc.rpartition(':')[2]))}")


def firewall_command(port: int) -> str:
    """What opens ``port`` with the firewall that is installed here."""
    if shutil.which("ufw"):
        return f"ufw allow {port}/tcp"
    if shutil.which("firewall-cmd"):
        return f"firewall-cmd --add-port={port}/tcp --permanent && firewall-cmd --reload"
    return f"iptables -I INPUT -p tcp --dport {port} -j ACCEPT (if a firewall runs here)"


def free_ports() -> dict[str, Any]:
    """Whether a chief could listen where it does by default."""
    taken = [(option, port) for option, host, port in PORTS if not _can_listen(host, port)]
    if not taken:
        return finding("ports", "ok", f"{' and '.join(str(port) for _, _, port in PORTS)} are free for a chief.")
    text = f"{' and '.join(str(port) for _, port in taken)} {'is' if len(taken) == 1 else 'are'} taken by another program."
    fix = "see which: ss -ltnp   or start with " + " ".join(f"{option} ADDR:PORT" for option, _ in taken)
    return finding("ports", "warn", text, fix)


def _can_listen(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


# ---- the workers -----------------------------------------------------------------------------------------------------------------
def pythons(workers: Sequence[views.WorkerView]) -> list[dict[str, Any]]:
    """Workers whose Python or machine is another than the chief's."""
    here, machine = f"{sys.version_info.major}.{sys.version_info.minor}", f"{platform.system()} {platform.machine()}"
    found = []
    for worker in workers:
        if worker.python and ".".join(worker.python.split(".")[:2]) != here:
            text = f"{worker.name} runs Python {worker.python}, the chief {platform.python_version()}: packages may behave differently."
            fix = f"use Python {here} there, or say which are right: python = in package.toml"
            found.append(finding("python", "warn", text, fix))
        if worker.platform and worker.platform != machine:
            text = f"{worker.name} is {worker.platform}, the chief {machine}: wheels of the chief do not fit there."
            found.append(finding("platform", "warn", text, "packages with compiled requirements wait for a worker that they fit"))
    return found or [finding("python", "ok", f"Python {platform.python_version()}; {_counted(workers)} the same.")]


def releases(workers: Sequence[views.WorkerView], release: str) -> list[dict[str, Any]]:
    """Workers with another release of company-compute than the chief."""
    other = [w for w in workers if w.version and w.version != release]
    if not other:
        return [finding("release", "ok", f"company-compute {release}; {_counted(workers)} the same.")]
    fix = "install it again from this chief: company token create --role worker prints the line"
    return [finding("release", "warn", f"{w.name} runs company-compute {w.version}, the chief {release}.", fix) for w in other]


def clocks(workers: Sequence[views.WorkerView]) -> list[dict[str, Any]]:
    """Workers whose clock differed from the chief's when they came."""
    found = []
    for worker in workers:
        skew_s = worker.clock_skew_s
        if skew_s is not None and abs(skew_s) > SKEW_WARN_S:
            text = f"{worker.name}'s clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the chief's."
            found.append(finding("clock", "warn", text, "on the machine that is wrong: timedatectl set-ntp true"))
    told = sum(w.clock_skew_s is not None for w in workers)
    text = f"It is {time.strftime('%H:%M:%S %Z')} here; of {told} workers that said theirs none differs by more than {SKEW_WARN_S} s."
    return found or [finding("clock", "ok", text)]


def unreachable(workers: Sequence[views.WorkerView]) -> list[dict[str, Any]]:
    """Workers with an address of their own that the chief could not call just now."""
    found = [w.reason for w in workers if w.reason is not None and w.reason.code == "worker-unreachable"]
    return [finding("worker-address", "warn", reason.text, reason.actions[0]["label"] if reason.actions else "") for reason in found]


def _counted(workers: Sequence[views.WorkerView]) -> str:
    return f"{len(workers)} worker{' has' if len(workers) == 1 else 's have'}"
