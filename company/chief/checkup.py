"""What `company doctor` says of a running chief: each finding has an id, a verdict, a fix and a page (I/O: looks, changes nothing)."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from company import views
from company.paths import Home
from company.sandbox.sandbox import Sandbox

NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "glusterfs", "ceph", "lustre"})
LOW_DISK_BYTES = 1 << 30
SKEW_WARN_S = 30


class _Addresses(Protocol):
    http: str
    rpc: str
    dht: str | None


def finding(check: str, verdict: str, text: str, fix: str = "") -> dict[str, Any]:
    """One line of the doctor. verdict: ok, warn or fail."""
    return {"id": check, "verdict": verdict, "text": text, "fix": fix, "link": f"docs/doctor.md#{check}"}


async def checkup(*, home: Home, sandbox: Sandbox, addresses: _Addresses, workers: Sequence[views.WorkerView]) -> list[dict[str, Any]]:
    """Every finding about the chief and the workers it knows."""
    found = [await isolation(sandbox), disk(home.root), file_system(home.root), ports(addresses)]
    found += [*versions(workers), *clocks(workers)]
    return found


async def isolation(sandbox: Sandbox) -> dict[str, Any]:
    """Which rung of the ladder, proven now, and how to climb."""
    proof = await sandbox.self_test()
    failed = [name for name, ok, _ in proof.checks if not ok]
    if sandbox.rung == "bubblewrap" and proof.ok:
        return finding("isolation", "ok", f"bubblewrap: {len(proof.checks)} checks passed just now.")
    if failed:
        return finding("isolation", "fail", f"{sandbox.rung}: {', '.join(failed)} did not hold.", sandbox.reason.text)
    return finding("isolation", "warn", f"{sandbox.rung}: {sandbox.reason.text}", _climb())


def _climb() -> str:
    path = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if path.exists() and path.read_text().strip() == "1":
        return "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    path = Path("/proc/sys/kernel/unprivileged_userns_clone")
    if path.exists() and path.read_text().strip() == "0":
        return "sysctl -w kernel.unprivileged_userns_clone=1"
    path = Path("/proc/sys/user/max_user_namespaces")
    if path.exists() and path.read_text().strip() == "0":
        return "sysctl -w user.max_user_namespaces=10000"
    return "install bubblewrap (Debian: apt-get install bubblewrap), or allow user namespaces in this container"


def disk(root: Path) -> dict[str, Any]:
    """Free space where the home lies."""
    usage = shutil.disk_usage(root)
    free = f"{usage.free / (1 << 30):.1f} GiB free of {usage.total / (1 << 30):.1f} in {root}"
    if usage.free < LOW_DISK_BYTES:
        return finding("disk", "fail", free, "free space, or remove old data: company data list, company job rm ID")
    return finding("disk", "ok" if usage.free > usage.total * 0.05 else "warn", free, "" if usage.free > usage.total * 0.05 else "company job rm ID")


def file_system(root: Path) -> dict[str, Any]:
    """SQLite's WAL needs shared memory, which network file systems do not give."""
    kind = file_system_of(root)
    if kind in NETWORK_FILE_SYSTEMS:
        text = f"{root} lies on {kind}, a network file system: the database can be damaged there."
        return finding("file-system", "fail", text, "company start --home /a/local/directory")
    return finding("file-system", "ok", f"{root} lies on {kind or 'an unknown file system'}.")


def file_system_of(path: Path) -> str:
    """The type of the file system that holds ``path``, from /proc/mounts; "" where that is not there."""
    best, kind = "", ""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    for line in lines:
        _, mount, name, *_ = line.split()
        mount = mount.replace("\\040", " ")
        if (real == mount or real.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def ports(addresses: _Addresses) -> dict[str, Any]:
    """Where it listens, and the firewall command that opens it."""
    port = addresses.rpc.rpartition(":")[2]
    loopback = addresses.rpc.startswith(("127.", "[::1]"))
    text = f"workers connect to {addresses.rpc} (TCP); web page and REST on {addresses.http}"
    if loopback:
        return finding("ports", "warn", f"{text}: only this machine can reach it.", "company start --rpc 0.0.0.0:8468")
    fix = f"ufw allow {port}/tcp" if shutil.which("ufw") else f"firewall-cmd --add-port={port}/tcp --permanent"
    return finding("ports", "ok", f"{text}. If workers cannot connect: {fix}")


def versions(workers: Sequence[views.WorkerView]) -> list[dict[str, Any]]:
    """Workers whose Python or release differs from the chief's."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = []
    for worker in workers:
        if worker.python and ".".join(worker.python.split(".")[:2]) != here:
            text = f"{worker.name} runs Python {worker.python}, the chief {platform.python_version()}: values travel, but packages may behave differently."
            found.append(finding("python", "warn", text, f"use Python {here} there, or say python = in package.toml"))
    releases = {w.version for w in workers if w.version}
    if len(releases) > 1:
        found.append(finding("release", "warn", f"Workers run different releases: {', '.join(sorted(releases))}.", "install again with the line of company token create"))
    return found or [finding("python", "ok", f"Python {platform.python_version()}; {len(workers)} workers agree.")]


def clocks(workers: Sequence[views.WorkerView]) -> list[dict[str, Any]]:
    """Workers whose clock differs from the chief's."""
    skewed = [w for w in workers if w.clock_skew_s is not None and abs(w.clock_skew_s) > SKEW_WARN_S]
    if not skewed:
        return [finding("clock", "ok", f"It is {time.strftime('%H:%M:%S')} here; no worker's clock differs by more than {SKEW_WARN_S} s.")]
    return [finding("clock", "warn", f"{w.name}'s clock differs by {w.clock_skew_s:.0f} s.", "timedatectl set-ntp true") for w in skewed]
