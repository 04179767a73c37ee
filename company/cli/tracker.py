"""company tracker: a plain web service that lists the companies of a network (I/O)."""

from __future__ import annotations

import sys

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.start import LISTEN


@click.command(cls=Command, needs_chief=False)
@click.option("--http", type=LISTEN, default="0.0.0.0:8471", metavar="ADDR:PORT", help="Where it listens; port 0 picks a free one.")
@click.option("--network", metavar="NAME", help="The private network of this name, instead of the public one.")
@pass_session
def tracker(session: Session, http: str, network: str | None) -> None:
    """List the companies of a network, so that it can start from one web address.

    Every entry is signed by its company and expires, so plain HTTP is enough: a tracker can hide companies and not invent or change one.
    Companies name it with --tracker http://HOST:8471 when they start.
    """
    from company.config import parse_address
    from company.node import run_to_end
    from company.tracker import run_tracker
    from p2p.dht.parameters import PUBLIC_NETWORK, make_network_id

    host, port = parse_address(http)

    def say(text: str) -> None:
        click.echo(text)
        sys.stdout.flush()

    network_id = make_network_id(network) if network else PUBLIC_NETWORK

    async def main() -> None:
        await run_tracker("0.0.0.0" if host in ("", "*") else host, port, network_id, as_json=session.as_json, say=say)

    run_to_end(main)
