"""One daemon's sandbox: opened once, then starts children on the rung it stands on (I/O)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from company.sandbox.cgroups import find_groups
from company.sandbox.child import Child, ChildDied
from company.sandbox.ladder import BUBBLEWRAP, NONE, reason, refuse, rungs
from company.sandbox.profile import MIB, Profile
from company.sandbox.rung import Rung
from company.sandbox.selftest import SelfTest, run_self_test
from company.sandbox.site import build_site
from p2p.base.errors import Reason, UsageError

PROBE = Profile(role="process", tmp_bytes=MIB)


class Sandbox:
    """Starts children. ``rung``: bubblewrap, landlock or none; ``reason``: why it is that one; ``limits``: of control groups, in words."""

    def __init__(self, rung: Rung, why: Reason, limits: str = "", *, has_groups: bool = False) -> None:
        self._rung = rung
        self.rung = rung.name
        self.reason = why
        self.limits = limits
        self.has_groups = has_groups

    @property
    def is_for_strangers(self) -> bool:
        """Whether another company's work may run here; on the lower rungs only one's own."""
        return self.rung == BUBBLEWRAP

    @classmethod
    @asynccontextmanager
    async def open(cls, *, home: Path, stage: Sequence[Path] = (), allow_none: bool = False) -> AsyncIterator[Sandbox]:
        """Find the highest rung that works here and hold it.

        stage: folders whose contents may be mounted for children; made when missing. Call from the main thread.
        Raises `UsageError` when nothing works and ``allow_none`` was not said.
        """
        for folder in stage:
            folder.mkdir(parents=True, exist_ok=True)
        site = build_site(home / "cache")
        groups, limits = find_groups()
        failures: list[str] = []
        for candidate in rungs(home=home, site=site, stage=stage, allow_none=allow_none, groups=groups):
            try:
                rung = candidate.climb()
            except (OSError, UsageError) as error:
                failures.append(f"{candidate.name}: {error}")
                continue
            try:
                report = await run_self_test(rung.start, rung.name)
                if report.ok or rung.name == NONE:
                    yield cls(rung, reason(rung.name, failures), limits, has_groups=groups is not None)
                    return
                failures.append(f"{rung.name}: {report.first_failure()}")
            finally:
                rung.close()
        raise refuse(failures)

    async def start(self, profile: Profile) -> Child:
        """Start a blank child; it waits for `Child.load`. Raises `UsageError` for a mount it cannot reach, `OSError`."""
        return self._rung.start(profile)

    async def self_test(self) -> SelfTest:
        """Try from inside what must not work, and what must."""
        try:
            return await run_self_test(self._rung.start, self.rung)
        except ChildDied as death:
            return SelfTest(False, (("start", False, death.verdict.text),))
