"""Which wheels a package's requirements need, said and signed by the chief, checked by the worker that installs them (pure).

What every sandbox has anyway (numpy, msgpack) needs no wheels. A list names each file with its size and SHA-256, so a worker takes
nothing that its own chief has not vouched for, by whatever way the bytes come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from p2p.base.envelope import NETWORK_ID_BYTES, open_untrusted, seal
from p2p.base.errors import MalformedMessage, PeerError, Unavailable
from p2p.base.keys import Identity
from p2p.base.record import record

ENVELOPE_TYPE = "wheels"
NO_NETWORK = bytes(NETWORK_ID_BYTES)  # wheels mean the same in every network: their digests say all there is
CURATED = ("numpy", "msgpack")  # what is importable in every sandbox
MAX_WHEELS = 400
MAX_TOTAL_BYTES = 8 << 30


@record
class Wheel:
    """One file of a list."""

    file: str
    size: int
    sha256: bytes


def beyond_curated(requirements: Sequence[str], installed: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The requirements that a bare sandbox does not meet. ``installed``: curated name to version, default this interpreter's.

    Raises `PeerError` bad-requirement.
    """
    found = _curated_here() if installed is None else installed
    left: list[str] = []
    for text in requirements:
        if not text.strip():
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            raise PeerError("bad-requirement", f"{text[:80]!r} is not a requirement") from None
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = found.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            left.append(str(requirement))
    return tuple(left)


def _curated_here() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in CURATED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def seal_wheels(identity: Identity, requirements: Sequence[str], wheels: Sequence[Wheel]) -> tuple[bytes, bytes]:
    """Return (body, signature). Raises `Unavailable` too-many-wheels."""
    if len(wheels) > MAX_WHEELS:
        raise Unavailable("too-many-wheels", f"the requirements need {len(wheels)} wheels; the limit is {MAX_WHEELS}")
    rows = [[w.file, w.size, w.sha256] for w in sorted(wheels, key=lambda w: w.file)]
    return seal(identity, ENVELOPE_TYPE, NO_NETWORK, [list(requirements), rows])


def open_wheels_untrusted(chief_key: bytes, requirements: Sequence[str], body: bytes, signature: bytes) -> tuple[Wheel, ...]:
    """The wheels of a list that this chief signed for these requirements. Raises only `MalformedMessage`."""
    said, rows = open_untrusted(chief_key, ENVELOPE_TYPE, NO_NETWORK, body, signature, fields=2)
    if said != list(requirements):
        raise MalformedMessage("the list of wheels is for other requirements")
    if type(rows) is not list or len(rows) > MAX_WHEELS:
        raise MalformedMessage(f"a list of wheels has at most {MAX_WHEELS} rows")
    wheels = tuple(_wheel_untrusted(row) for row in rows)
    if len({w.file for w in wheels}) != len(wheels) or sum(w.size for w in wheels) > MAX_TOTAL_BYTES:
        raise MalformedMessage("the list names a wheel twice, or more bytes than allowed")
    return wheels


def _wheel_untrusted(row: Any) -> Wheel:
    if type(row) is not list or [type(part) for part in row] != [str, int, bytes] or len(row[2]) != 32 or row[1] < 0:
        raise MalformedMessage("a row of a list of wheels is [file, size, SHA-256]")
    try:
        parse_wheel_filename(row[0])
    except InvalidWheelFilename:
        raise MalformedMessage(f"{row[0][:80]!r} is not the name of a wheel") from None
    if "/" in row[0] or "\0" in row[0] or row[0].startswith("."):
        raise MalformedMessage("a wheel's name is a plain file name")
    return Wheel(row[0], row[1], row[2])
