"""The lower rungs: no namespaces. Landlock, filter and rlimits that the child puts on itself before it reads anything; or none (I/O)."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from company.sandbox import bwrap, host, seccomp, staging
from company.sandbox.cgroups import Groups
from company.sandbox.child import Child
from company.sandbox.profile import Profile
from company.sandbox.rung import Rung, all_mounts, check_readable, open_stage, reachable_interpreter, reachable_numpy, settings_hex
from company.sandbox.spawn import Ends, spawn
from p2p.base.errors import UsageError
from p2p.base.record import record

LANDLOCK, NONE = "landlock", "none"
SCRATCH_BYTES = 4 << 30
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_CALLS = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")


def climb(name: str, home: Path, site: Path, stage_dirs: Sequence[Path], groups: Groups | None = None) -> Rung:
    """Stage and prepare. Raises `UsageError` where something is missing."""
    if name == LANDLOCK and not seccomp.is_known(platform.machine()):
        raise UsageError("no-seccomp", f"there is no system call filter for {platform.machine()}")
    own = host.own_interpreter()
    stage = open_stage(own, site, stage_dirs, None)
    try:
        interpreter = reachable_interpreter(own, stage)
        scratch = _scratch(home, stage)
    except BaseException:
        stage.close()
        raise
    libraries = scratch / "libraries"  # links to numpy alone, not its whole site-packages
    libraries.mkdir()
    numpy = reachable_numpy(stage)
    for folder_name, folder in numpy.items():
        (libraries / folder_name).symlink_to(folder)
    prefix = stage.path(interpreter.prefix) if interpreter.prefix else None
    own_libraries = prefix / "lib" if prefix and interpreter.library_dir else None
    readable = [*host.SYSTEM_DIRS, *host.ETC_FILES, prefix, stage.path(site), libraries, *numpy.values()]
    starter = _Starter(
        confined=name == LANDLOCK,
        stage=stage,
        scratch=scratch,
        site=stage.path(site),
        python=prefix / interpreter.executable.relative_to(interpreter.prefix) if prefix and interpreter.prefix else interpreter.executable,
        library_dirs=tuple(str(path) for path in (own_libraries, numpy.get("numpy.libs")) if path),
        libraries=libraries,
        readable=tuple(str(path) for path in readable if path),
        groups=groups,
    )

    def close() -> None:
        stage.close()
        shutil.rmtree(scratch, ignore_errors=True)

    return Rung(name, starter, close)


@record
class _Starter:
    confined: bool
    stage: staging.Stage
    scratch: Path
    site: Path
    python: Path
    library_dirs: tuple[str, ...]  # numpy finds its own beside itself, but not when both are staged
    libraries: Path
    readable: tuple[str, ...]
    groups: Groups | None

    def __call__(self, profile: Profile) -> Child:
        uid = self.stage.next_uid()
        mounts = {m.inside: str(self.stage.path(m.host)) for m in all_mounts(profile)}
        check_readable(profile, uid)
        work = self._work_folder(uid)
        confine: dict[str, Any] = {"daemon": os.getpid()}
        if self.confined:
            writable = [str(work), *(mounts[m.inside] for m in all_mounts(profile) if m.writable)]
            machine = platform.machine()
            confine |= {
                "read": [*self.readable, *mounts.values()], "write": writable, "devices": _DEVICES,
                "filter": seccomp.program(machine, deny_signals=True), "calls": [seccomp.number_of(machine, call) for call in _CALLS],
            }  # fmt: skip
        paths = [str(self.libraries), *([mounts["/packages"]] if profile.site else [])]

        def argv(ends: Ends) -> list[str]:
            told = settings_hex(ends, profile, package=str(work / "package"), paths=paths, confine=confine)
            return [str(self.python), *bwrap.PYTHON_FLAGS, "-c", bwrap.BOOT.format(site=str(self.site)), told]

        env = bwrap.environment(tmp=str(work / "tmp"), library_dir=":".join(self.library_dirs))
        return spawn(argv, profile=profile, filter_program=b"", uid=uid, env=env, reachable=mounts, cleanup=work, groups=self.groups)

    def _work_folder(self, uid: int | None) -> Path:
        work = Path(tempfile.mkdtemp(prefix="child-", dir=self.scratch))
        folders = (work, work / "package", work / "tmp")
        for folder in folders[1:]:
            folder.mkdir()
        if uid is not None:
            for folder in folders:
                os.chown(folder, uid, uid)
        return work


def _scratch(home: Path, stage: staging.Stage) -> Path:
    """A folder for the files of children: on a private tmpfs where we may mount, else on disk, cleaned of dead daemons' leavings."""
    if stage.root is not None:
        return stage.mount_scratch(SCRATCH_BYTES)
    if os.geteuid() == 0:
        scratch = Path(tempfile.mkdtemp(prefix="company-scratch-"))
    else:
        for old in (home / "scratch").glob("sandbox-*"):
            if not Path("/proc", old.name.split("-")[1]).exists():
                shutil.rmtree(old, ignore_errors=True)
        (home / "scratch").mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"sandbox-{os.getpid()}-", dir=home / "scratch"))
    scratch.chmod(0o711)
    return scratch
