"""How many bytes of packages, datasets and open uploads each user keeps on the chief's disk, and how many they may (pure).

Nothing is stored here: at a start everything is counted again from the rows of what is stored, so the numbers cannot drift from the disk.
A user is a name, as for jobs. Owners are counted and not limited: the disk is theirs, and they set the limit for the others.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from company.chief.facade import Principal, StorageFull
from company.config import format_size, parse_size_bytes
from p2p.base.errors import UsageError

UNLIMITED: Final = 1 << 62
EXEMPT: Final = ("owner",)
DEFAULT: Final = "25%"  # of the disk: four users can fill it, one cannot
MAX_NAMED = 5
MAX_SHOWN = 20
Kind = Literal["dataset", "package", "upload", "stream"]


class Key(NamedTuple):
    """What takes room: ``id`` as users name it."""

    kind: Kind
    id: str


def parse_quota(text: str) -> int | float | None:
    """Bytes of ``20GiB``, a share of the disk of ``25%``, nil of ``off``. Raises `UsageError`."""
    if text == "off":
        return None
    if not text.endswith("%"):
        return parse_size_bytes(text)
    try:
        percent = float(text[:-1])
    except ValueError:
        percent = -1.0
    if not 0 < percent <= 100:
        raise UsageError("bad-quota", f"{text!r} is no share of the disk", hint="write 20GiB, 25% or off")
    return percent / 100


def quota_bytes(text: str, disk_bytes: int) -> int | None:
    """The limit in bytes on a disk of this size; nil for none. Raises `UsageError`."""
    found = parse_quota(text)
    return int(found * disk_bytes) if isinstance(found, float) else found


class Quota:
    """Who keeps how much."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        self._held: dict[Key, tuple[str, int]] = {}
        self._used: dict[str, int] = {}

    def used(self, user: str) -> int:
        """Bytes that count as this user's now."""
        return self._used.get(user, 0)

    def room(self, by: Principal) -> int:
        """Bytes that this user may still add."""
        return UNLIMITED if self._is_free(by) else max(0, (self.limit_bytes or 0) - self.used(by.name))

    def largest(self) -> dict[str, int]:
        """The users who keep most, with their bytes."""
        return dict(sorted(self._used.items(), key=lambda item: -item[1])[:MAX_SHOWN])

    def put(self, key: Key, user: str, size_bytes: int) -> None:
        """This is there, of this size; what was known of it before is replaced."""
        self.drop(key)
        self._held[key] = (user, size_bytes)
        self._used[user] = self._used.get(user, 0) + size_bytes

    def drop(self, key: Key) -> None:
        """This is not there any more."""
        user, size_bytes = self._held.pop(key, ("", 0))
        left = self._used.get(user, 0) - size_bytes
        if left > 0:
            self._used[user] = left
        else:
            self._used.pop(user, None)

    def take(self, by: Principal, key: Key, size_bytes: int) -> None:
        """As `put`, if it fits. Raises `StorageFull` ("quota-exceeded")."""
        self.check(by, size_bytes - self.size_of(key))
        self.put(key, by.name, size_bytes)

    def check(self, by: Principal, more_bytes: int) -> None:
        """Whether so much more fits. Raises `StorageFull` ("quota-exceeded")."""
        if more_bytes > 0 and more_bytes > self.room(by):
            raise self.exceeded(by, more_bytes)

    def size_of(self, key: Key) -> int:
        """What this counts."""
        return self._held.get(key, ("", 0))[1]

    def exceeded(self, by: Principal, needed_bytes: int) -> StorageFull:
        """The refusal, with what takes the room and how to get it back."""
        limit, used = self.limit_bytes or 0, self.used(by.name)
        own = [(size, key) for key, (user, size) in self._held.items() if user == by.name and key.kind != "stream"]
        largest = [{"kind": key.kind, "id": key.id, "size_bytes": size} for size, key in sorted(own, reverse=True)[:MAX_NAMED]]
        has = f"{by.name or 'You'} may keep {format_size(limit)} here and has {format_size(used)}"
        text = f"{has}: {format_size(needed_bytes)} more do not fit."
        hint = "remove what is not needed (company data list, company data rm, company package rm), or ask the owner: company start --quota"
        return StorageFull(
            "quota-exceeded", text, hint=hint, limit_bytes=limit, used_bytes=used, needed_bytes=needed_bytes, largest=largest
        )

    def _is_free(self, by: Principal) -> bool:
        return self.limit_bytes is None or by.role in EXEMPT
