"""A tracker as a process of its own: `company tracker` (I/O).

It keeps nothing on disk: companies announce themselves every few minutes, so a restarted tracker knows them again by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import SystemRandom

from p2p.base.errors import ParallelError
from p2p.dht.tracker import MAX_ANNOUNCE_BYTES, TrackerBook, peers_json
from p2p.net.clock import read_unix
from p2p.net.http_server import serve_http
from p2p.net.http_types import BodyTooLarge, Request, Response, Route
from p2p.net.problem import problem_of


def tracker_routes(book: TrackerBook) -> list[Route]:
    """The two calls, and a word for whoever opens it in a browser."""

    async def peers(request: Request) -> Response:
        return Response(200, {"Cache-Control": "no-store"}, peers_json(book, read_unix()))

    async def announce(request: Request) -> Response:
        try:
            book.announce(await request.body(MAX_ANNOUNCE_BYTES), request.remote, read_unix())
        except (ParallelError, BodyTooLarge) as error:
            return problem_of(error) or Response(500)
        return Response(204)

    async def root(request: Request) -> Response:
        text = f"Tracker of the network {book.network_id.hex()}: {len(book)} companies. See /tracker/peers\n"
        return Response(200, {}, text.encode(), "text/plain; charset=utf-8")

    return [Route("GET", "/tracker/peers", peers), Route("POST", "/tracker/announce", announce), Route("GET", "/", root)]


async def run_tracker(host: str, port: int, network_id: bytes, *, as_json: bool, say: Callable[[str], None]) -> None:
    """Serve until cancelled."""
    import trio

    book = TrackerBook(network_id, SystemRandom())
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[str]) -> None:
            await serve_http(tracker_routes(book), host=host, port=port, task_status=task_status)

        bound = await nursery.start(serve)
        say(
            json.dumps({"http": f"http://{bound}", "network": network_id.hex()})
            if as_json
            else f"Tracker: http://{bound}   Ctrl-C stops it."
        )
