"""Fragment path 6/9 - what a package requires, as a read-only folder of packages that its sandbox gets besides (I/O).

Only where this machine's owner said --allow-requirements. Wheels come from the chief alone, signed and by digest, are installed without
network and without running anything, and are tried by an import inside a sandbox before the first batch is accepted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Protocol

import trio

from company.requirements import build_environment, environment_key, modules_of
from company.sandbox import Profile, Sandbox
from company.sandbox.child import Child, ChildDied, ChildFailed
from company.wheel_list import Wheel, beyond_curated, open_wheels_untrusted
from company.wheelhouse import installed_distributions
from company.worker.retry import wait_before_attempt_s
from p2p.base.codec import encode_value
from p2p.base.errors import PeerError, Unavailable

log = logging.getLogger(__name__)
IMPORT_TIMEOUT_S = 60.0
# a chief that says one of these will say it again
NO_WHEELS = frozenset({"requirement-missing", "wheel-not-repackable", "bad-wheel", "bad-requirement", "too-many-wheels"})


class WheelSource(Protocol):
    """The way to the chief, as far as wheels go. Both raise `Unavailable`, `PeerError`."""

    async def wheel_list(self, job: str) -> tuple[bytes, bytes]:
        """The signed list for a job's requirements: (body, signature)."""

    async def wheel(self, job: str, sha256: bytes, size: int, path: Path) -> None:
        """Write one wheel into ``path``."""


class Environments:
    """The environments of one worker, made once each."""

    def __init__(
        self, folder: Path, scratch: Path, *, chief_key: bytes, source: WheelSource, sandbox: Sandbox, is_allowed: bool, rng: Random
    ) -> None:
        self._folder = folder
        self._scratch = scratch
        self._chief_key = chief_key
        self._source = source
        self._sandbox = sandbox
        self._is_allowed = is_allowed
        self._rng = rng
        self._tried: set[Path] = set()
        self._lock = trio.Lock()

    def check(self, requirements: Sequence[str]) -> tuple[str, ...]:
        """What is needed beyond a bare sandbox, if this machine's owner allows it. Raises `PeerError` requirements-not-allowed."""
        wanted = beyond_curated(requirements)
        if wanted and not self._is_allowed:
            text = f"this worker takes no further packages, and the job needs {', '.join(wanted)}; start it with --allow-requirements"
            raise PeerError("requirements-not-allowed", text[:1000])
        return wanted

    async def site(self, job: str, requirements: Sequence[str]) -> Path | None:
        """The folder for a job, or nil when a bare sandbox will do; waits for a chief that is away.

        Raises `PeerError` requirements-not-allowed, requirement-missing, wheel-damaged, requirement-broken;
        `Unavailable` environment-failed.
        """
        wanted = self.check(requirements)
        if not wanted:
            return None
        async with self._lock:
            site = await self._made(job, requirements, wanted)
            if site not in self._tried:
                os.utime(site)  # used now: `forget_environments` leaves it
                await self._try_imports(site, wanted)
                self._tried.add(site)
            return site

    async def _made(self, job: str, requirements: Sequence[str], wanted: Sequence[str]) -> Path:
        attempt = 0
        while True:
            try:
                body, signature = await self._source.wheel_list(job)
                wheels = open_wheels_untrusted(self._chief_key, requirements, body, signature)
                known = self._folder / environment_key(((w.file, w.sha256.hex()) for w in wheels), wanted)
                return known if known.is_dir() else await self._make(job, wheels, wanted)
            except Unavailable as error:
                if error.code in NO_WHEELS:
                    raise PeerError(error.code, error.text) from None
                if error.code == "environment-failed":
                    raise
                attempt += 1
                log.info("wheels for %s do not come: %s", job, error.text)
                await trio.sleep(wait_before_attempt_s(attempt, self._rng))

    async def _make(self, job: str, wheels: Sequence[Wheel], wanted: Sequence[str]) -> Path:
        folder = self._scratch / f"wheels-{job}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for wheel in wheels:
                path = folder / wheel.file
                await self._source.wheel(job, wheel.sha256, wheel.size, path)
                if path.stat().st_size != wheel.size or await trio.to_thread.run_sync(_sha256, path) != wheel.sha256:
                    raise PeerError("wheel-damaged", f"{wheel.file} is not what the chief has signed")
            promised = {w.file: w.sha256.hex() for w in wheels}
            return await trio.to_thread.run_sync(lambda: build_environment(folder, wanted, self._folder, promised=promised))
        except OSError as error:
            raise Unavailable("environment-failed", f"the requirements could not be unpacked: {error}") from None
        finally:
            await trio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def _try_imports(self, site: Path, wanted: Sequence[str]) -> None:
        """Import what was asked for, in a sandbox like the one where it will be used."""
        modules = await trio.to_thread.run_sync(_modules, site, tuple(wanted))
        code = "".join(f"import {name}\n" for name in modules) + "def process(fragment):\n    return fragment\n"
        child = await self._sandbox.start(Profile(role="process", site=site))
        try:
            await _load(child, code)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await child.aclose()


async def _load(child: Child, code: str) -> None:
    files = {"processor/main.py": code.encode()}
    try:
        with trio.fail_after(IMPORT_TIMEOUT_S):
            await child.load(role="process", params=encode_value({}), files=files, options={"entry": "main.py"})
    except ChildFailed as failed:
        raise PeerError("requirement-broken", f"a required package cannot be imported: {failed.type}: {failed.message}"[:1000]) from None
    except ChildDied as died:
        raise PeerError("requirement-broken", f"importing the required packages ended the process: {died.verdict.text}"[:1000]) from None
    except trio.TooSlowError:
        raise PeerError("requirement-broken", f"importing the required packages took more than {IMPORT_TIMEOUT_S:g} s") from None


def _modules(site: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """What the asked for distributions bring."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    installed = installed_distributions([str(site)])
    found = [installed.get(canonicalize_name(Requirement(text).name)) for text in wanted]
    return tuple(name for distribution in found if distribution is not None for name in modules_of(distribution))


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
