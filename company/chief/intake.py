"""What `company.chief.library` says and keeps of a package that comes in: names, limits, errors, the row's manifest (pure)."""

from __future__ import annotations

import json
import re

from company.chief.facade import Invalid, StorageFull, TooLarge
from company.package import MAX_BYTES, ArchiveRefused, PackageInfo, PackageInvalid
from company.package import TooLarge as PackageTooLarge
from p2p.base.errors import MalformedMessage, PeerError, Unavailable

MAX_ARCHIVE_BYTES = MAX_BYTES + (1 << 20)
MAX_NAME_CHARS = 100  # of a package, as in the ProcessorIs message
_UNSAFE = re.compile(r"[^\w.\- ]+")


class translated:
    """Errors of `company.package` as the port's own."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PackageTooLarge):
            raise TooLarge(error.code, error.text, hint=error.hint, **error.facts) from None
        if isinstance(error, (PackageInvalid, ArchiveRefused)):
            raise Invalid(error.code, error.text, hint=error.hint, **error.facts) from None
        if isinstance(error, Unavailable) and error.code == "storage-full":
            raise StorageFull(error.code, error.text, hint=error.hint) from None
        if isinstance(error, MalformedMessage):
            raise Invalid("package-refused", error.text) from None
        if isinstance(error, PeerError):
            raise Invalid(error.code, error.text, hint=error.hint) from None


def manifest_json(info: PackageInfo) -> bytes:
    return json.dumps(
        {
            "files": [{"path": path, "size": size} for path, size in info.files], "python": info.python,
            "requirements": list(info.requirements), "memory_bytes": info.memory_bytes, "time_limit_s": info.time_limit_s,
            "functions": list(info.functions), "warnings": list(info.warnings), "entry": info.entry,
        }
    ).encode()  # fmt: skip


def package_too_large(size: int) -> TooLarge:
    return TooLarge("package-too-large", f"A package archive may have {MAX_BYTES >> 20} MiB.", limit=MAX_BYTES, actual=size)


def signed_name(name: str | None) -> str:
    """The name under which a client signed: as it is, for another one would not be what the signature covers. Raises `Invalid`."""
    if name is not None and not (0 < len(name) <= MAX_NAME_CHARS and name.isprintable()):
        raise Invalid("package-name", f"A package's name has 1 to {MAX_NAME_CHARS} printable characters, got {name[:120]!r}.")
    return name or "package"


def tidy_name(name: str) -> str:
    """A name that is safe as a file name: the last path component, unusual characters replaced, never empty or a dot."""
    tidy = _UNSAFE.sub("_", name.replace("\\", "/").rsplit("/", 1)[-1]).strip(". ")[:100]
    return tidy or "data"
