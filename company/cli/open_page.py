"""company open: the web page, logged in by a one-time link (I/O)."""

from __future__ import annotations

import os
import sys

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.output import note, print_json, say


@click.command("open", cls=Command)
@click.option("--browser/--no-browser", default=None, show_default=False, help="Start a browser (else: on a desktop with a terminal).")
@pass_session
def open_page(session: Session, browser: bool | None) -> None:
    """Open the web page, or print its one-time link. The link works once, for ten minutes."""
    client = session.client()
    link = client.login_link()
    if session.as_json:
        print_json("login-link/1", {"url": link})
        return
    say(link)
    address = client.transport.address
    if os.environ.get("SSH_CONNECTION"):
        server = os.environ["SSH_CONNECTION"].split()[2]
        note(f"From your own machine, first: ssh -L {address.port}:127.0.0.1:{address.port} {server}   (or start with --tls-cert)")
    elif browser or (browser is None and sys.stdout.isatty() and has_desktop()):
        import webbrowser

        webbrowser.open(link)


def has_desktop() -> bool:
    """Whether a browser would have a screen."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
