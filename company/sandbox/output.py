"""What a merge writes into its output folder: measured while it runs, taken over when it has ended (I/O).

Only plain files and folders with ordinary names stay: a link could point anywhere once the daemon reads it, a FIFO would hang
it, a line feed in a name would end up in a header or on a terminal, and a tree too deep for a path could never be deleted.
Call `take_output` when the child is dead, so that nobody changes the folder meanwhile.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

from p2p.base.record import record

MAX_ENTRIES = 200_000
MAX_DEPTH = 64
MAX_PATH_BYTES = 1024  # below the folder; a whole path may have 4096
ENTRY_BYTES = 1024  # what an empty file costs: its inode and its name


@record
class Usage:
    """What a folder takes. ``trouble``: why it could not be measured to its end, "" when it could."""

    size_bytes: int
    entries: int
    trouble: str = ""


def measure(folder: Path) -> Usage:
    """Count what lies under ``folder``, without following links. A sparse file counts with its whole length: it will be copied."""
    total = entries = 0
    queue: list[tuple[str, int, int]] = [(str(folder), 0, 0)]
    while queue:
        path, depth, length = queue.pop()
        if depth > MAX_DEPTH or length > MAX_PATH_BYTES:
            return Usage(total, entries, "it holds folders nested too deeply")
        try:
            with os.scandir(path) as found:
                for entry in found:
                    entries += 1
                    if entries > MAX_ENTRIES:
                        return Usage(total, entries, f"it holds more than {MAX_ENTRIES:,} files")
                    total += _cost(entry)
                    if entry.is_dir(follow_symlinks=False):
                        queue.append((entry.path, depth + 1, length + 1 + len(os.fsencode(entry.name))))
        except FileNotFoundError:  # gone meanwhile
            continue
        except OSError as error:
            return Usage(total, entries, f"it holds a folder that cannot be read ({os.strerror(error.errno or 0)})")
    return Usage(total, entries)


def _cost(entry: os.DirEntry[str]) -> int:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:  # gone meanwhile
        return 0
    return ENTRY_BYTES + max(found.st_blocks * 512, found.st_size if stat.S_ISREG(found.st_mode) else 0)


def deleted_bytes(pid: int, inside: str) -> Usage:
    """What the processes below ``pid`` hold on the mount where they see ``inside``, though nothing names it."""
    seen: dict[tuple[int, int], int] = {}
    for process in descendants(pid):
        try:
            links, maps = os.listdir(f"/proc/{process}/fd"), Path(f"/proc/{process}/maps").read_bytes()
            mount = mount_id(Path(f"/proc/{process}/mountinfo").read_bytes(), os.fsencode(inside))
        except OSError:  # it has ended
            continue
        if re.search(rb" %b/.* \(deleted\)$" % re.escape(os.fsencode(inside)), maps, re.MULTILINE):
            return Usage(0, 0, "a file is mapped that was deleted")  # and who knows how long it is
        for link in links:
            try:
                found = os.stat(f"/proc/{process}/fd/{link}")
                about = Path(f"/proc/{process}/fdinfo/{link}").read_bytes()
            except OSError:
                continue
            # by mount and not by device: a file of an overlay, as in a container, has another device than its folder
            if found.st_nlink == 0 and re.search(rb"^mnt_id:\s*%d$" % mount, about, re.MULTILINE):
                seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return Usage(sum(seen.values()), len(seen))


def mount_id(mountinfo: bytes, path: bytes) -> int:
    """The number of the mount that ``path`` lies on; -1 where none is listed. ``mountinfo``: as in proc(5)."""
    best, number = -1, -1
    for line in mountinfo.splitlines():
        words = line.split(b" ")
        point = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), words[4]).rstrip(b"/")
        if (path == point or path.startswith(point + b"/")) and len(point) >= best:  # the last of several at one place covers the others
            best, number = len(point), int(words[0])
    return number


def tmp_entries(pid: int) -> int:
    """How many files lie in the private /tmp and /package of the child below ``pid``."""
    used = 0
    for process in descendants(pid)[:1]:
        if _has_our_root(process):
            continue
        for folder in ("tmp", "package"):
            try:
                found = os.statvfs(f"/proc/{process}/root/{folder}")
            except OSError:  # it has ended
                continue
            used += found.f_files - found.f_ffree
    return used


def _has_our_root(pid: int) -> bool:
    """Whether it is gone, or not in its own mounts yet: what it sees as /tmp is then the machine's."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/root/"), os.stat("/"))
    except OSError:
        return True


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``, deepest first."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    below = [int(word) for word in words]
    return [*(grandchild for child in below for grandchild in descendants(child)), *below]


def take_output(folder: Path) -> list[tuple[str, int]]:
    """Make everything under ``folder`` the daemon's own, delete what is no file, return [(relative path, bytes)] sorted."""
    _own(folder, 0o700)
    _cut_deep_trees(folder)
    found: list[tuple[str, int]] = []
    for parent, folders, files in os.walk(folder):
        for name in files:
            path = _named_plainly(Path(parent), name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                _own(path, 0o600)
                found.append((str(path.relative_to(folder)), status.st_size))
            else:
                path.unlink()
        for name in list(folders):
            if Path(parent, name).is_symlink():
                Path(parent, name).unlink()
                folders.remove(name)
                continue
            folders[folders.index(name)] = _named_plainly(Path(parent), name).name
    return sorted(found)


def _named_plainly(parent: Path, name: str) -> Path:
    """Rename what cannot be shown, stored or sent under its name."""
    plain = "".join(c if c.isprintable() and c != "\\" else "_" for c in os.fsencode(name).decode("utf-8", "replace"))
    target, number = parent / plain, 0
    while plain != name and os.path.lexists(target):
        number += 1
        target = parent / f"{number}_{plain[-200:]}"
    if plain != name:
        os.rename(parent / name, target)
    return target


def _cut_deep_trees(folder: Path) -> None:
    """Make every folder ours and delete those nested too deeply, by lifting them up until a path reaches their end."""
    lifted: list[Path] = []
    queue: list[tuple[Path, int, int]] = [(folder, 0, 0)]
    while queue:
        path, depth, length = queue.pop()
        for name in os.listdir(path):
            below = path / name
            if not stat.S_ISDIR(os.lstat(below).st_mode):
                continue
            _own(below, 0o700)
            longer = length + 1 + len(os.fsencode(name))
            if depth + 1 <= MAX_DEPTH and longer <= MAX_PATH_BYTES:
                queue.append((below, depth + 1, longer))
                continue
            lifted.append(folder / f".deep-{os.urandom(8).hex()}")
            os.rename(below, lifted[-1])
            queue.append((lifted[-1], 1, 0))
    for path in lifted:
        shutil.rmtree(path, ignore_errors=True)


def _own(path: Path, least: int) -> None:
    """Ours, readable by us, and neither set-uid nor writable by others."""
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    path.chmod((mode & 0o755) | least)
