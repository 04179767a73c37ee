"""company login: remember a chief on another machine (I/O)."""

from __future__ import annotations

import getpass
import sys

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.output import print_json, safe, say
from company.client.address import parse_url, read_token, save_context


@click.command(cls=Command)
@click.argument("address", metavar="URL")
@pass_session
def login(session: Session, address: str) -> None:
    """Remember a chief's address and token for later commands.

    The token is read from --token-file, else from standard input; it is kept in the home, readable by you alone. Pin the chief's
    certificate with https://HOST:PORT#sha256:HEX.
    """
    from company.client.client import Client

    if session.token_file is not None:
        token = read_token(session.token_file)
    elif sys.stdin.isatty():
        token = getpass.getpass("Token: ").strip()
    else:
        token = sys.stdin.readline().strip()
    found = parse_url(address, token)
    with Client(found) as client:
        view = client.company()  # a wrong token or address is found now, not at the next command
    path = save_context(session.home, found)
    if session.as_json:
        print_json("login/1", {"url": found.url, "company": view["id"], "name": view["name"], "file": str(path)})
    else:
        say(f"{safe(view['name'])} at {found.url} is remembered in {path}")
