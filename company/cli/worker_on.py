"""company worker join --on dask://…: nodes of a cluster as workers, until Ctrl-C (I/O)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import click

from company.cli.output import note, print_json, safe, say
from company.errors import INTERRUPTED
from p2p.base.errors import Unavailable

if TYPE_CHECKING:
    from company.cluster.desk import Desk
    from company.cluster.pilots import Lender

JOIN_S = 60.0  # to ask for the pilots; more for them to join
SCHEMES = ("dask", "ray")


def join_on(on: str, token: str | None, *, slots: int | None, name: str, options: list[str], as_json: bool) -> int:
    """Lend the nodes, say so, keep them until a signal, give them back."""
    from company.cluster.desk import Desk
    from company.cluster.engines import open_cluster
    from company.cluster.pilots import LENDERS

    engine, _, address = on.partition("://")
    if engine not in SCHEMES or not address:
        raise click.UsageError("--on takes dask://HOST:PORT or ray://HOST:PORT")
    if not token:
        raise click.UsageError("--on needs a token with a use for each node: company token create --role worker --uses N")
    request = {"token": token, "name": name, "options": options}
    with open_cluster(engine, address) as cluster:
        desk = Desk()
        with desk.hearing():
            return _lend(desk, LENDERS[engine](cluster, secrets.token_hex(8), slots, request), on, as_json)


def _lend(desk: Desk, lender: Lender, on: str, as_json: bool) -> int:
    from company.cluster.desk import Leave, end_by
    from company.cluster.pilots import ASK_S, LEFT_S, take_back, wait_joined, wait_over

    try:
        desk.ask("to put a pilot on each node", lender.begin, JOIN_S)
        _tell(on, lender.slots, wait_joined(desk, lender), as_json)
        states = wait_over(desk, lender).values()
        if all(state["state"] == "left" for state in states):
            note("The chief has sent all nodes back.")
            return 0
        words = next((str(state["text"]) for state in states if state.get("text")), "")[-500:]
        raise Unavailable("pilots-gone", f"no node of {on} works for the company any more: {words}", hint="company worker list")
    except Leave:
        note("Giving the nodes back: what runs there may end first. Once more Ctrl-C: do not wait for that.")
        return INTERRUPTED
    finally:
        end_by(LEFT_S + 2 * ASK_S, INTERRUPTED, f"the connection to {on} does not end; nodes that were not given back leave by themselves")
        _say_left(take_back(desk, lender))


def _say_left(states: dict[str, dict[str, Any]]) -> None:
    from company.cluster.pilot import END_S, LOST_S

    for node, state in sorted(states.items()):
        words = safe(str(state.get("text") or state["state"]), 200)
        note(f"{safe(str(state.get('host') or node))} was not seen to leave ({words}). It does by itself within {LOST_S + END_S:g} s.")


def _tell(on: str, slots: int, states: dict[str, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json("pilots/1", {"on": on, "slots": slots, "nodes": list(states.values())})
        return
    say(f"{slots} slots on {len(states)} nodes of {safe(on)} work for the company. Ctrl-C gives them back.")
