"""Where the files of a form belong in a package (pure).

A browser sends either a folder, whose paths all begin with its name, or loose files without folders. Loose files are put where a package
has them: split.py, merge.py and package.toml at the top, every other Python file under processor/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from company.chief.facade import Invalid

TOP_FILES: Final = frozenset({"split.py", "merge.py", "package.toml", "readme.md", "license"})
MAX_PATH_BYTES: Final = 512


def package_files_untrusted(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Files by their path in the package. Raises `Invalid` naming every path that must not be."""
    wrong = [path for path in files if not is_plain_path(path)]
    if wrong:
        raise Invalid(
            "path-forbidden",
            f"{len(wrong)} path(s) of the package are forbidden.",
            hint="Paths are relative, without '..' or backslash.",
            errors=[{"path": path[:200], "detail": "forbidden path"} for path in wrong[:20]],
        )
    tops = {path.split("/", 1)[0] for path in files}
    if len(tops) == 1 and all("/" in path for path in files) and tops != {"processor"}:
        return package_files_untrusted({path.split("/", 1)[1]: data for path, data in files.items()})
    if any("/" in path for path in files):
        return dict(files)
    return {path if path.lower() in TOP_FILES or not path.endswith(".py") else f"processor/{path}": data for path, data in files.items()}


def is_plain_path(path: str) -> bool:
    """Whether a path stays inside the directory that it is put in."""
    if not 0 < len(path.encode("utf-8", "surrogatepass")) <= MAX_PATH_BYTES or not path.isprintable() or "\\" in path or ":" in path:
        return False
    return all(piece not in ("", ".", "..") for piece in path.split("/"))
