"""Which paths a package may hold, and which files are never part of one (pure).

The same rules bind archives, multipart uploads and folders, so that a package which was accepted once can be written to any
of our file systems: relative, no "..", no names that differ only in case or Unicode form, nothing hidden behind a drive letter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

MAX_PATH_BYTES = 240  # leaves room for the folders of $COMPANY_HOME below the 255 bytes of common file systems
MAX_DEPTH = 16

IGNORED_FOLDERS = frozenset(
    (
        *(".git", ".hg", ".svn", ".venv", "venv", ".tox", "node_modules", ".idea", ".vscode"),
        *("__pycache__", "__MACOSX", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints", ".hypothesis"),
    )
)
IGNORED_FILES = frozenset((".DS_Store", "Thumbs.db", "desktop.ini"))
IGNORED_ENDINGS = (".pyc", ".pyo")


class UnsafePath(ValueError):
    """A path that no package may hold; the text says why."""


def safe_path(raw: str) -> str:
    """Return ``raw`` as a relative path with forward slashes, "" for the top folder itself. Raises `UnsafePath`."""
    name = raw.replace("\\", "/")  # archives made by old Windows tools; checked after the change, so nothing slips through
    if name.startswith("/"):
        raise UnsafePath("it is absolute")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafePath('it contains ".."')
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise UnsafePath("it contains a control character")
    if ":" in name:
        raise UnsafePath('it contains ":" (a drive letter or a stream)')
    path = "/".join(parts)
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise UnsafePath("its name is not valid UTF-8") from None
    if length > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        raise UnsafePath(f"it is longer than {MAX_PATH_BYTES} bytes or deeper than {MAX_DEPTH} folders")
    return path


def is_ignored(path: str) -> bool:
    """Whether ``path`` is something no package needs: version control, caches, byte code."""
    *folders, name = path.split("/")
    return name in IGNORED_FILES or name in IGNORED_FOLDERS or name.endswith(IGNORED_ENDINGS) or any(f in IGNORED_FOLDERS for f in folders)


def path_key(path: str) -> str:
    """What two paths share when some file system would take them for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def show(path: str) -> str:
    """``path`` for a message: at most 120 characters, control characters made visible."""
    text = path if len(path) <= 120 else path[:117] + "..."
    return repr(text)[1:-1]


def size_text(size_bytes: int) -> str:
    """``size_bytes`` in the largest binary unit that keeps it at 1 or more: "1.5 MiB"."""
    value = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 or value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def largest_text(largest: Sequence[tuple[str, int]]) -> str:
    """The largest files as one phrase."""
    return ", ".join(f"{show(path)} {size_text(size)}" for path, size in largest)
