"""Workers that speak the seven REST calls alone (P5, P6): the other door to the same sessions (I/O)."""

from __future__ import annotations

from typing import Any

from company.chief.engine import Engine
from company.chief.gate import Gate
from company.chief.library import Library
from company.chief.sessions import Sessions
from p2p.base.errors import Unavailable


class RestWorkers:
    def __init__(self, *, gate: Gate, library: Library, sessions: Sessions, engine: Engine) -> None:
        self._gate = gate

    async def join(self, body: dict[str, Any], remote: str) -> dict[str, Any]:
        raise Unavailable("rest-not-ready", "not yet")

    async def next_batch(self, worker: str, wait_s: float) -> bytes | None:
        raise Unavailable("rest-not-ready", "not yet")

    async def result(self, worker: str, frame: bytes, wait_s: float) -> bytes | None:
        raise Unavailable("rest-not-ready", "not yet")

    async def fragments(self, worker: str, token: int, job: str, first: int, count: int) -> bytes:
        raise Unavailable("rest-not-ready", "not yet")

    async def processor(self, worker: str, digest: str) -> bytes:
        raise Unavailable("rest-not-ready", "not yet")
