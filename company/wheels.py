"""The wheelhouse beside a running chief: a process of its own builds it, this one answers from it (I/O).

Building costs some seconds of CPU on the first start of a home; in a thread that time would be taken from the chief's own loop.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import trio

from company.wheel_repack import WheelFile
from company.wheelhouse import INSTALLER, Answer, Wheelhouse, installer, open_wheelhouse
from p2p.base.errors import Unavailable

BUILD_AFTER_S = 3.0  # the first seconds belong to whoever started the chief
BACKGROUND_NICE = 10
_log = logging.getLogger("company.wheels")


class Wheels:
    """Answers the plain GETs of a machine that is about to join. ``on_built``: told the wheels once they are there."""

    def __init__(self, folder: Path, *, on_built: Callable[[tuple[WheelFile, ...]], None] = lambda wheels: None) -> None:
        self._folder = folder
        self._on_built = on_built
        self._house: Wheelhouse | None = None
        self._lock = trio.Lock()

    async def build_soon(self) -> None:
        """Build before anybody asks."""
        await trio.sleep(BUILD_AFTER_S)
        try:
            await self.house(nice=BACKGROUND_NICE)
        except Unavailable as error:
            _log.warning("no wheelhouse: %s", error.text)

    async def house(self, *, nice: int = 0) -> Wheelhouse:
        """The wheelhouse; whoever asks first waits for its building. Raises `Unavailable`."""
        async with self._lock:
            if self._house is None:
                await self._build(nice)
                self._house = await trio.to_thread.run_sync(open_wheelhouse, self._folder)
                self._on_built(self._house.wheels)
            return self._house

    async def _build(self, nice: int) -> None:
        command = [sys.executable, "-P", "-m", "company.wheelhouse", str(self._folder), str(nice)]
        done = await trio.run_process(command, stdin=subprocess.DEVNULL, capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise Unavailable("wheelhouse-failed", said[-2000:] or f"building it ended with {done.returncode}")

    async def get(self, path: str) -> Answer:
        """One GET of the RPC port. The installer itself waits for nothing: it says what it waits for."""
        if path == INSTALLER:
            return installer()
        try:
            house = await self.house()
        except Unavailable as error:
            _log.warning("no wheelhouse: %s", error.text)
            return 503, "text/plain; charset=utf-8", error.text.encode()
        return await trio.to_thread.run_sync(house.get, path)
