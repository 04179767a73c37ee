"""The rungs of isolation, best first (pure, but for what climbing them does).

bubblewrap → Landlock, system call filter and rlimits (own company's work only) → none, only where the owner said so in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from company.sandbox import rung_bare, rung_bubblewrap
from company.sandbox.cgroups import Groups
from company.sandbox.rung import Rung
from p2p.base.errors import Reason, UsageError
from p2p.base.record import record

BUBBLEWRAP, LANDLOCK, NONE = rung_bubblewrap.NAME, rung_bare.LANDLOCK, rung_bare.NONE


@record
class Candidate:
    """A rung not yet tried. ``climb`` raises `OSError` or `UsageError` where this machine cannot."""

    name: str
    climb: Callable[[], Rung]


def rungs(*, home: Path, site: Path, stage: Sequence[Path], allow_none: bool, groups: Groups | None = None) -> Iterator[Candidate]:
    """The rungs to try, best first."""
    yield Candidate(BUBBLEWRAP, lambda: rung_bubblewrap.climb(site, stage, has_proc=True, groups=groups))
    # Some containers mask parts of /proc, and the kernel then refuses a fresh one; Python does without.
    yield Candidate(BUBBLEWRAP, lambda: rung_bubblewrap.climb(site, stage, has_proc=False, groups=groups))
    yield Candidate(LANDLOCK, lambda: rung_bare.climb(LANDLOCK, home, site, stage, groups))
    if allow_none:
        yield Candidate(NONE, lambda: rung_bare.climb(NONE, home, site, stage, groups))


def reason(name: str, failures: Sequence[str]) -> Reason:
    """Why a daemon stands where it stands. failures: what was tried above."""
    if name == BUBBLEWRAP:
        return Reason("sandbox-bubblewrap", "Modules run in bubblewrap: own namespaces, no network, read-only files, a system call filter.")
    tried = "; ".join(failures)
    if name == NONE:
        return Reason("sandbox-none", f"Modules run WITHOUT a sandbox, as the owner asked; only your own work is safe here. {tried}")
    return Reason("sandbox-landlock", f"Modules run under Landlock and a system call filter, enough for your own work. {tried}")


def refuse(failures: Sequence[str]) -> UsageError:
    """What a daemon says when it cannot isolate anything."""
    return UsageError(
        "no-sandbox",
        "No sandbox works on this machine, so nothing can be run: " + "; ".join(failures),
        hint="allow user namespaces (sysctl user.max_user_namespaces), or for your own work only: --sandbox none --i-understand",
    )
