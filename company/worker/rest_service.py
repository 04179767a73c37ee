"""Puts the REST transport together: the worker's HTTP server, the client, the first call (I/O)."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio

from company import messages as m
from company.paths import WorkerHome
from company.tokens import JoinToken, encode_token
from company.worker.api import by_callback, worker_routes
from company.worker.chief_page import ChiefPage, chief_page, default_page
from company.worker.door import door_of
from company.worker.joining import PATIENCE_S
from company.worker.options import Membership, WorkerOptions, load_membership, save_membership
from company.worker.rest import RestLink, join_by_rest
from company.worker.retry import wait_before_attempt_s
from p2p.base.errors import ParallelError, PeerError, Unavailable, UsageError
from p2p.base.frames import Frame
from p2p.base.keys import Identity
from p2p.base.schema import Message
from p2p.net.http_client import HttpClient, open_http_client
from p2p.net.http_server import serve_http

if TYPE_CHECKING:
    from company.worker.service import Worker

log = logging.getLogger(__name__)


class Inbound:
    """What the chief says over HTTP, on its way to the worker; fetches fragments that were not inlined."""

    def __init__(self, worker: Worker, nursery: trio.Nursery) -> None:
        self._worker = worker
        self._nursery = nursery
        self.link: RestLink | None = None

    async def on_message(self, message: Message, frame: Frame) -> None:
        if isinstance(message, m.Run) and message.count and not len(frame.sizes):
            self._nursery.start_soon(self._fetch, message)
        else:
            await self._worker.on_message(message, frame)

    async def _fetch(self, message: m.Run) -> None:
        assert self.link is not None
        try:
            frame = await self.link.fragments(message.token, message.job, message.first, message.count)
        except ParallelError as error:
            log.warning("the fragments of lease %d did not come: %s", message.token, error.text)
            self.link.tell(m.Recalled(message.token, True))
            return
        await self._worker.on_message(message, frame)

    def on_acked(self, token: int, first: int) -> None:
        self._worker.on_acked(token, first)

    def on_stale(self, token: int) -> None:
        self._worker.on_stale(token)

    def held(self) -> tuple[m.Held, ...]:
        return self._worker.held()

    def is_away(self, is_away: bool) -> None:
        self._worker.is_away(is_away)

    def is_started(self) -> bool:
        return self._worker.is_started()

    def health(self) -> dict[str, object]:
        return self._worker.health()


class ReadyLink(RestLink):
    """A REST link that tells the worker that the chief knows it, once the slots run."""

    worker: Worker

    async def run(self) -> None:
        self.worker.is_up(None)
        await super().run()


@asynccontextmanager
async def open_rest(
    options: WorkerOptions, home: WorkerHome, identity: Identity, token: JoinToken | None, worker: Worker, rng: Random
) -> AsyncIterator[tuple[Membership, RestLink]]:
    """Listen, join (or come back), and yield the way to the chief. Raises `UsageError`, `Refusal`, `Unavailable`."""
    known = load_membership(home.root)
    if known is not None and (known.transport != "rest" or (token is not None and token.chief_key != known.chief_key)):
        known = None
    if known is None and token is None:
        raise UsageError("not-joined", f"worker {options.name} has joined no company", hint="company worker join TOKEN --transport rest")
    callback = known.extra["callback"] if known is not None else secrets.token_hex(32)
    if known is not None:
        said, chief_key = options.chief_http or known.extra["chief"], known.chief_key
    else:
        assert token is not None
        said, chief_key = options.chief_http or default_page(token), token.chief_key
    chief = chief_page(said, chief_key)
    door = door_of(options.http or "127.0.0.1:0", options.http_public)
    async with open_http_client() as client, trio.open_nursery() as nursery:
        inbound = Inbound(worker, nursery)
        routes = worker_routes(inbound, lambda: worker.processors, by_callback(callback))
        bound = await nursery.start(partial(serve_http, routes, host=door.host, port=door.port, ssl_context=door.context(identity)))
        worker.http_address = door.address(bound, chief.host)
        body = {
            "name": options.name, "slots": options.slots, "http": worker.http_address, "callback": callback,
            "key": identity.public.hex(), "machine": worker.machine().as_array(),
        }  # fmt: skip
        membership = await _enter(client, chief, body, known, token, rng)
        membership.extra.update(chief=said, callback=callback)
        save_membership(home.root, membership)
        link = ReadyLink(
            client, chief=chief, worker=membership.worker, bearer=membership.extra["bearer"], results=worker.results, port=inbound, rng=rng
        )
        link.worker = worker
        inbound.link = link
        yield membership, link
        nursery.cancel_scope.cancel()


async def _enter(
    client: HttpClient, chief: ChiefPage, body: dict[str, object], known: Membership | None, token: JoinToken | None, rng: Random
) -> Membership:
    """Join, or say where we are now. An old member waits for its chief for ever, a new one a minute."""
    if known is not None:
        body = {**body, "worker": known.worker, "bearer": known.extra["bearer"]}
    elif token is not None:
        body = {**body, "token": encode_token(token)}
    attempt = 0
    deadline = trio.current_time() + (PATIENCE_S if known is None else float("inf"))
    while True:
        attempt += 1
        try:
            answer = await join_by_rest(client, chief, body)
            break
        except (Unavailable, PeerError) as error:
            if known is None and isinstance(error, PeerError):
                raise
            log.log(logging.INFO if attempt == 1 else logging.DEBUG, "chief away: %s", error.text)
            if trio.current_time() > deadline:
                raise
            await trio.sleep(wait_before_attempt_s(attempt, rng))
    key = known.chief_key if known is not None else token.chief_key if token is not None else b""
    return Membership(
        chief_key=key, addresses=known.addresses if known is not None else token.addresses if token is not None else (),
        worker=answer["worker"], supervisor=answer["supervisor"], transport="rest", extra={"bearer": answer["token"]},
    )  # fmt: skip
