"""What one sandboxed child may have: memory, space, files (pure)."""

from __future__ import annotations

from pathlib import Path

from p2p.base.record import record

MIB = 1 << 20


@record
class Mount:
    """A file or folder of the host, seen inside under an absolute path."""

    host: Path
    inside: str
    writable: bool = False


@record(kw_only=True)
class Profile:
    """The bounds of a child. role: split, process, merge or same (what it will be loaded as; for messages only)."""

    role: str
    memory_bytes: int = 512 * MIB
    tmp_bytes: int = 256 * MIB
    mounts: tuple[Mount, ...] = ()
    output: Path | None = None  # bound writable at /output
    output_max_bytes: int = 16 << 30  # of everything under ``output``; watched, killed past it
    site: Path | None = None  # read-only folder of further importable packages (a package's requirements)
    cpu_niceness: int = 0
    processes: int = 0  # it may start so many; only where a pid namespace ends them with it (`company.sandbox.rung_bubblewrap`)

    def rlimits(self) -> dict[str, int]:
        """Names of module resource and values, hard and soft."""
        return {
            # RLIMIT_DATA is what a user means by memory; address space also holds libraries and stacks, so it gets more room.
            "RLIMIT_DATA": self.memory_bytes,
            "RLIMIT_AS": self.memory_bytes + 256 * MIB,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 1024,
            "RLIMIT_NPROC": 256,  # lower makes bwrap itself fail now and then; seccomp denies fork, or a group counts tasks
            "RLIMIT_FSIZE": max(self.tmp_bytes, self.output_max_bytes if self.output else 0),
        }
