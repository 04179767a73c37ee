"""company worker join --on dask://…: nodes of a cluster as workers, until Ctrl-C (I/O)."""

from __future__ import annotations

import secrets
import signal
import time
from typing import Any

import click

from company.cli.output import note, print_json, safe, say
from company.errors import INTERRUPTED
from p2p.base.errors import Unavailable

SCHEMES = ("dask", "ray")


def join_on(on: str, token: str | None, *, slots: int | None, name: str, options: list[str], as_json: bool) -> int:
    """Lend the nodes, say so, keep them until a signal, give them back."""
    from company.cluster import open_cluster
    from company.cluster.pilots import KEEP_S, LENDERS, wait_joined, wait_left

    engine, _, address = on.partition("://")
    if engine not in SCHEMES or not address:
        raise click.UsageError("--on takes dask://HOST:PORT or ray://HOST:PORT")
    if not token:
        raise click.UsageError("--on needs a token with a use for each node: company token create --role worker --uses N")
    request = {"token": token, "name": name, "options": options}

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with open_cluster(engine, address) as cluster:
            lender = LENDERS[engine](cluster, secrets.token_hex(8), slots, request)
            try:
                states = wait_joined(lender)
                _tell(on, lender.slots, states, as_json)
                while any(state["state"] == "joined" for state in states):
                    time.sleep(KEEP_S)
                    states = lender.keep()
                if all(state["state"] == "left" for state in states):
                    note("The chief has sent all nodes back.")
                    return 0
                words = next((str(state["text"]) for state in states if state.get("text")), "")[-500:]
                raise Unavailable("pilots-gone", f"no node of {on} works for the company any more: {words}", hint="company worker list")
            except KeyboardInterrupt:
                note("Giving the nodes back: what runs there may end first.")
                return INTERRUPTED
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                wait_left(lender)
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(on: str, slots: int, states: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json("pilots/1", {"on": on, "slots": slots, "nodes": states})
        return
    say(f"{slots} slots on {len(states)} nodes of {safe(on)} work for the company. Ctrl-C gives them back.")
