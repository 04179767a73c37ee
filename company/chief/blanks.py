"""Fragment path 2/9 and 8/9, ahead of time - a blank child for the next split and one for the next merge (I/O).

A child for `split` sees its data and one for `merge` its output folder, and mounts are fixed when a child starts. So each blank
one is started with an empty folder of its own: the data file is linked into it when the job is known, the output is what merge
leaves there. What does not fit (a directory as data, another file system, other limits, requirements) gets a fresh child.
The next blank ones start when a job is over, or a moment after one was taken: not while a short job wants the cores.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Literal

import trio

from company.package import DEFAULT_MEMORY_BYTES
from company.sandbox.child import Child
from company.sandbox.ladder import BUBBLEWRAP
from company.sandbox.profile import Mount, Profile
from company.sandbox.sandbox import Sandbox
from p2p.base.errors import ParallelError
from p2p.base.record import record

FIRST_S = 0.5  # after the chief's start, which is not to wait for the first blank children
REFILL_S = 2.0
RETRY_S = 60.0
Role = Literal["split", "merge"]
_log = logging.getLogger("company.chief.blanks")


@record
class Blank:
    """A child that has no package yet. ``folder``: its data or its output, the taker's to remove."""

    child: Child
    folder: Path


class Blanks:
    """At most one blank child of each role. ``root``: a folder that children can reach; emptied at the start."""

    def __init__(self, sandbox: Sandbox, root: Path) -> None:
        self._sandbox = sandbox
        self._root = root
        self._kept: dict[Role, Blank] = {}
        self._serial = 0
        self._taken = trio.Event()
        self._quiet = trio.Event()

    async def run(self) -> None:
        """Keep blank children ready until cancelled."""
        for left in self._root.iterdir():  # not the folder itself, which is staged
            shutil.rmtree(left, ignore_errors=True)
        if self._sandbox.rung != BUBBLEWRAP:
            return
        await trio.sleep(FIRST_S)
        try:
            while True:
                if not await self._refill():
                    await trio.sleep(RETRY_S)
                    continue
                await self._taken.wait()
                self._taken, self._quiet = trio.Event(), trio.Event()
                with trio.move_on_after(REFILL_S):
                    await self._quiet.wait()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                for blank in list(self._kept.values()):
                    await self._drop(blank)

    def job_over(self) -> None:
        """Nobody is in a hurry now."""
        self._quiet.set()

    def take(self, role: Role, *, memory_bytes: int, site: Path | None) -> Blank | None:
        """A blank child, the caller's to close, or None when a fresh one must be started."""
        if site is not None or memory_bytes != DEFAULT_MEMORY_BYTES:
            return None
        blank = self._kept.pop(role, None)
        if blank is not None:
            self._taken.set()
        return blank if blank is not None and blank.child.is_alive else None

    def take_for_data(self, data: Path, name: str, *, memory_bytes: int, site: Path | None) -> Blank | None:
        """One for split that sees the file ``data`` as /data/``name``, or None."""
        if "split" not in self._kept or "/" in name or not data.is_file():
            return None
        link = self._kept["split"].folder / name
        try:
            os.link(data, link, follow_symlinks=False)
        except OSError:
            return None
        blank = self.take("split", memory_bytes=memory_bytes, site=site)
        if blank is None:
            link.unlink(missing_ok=True)
        return blank

    async def _refill(self) -> bool:
        for role in ("split", "merge"):
            kept = self._kept.get(role)
            if kept is not None and not kept.child.is_alive:
                await self._drop(self._kept.pop(role))
            if role not in self._kept:
                try:
                    self._kept[role] = await self._start(role)
                except (ParallelError, OSError) as error:
                    _log.warning("no blank child for %s: %s", role, error)
                    return False
        return True

    async def _start(self, role: Role) -> Blank:
        self._serial += 1
        folder = self._root / f"{role}-{self._serial}"
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
        if role == "split":
            mount = Mount(host=folder, inside="/data", writable=False)
            profile = Profile(role=role, memory_bytes=DEFAULT_MEMORY_BYTES, mounts=(mount,))
        else:
            profile = Profile(role=role, memory_bytes=DEFAULT_MEMORY_BYTES, output=folder, output_max_bytes=output_limit(folder))
        return Blank(await self._sandbox.start(profile), folder)

    async def _drop(self, blank: Blank) -> None:
        await blank.child.aclose()
        with contextlib.suppress(OSError):
            shutil.rmtree(blank.folder)


def output_limit(folder: Path) -> int:
    """What a merge may write: half of what is free."""
    return min(1 << 40, max(64 << 20, shutil.disk_usage(folder).free // 2))
