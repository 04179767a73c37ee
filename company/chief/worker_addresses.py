"""Whether this chief can call the HTTP addresses that its workers named (I/O: dials them, when asked to).

Workers by REST are called all the time, and why a call failed is remembered with them. Those that have a channel need no address; one that
named one all the same is called by `look`, with a pass, under the key that its channel proved.
"""

from __future__ import annotations

from collections.abc import Container

import trio

from company.chief.facade import Invalid
from company.chief.rest_calls import MAX_LOOKED_AT, PING_TIMEOUT_S
from company.chief.rest_join import checked_address
from company.chief.rest_workers import RestWorkers
from company.chief.sessions import Session, Sessions
from company.http_pass import make_pass
from p2p.base.errors import ParallelError
from p2p.base.keys import Identity
from p2p.net.channel import Channel
from p2p.net.clock import read_unix
from p2p.net.http_client import HttpClient, open_http_client

MAX_ANSWER_BYTES = 512 << 10


class WorkerAddresses:
    """What is wrong with workers' addresses."""

    def __init__(self, rest: RestWorkers, sessions: Sessions, identity: Identity, own: Container[str]) -> None:
        """``own``: ids of the company's workers; those of others are never called."""
        self._rest = rest
        self._sessions = sessions
        self._identity = identity
        self._own = own
        self._found: dict[str, str] = {}

    def troubles(self) -> dict[str, str]:
        """Why workers cannot be called, by their ids."""
        return self._rest.troubles() | {worker: text for worker, text in self._found.items() if worker in self._sessions.open}

    async def look(self) -> None:
        """Call every worker that has an address, all at the same time, so that `troubles` is of now."""
        named = [s for s in self._sessions.open.values() if s.machine.http and s.worker in self._own and isinstance(s.channel, Channel)]
        self._found = {}
        async with open_http_client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(self._rest.look)
            for session in named[:MAX_LOOKED_AT]:
                nursery.start_soon(self._call, client, session)

    async def _call(self, client: HttpClient, session: Session) -> None:
        assert isinstance(session.channel, Channel)
        key = session.channel.peer_key
        shown = make_pass(self._identity, key, now=read_unix())
        try:
            address = checked_address(session.machine.http or "", session.channel.peer_address.rpartition(":")[0].strip("[]"))
            reply = await client.request(
                "POST", f"{address}/activate/data-fragment", headers={"Authorization": f"Bearer {shown}"}, body=b"",
                timeout_s=PING_TIMEOUT_S, max_bytes=MAX_ANSWER_BYTES, pin_key=key if address.startswith("https:") else None,
            )  # fmt: skip
            trouble = "" if reply.status in (200, 204, 503) else f"it answers {reply.status}"
        except (ParallelError, Invalid) as error:
            trouble = error.text
        if trouble:
            self._found[session.worker] = f"{session.machine.http}: {trouble}"
