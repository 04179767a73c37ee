"""The wheels that packages require, from the chief's own installation or its owner's folder, and the environments made of them (I/O).

Collecting and installing take seconds, so each set of requirements is done once, in a thread, by whoever asks first.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from company.chief.facade import Invalid, NotFound
from company.chief.runtime import JobRuntime
from company.paths import ChiefHome
from company.requirements import build_environment, collect_wheels
from company.wheel_list import Wheel, beyond_curated, seal_wheels
from company.wheel_repack import WheelFile
from p2p.base.errors import ParallelError, UsageError
from p2p.base.keys import Identity
from p2p.base.record import record


@record
class Collected:
    """The wheels of one set of requirements, with the signed list of them."""

    folder: Path
    wheels: tuple[WheelFile, ...]
    body: bytes
    signature: bytes

    def find(self, sha256: bytes) -> WheelFile | None:
        """The wheel with this digest."""
        return next((w for w in self.wheels if w.sha256 == sha256.hex()), None)


class RequirementWheels:
    """Wheels and environments of one chief."""

    def __init__(self, home: ChiefHome, identity: Identity) -> None:
        self._given = home.root / "wheels"  # the owner may put wheels here
        self._folder = home.cache / "requirement-wheels"
        self._environments = home.environments
        self._identity = identity
        self._collected: dict[tuple[str, ...], Collected] = {}
        self._lock = trio.Lock()

    async def check(self, requirements: Sequence[str]) -> None:
        """Whether a job may be taken: all that its package requires can be shipped. Raises `Invalid`."""
        try:
            if beyond_curated(requirements):
                await self.wheels(requirements)
        except ParallelError as error:
            hint = f"pip install it where the chief runs, or put the wheels into {self._given}"
            detail = [{"path": "package.toml", "line": None, "detail": error.text}]
            raise Invalid(error.code, error.text, hint=hint, errors=detail) from None

    async def wheels(self, requirements: Sequence[str]) -> Collected:
        """The wheels of ``requirements`` and of all that they require.

        Raises `Unavailable` requirement-missing, wheel-not-repackable; `UsageError` bad-wheel; `PeerError` bad-requirement.
        """
        key = tuple(requirements)
        async with self._lock:
            if key not in self._collected:
                self._collected[key] = await trio.to_thread.run_sync(self._collect, key)
            return self._collected[key]

    def _collect(self, requirements: tuple[str, ...]) -> Collected:
        folder = self._folder / hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:32]
        shutil.rmtree(folder, ignore_errors=True)  # of another version of this chief's installation
        wanted = beyond_curated(requirements)
        wheels = collect_wheels(wanted, folder, given=self._given if self._given.is_dir() else None)
        listed = [Wheel(w.file, w.size, bytes.fromhex(w.sha256)) for w in wheels]
        return Collected(folder, wheels, *seal_wheels(self._identity, requirements, listed))

    async def of_job(self, jobs: Mapping[str, JobRuntime], job: str) -> Collected:
        """The wheels of a live job. Raises `NotFound`, and as `wheels`."""
        runtime = jobs.get(job)
        if runtime is None:
            raise NotFound("job-unknown", f"There is no live job {job[:40]!r}.")
        return await self.wheels(runtime.requirements)

    async def wheel_of(self, jobs: Mapping[str, JobRuntime], job: str, sha256: bytes) -> WheelFile:
        """One wheel of a live job's list. Raises as `of_job`, and `NotFound` wheel-unknown."""
        wheel = (await self.of_job(jobs, job)).find(sha256)
        if wheel is None:
            raise NotFound("wheel-unknown", "No wheel of this job has this digest.")
        return wheel

    async def environment(self, requirements: Sequence[str]) -> Path | None:
        """The folder of packages for split and merge, or nil when a bare sandbox will do. Raises as `wheels`, and environment-failed."""
        wanted = beyond_curated(requirements)
        if not wanted:
            return None
        collected = await self.wheels(requirements)
        try:
            return await trio.to_thread.run_sync(lambda: build_environment(collected.folder, wanted, self._environments))
        except OSError as error:
            raise UsageError("environment-failed", f"the requirements could not be unpacked: {error}") from None
