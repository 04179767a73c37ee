"""How an unprivileged child of a root daemon gets to files under a 0700 home (I/O).

A root daemon enters a mount namespace of its own, puts a small tmpfs at /run/company and binds there what children need; the
namespace ends with the daemon, however it dies, so nothing is left to clean but one empty folder. Mounts made by the host
later still arrive (slave propagation). The namespace belongs to the calling thread: children are spawned from it.
An ordinary user's daemon needs none of this: its children run as the same user.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from company.sandbox import host
from p2p.base.errors import InvariantBroken, UsageError

STAGE_ROOT = Path("/run/company")
_OWNER = STAGE_ROOT / ".owner"
_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 1, 2, 4, 32, 4096, 16384, 1 << 19
_MNT_DETACH = 2
_UNUSED_UIDS = 1_879_048_192  # 0x70000000: no distribution hands these out (systemd.io/UIDS-GIDS)
_UIDS_PER_DAEMON = 1024


@dataclass(slots=True)
class Stage:
    """Where a child finds host paths, and as whom it runs. Not staged: at their own place, as the daemon's user."""

    root: Path | None = None
    places: dict[Path, Path] = field(default_factory=dict)  # host folder to where it is bound
    uids: itertools.cycle[int] | None = None

    def path(self, path: Path) -> Path:
        """Where a child can reach ``path``. Raises `UsageError` when it cannot."""
        path = Path(os.path.realpath(path))
        if self.uids is None:
            return path
        for source, place in self.places.items():
            if path.is_relative_to(source):
                return place / path.relative_to(source)
        if host.can_others_reach(path):
            return path
        raise UsageError("path-not-staged", f"{path} cannot be read by a sandboxed child; it is under no folder given to Sandbox.open")

    def next_uid(self) -> int | None:
        """The user of the next child; None: the daemon's own."""
        return None if self.uids is None else next(self.uids)

    def mount_scratch(self, size_bytes: int) -> Path:
        """A private tmpfs for files of children; only where we may mount."""
        if self.root is None:
            raise InvariantBroken("no stage to put a scratch folder on")
        place = self.root / "scratch"
        place.mkdir()
        _mount(None, place, _MS_NOSUID | _MS_NODEV, kind="tmpfs", data=f"size={size_bytes},mode=711")
        self.places[place] = place
        return place

    def close(self) -> None:
        """Undo the binds."""
        if self.root is None:
            return
        for place in self.places.values():
            _libc().umount2(os.fsencode(place), _MNT_DETACH)
        shutil.rmtree(self.root, ignore_errors=True)


def open_stage(*, read_only: Iterable[Path], writable: Iterable[Path]) -> Stage:
    """Make the folders reachable for children. Raises `OSError` where a root daemon may not mount."""
    if os.geteuid() != 0:
        return Stage()
    if not _is_ours():
        _enter_namespace()
    root = Path(tempfile.mkdtemp(dir=STAGE_ROOT, prefix="sandbox-"))
    root.chmod(0o755)
    stage = Stage(root, {}, _uids())
    try:
        for number, (source, is_writable) in enumerate([*((p, False) for p in read_only), *((p, True) for p in writable)]):
            source = Path(os.path.realpath(source))
            if source in stage.places:
                continue
            place = root / str(number)
            place.mkdir()
            _mount(source, place, _MS_BIND | _MS_REC)
            stage.places[source] = place
            if not is_writable:
                _mount(None, place, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID)
    except OSError:
        stage.close()
        raise
    return stage


def drop_only() -> Stage:
    """A root daemon that may not mount still runs children as nobody in particular."""
    return Stage(uids=_uids()) if os.geteuid() == 0 else Stage()


def _uids() -> itertools.cycle[int]:
    base = _UNUSED_UIDS + os.getpid() % 250_000 * _UIDS_PER_DAEMON
    if not _is_mapped(base):
        base = 64_000  # inside a container that knows 65,536 users
        return itertools.cycle(range(base, base + 999))
    return itertools.cycle(range(base, base + _UIDS_PER_DAEMON))


def _is_mapped(uid: int) -> bool:
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:
        return True
    return any(int(first) <= uid < int(first) + int(count) for first, _, count in (line.split() for line in lines))


def _is_ours() -> bool:
    try:
        return _OWNER.read_text() == str(os.getpid()) and os.path.ismount(STAGE_ROOT)
    except OSError:
        return False


def _enter_namespace() -> None:
    STAGE_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    if _libc().unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    _mount(None, Path("/"), _MS_SLAVE | _MS_REC)
    _mount(None, STAGE_ROOT, _MS_NOSUID | _MS_NODEV, kind="tmpfs", data="size=1m,mode=755")
    _OWNER.write_text(str(os.getpid()))


def _mount(source: Path | None, target: Path, flags: int, *, kind: str | None = None, data: str | None = None) -> None:
    def raw(text: object | None) -> bytes | None:
        return None if text is None else os.fsencode(str(text))

    if _libc().mount(raw(source or "none"), raw(target), raw(kind), flags, raw(data)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    return libc
