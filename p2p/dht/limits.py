"""Token buckets for strangers, in bounded memory (pure)."""

from __future__ import annotations


class Bucket:
    """One token bucket."""

    __slots__ = ("burst", "left", "per_s", "since")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self.per_s = per_s
        self.burst = burst
        self.left = burst
        self.since = now

    def take(self, now: float) -> bool:
        """Spend one; False when there is none."""
        left = min(self.burst, self.left + (now - self.since) * self.per_s)
        self.since = now
        if left < 1.0:
            self.left = left
            return False
        self.left = left - 1.0
        return True


class Buckets:
    """One bucket per party; the one longest silent is forgotten when there are too many."""

    def __init__(self, per_s: float, burst: float, kept: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._kept = kept
        self._of: dict[bytes, Bucket] = {}

    def __len__(self) -> int:
        return len(self._of)

    def take(self, who: bytes, now: float) -> bool:
        """Spend one of ``who``; False when it sent too much."""
        bucket = self._of.pop(who, None)
        if bucket is None:
            bucket = Bucket(self._per_s, self._burst, now)
            if len(self._of) >= self._kept:
                del self._of[next(iter(self._of))]
        self._of[who] = bucket  # dicts keep order: the last is the latest
        return bucket.take(now)


class Generations:
    """How often each id was seen, in two generations of bounded size: what is older than two is forgotten."""

    def __init__(self, kept: int, period_s: float) -> None:
        self._kept = kept
        self._period_s = period_s
        self._new: dict[bytes, tuple[object, int]] = {}
        self._old: dict[bytes, tuple[object, int]] = {}
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def is_replay(self, id_: bytes, origin: object, now: float, allowed: int = 2) -> bool:
        """Note one use; True when the id came from elsewhere before, or more than ``allowed`` times (a retransmission is no replay)."""
        if now - self._since > self._period_s or len(self._new) >= self._kept:
            self._old, self._new, self._since = self._new, {}, now
        seen = self._new.get(id_) or self._old.get(id_)
        if seen is None:
            self._new[id_] = (origin, 1)
            return False
        self._new[id_] = (seen[0], seen[1] + 1)
        return seen[0] != origin or seen[1] >= allowed
