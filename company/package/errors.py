"""What can be wrong with a package, by who must act (pure).

`ArchiveRefused` is a `MalformedMessage`, the only thing an ``_untrusted`` function may raise, with a code of its own so that a
person learns which rule was broken. `PackageInvalid` lists every fault found, each with file and line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from company.package.paths import largest_text, size_text
from p2p.base.errors import MalformedMessage, UsageError


class ArchiveRefused(MalformedMessage):
    """An archive that is not opened further. ``code``: archive-format, archive-corrupt, archive-encrypted, archive-unsafe-path,
    archive-link, archive-special-file, archive-duplicate, archive-bad-digest."""

    def __init__(self, code: str, text: str, **facts: Any) -> None:
        super().__init__(text, **facts)
        self.code = code


class TooLarge(ArchiveRefused):
    """A limit was hit (413). facts: limit, actual (at least), largest = [[path, bytes], …].

    ``code``: package-too-large or package-too-many-files."""


class PackageInvalid(UsageError):
    """A package that was read but is wrong (422). facts: errors = [{"path", "line", "detail"}]; line is nil where there is none."""

    def __init__(self, errors: Sequence[dict[str, Any]]) -> None:
        first = errors[0]
        where = first["path"] + (f", line {first['line']}" if first["line"] else "")
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__("package-invalid", f"{where}: {first['detail']}{more}", errors=list(errors))
        self.errors = list(errors)


def too_large(limit: int, actual: int, sizes: dict[str, int]) -> TooLarge:
    """The error for more than ``limit`` unpacked bytes; ``sizes``: path to bytes as far as known."""
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:5]
    text = f"the package unpacks to more than {size_text(limit)}; largest files: {largest_text(largest)}"
    return TooLarge("package-too-large", text, limit=limit, actual=actual, largest=[list(item) for item in largest])


def too_many_files(limit: int) -> TooLarge:
    """The error for more than ``limit`` files and folders."""
    return TooLarge("package-too-many-files", f"the package holds more than {limit} files and folders", limit=limit, actual=limit + 1)
