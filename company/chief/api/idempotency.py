"""The same creating request twice has one effect (pure).

A client that lost the answer sends the request again under the same Idempotency-Key and gets the first answer. Kept in memory for a
day, bounded; a restart of the chief forgets it, which is why jobs have names and uploads have digests as well.
Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from typing import Final

from company.chief.api.problem import BadRequest
from company.chief.facade import Conflict, Invalid
from p2p.base.clock import Monotonic
from p2p.base.record import record
from p2p.net.http_types import Response

KEEP_S: Final = 86400.0
MAX_ENTRIES: Final = 4096
MAX_KEY_CHARS: Final = 255
MAX_KEPT_BODY_BYTES: Final = 1 << 16


_Key = tuple[str, str, str]


@record
class _Entry:
    fingerprint: bytes
    at: Monotonic
    answer: Response


class IdempotencyCache:
    """Answers by (who, route, key). Callers pass ``now``."""

    def __init__(self) -> None:
        self._in_flight: dict[_Key, bytes] = {}  # bounded by the server's connections
        self._answers: OrderedDict[_Key, _Entry] = OrderedDict()  # oldest first

    def begin(self, who: str, route: str, key: str, body: bytes, now: Monotonic) -> Response | None:
        """The earlier answer, or nil: go on, then call `finish` or `abandon`. Raises `Conflict` in flight, `Invalid` for another body."""
        if not key.isprintable() or not 0 < len(key) <= MAX_KEY_CHARS:
            raise BadRequest("idempotency-key-malformed", f"An Idempotency-Key has 1..{MAX_KEY_CHARS} printable characters.")
        self._forget(now)
        fingerprint = hashlib.sha256(body).digest()
        entry = self._answers.get((who, route, key))
        before = entry.fingerprint if entry else self._in_flight.get((who, route, key))
        if before is None:
            self._in_flight[who, route, key] = fingerprint
            return None
        if before != fingerprint:
            raise Invalid(
                "idempotency-reused", "This Idempotency-Key came before with another body.", hint="Take a new key for each new request."
            )
        if entry is None:
            raise Conflict(
                "idempotency-in-flight",
                "The first request with this Idempotency-Key is still being worked on.",
                hint="Send it again in a second.",
            )
        return replace(entry.answer, headers={**entry.answer.headers, "Idempotency-Replayed": "true"})

    def finish(self, who: str, route: str, key: str, answer: Response, now: Monotonic) -> None:
        """Keep the answer of a request that had its effect."""
        fingerprint = self._in_flight.pop((who, route, key))
        if isinstance(answer.body, bytes) and len(answer.body) <= MAX_KEPT_BODY_BYTES:
            self._answers[who, route, key] = _Entry(fingerprint, now, answer)

    def abandon(self, who: str, route: str, key: str) -> None:
        """Forget a request that had no effect, so that it may be tried again."""
        self._in_flight.pop((who, route, key), None)

    def _forget(self, now: Monotonic) -> None:
        while self._answers:
            entry = next(iter(self._answers.values()))
            if now - entry.at < KEEP_S and len(self._answers) < MAX_ENTRIES:
                return
            self._answers.popitem(last=False)
