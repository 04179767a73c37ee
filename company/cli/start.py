"""company start: run a chief in the foreground, or install it as a service (I/O)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from company.cli.framework import Command, Parsed, Session, pass_session
from company.errors import ConfigurationError
from p2p.base.errors import UsageError


def parse_workers(text: str) -> str | int:
    """``auto`` or a number of slots. Raises `UsageError`."""
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) > 1024:
        raise UsageError("bad-workers", f"{text!r} is neither auto nor a number of slots in 0..1024")
    return int(text)


def parse_listen(text: str) -> str:
    """An address to listen on, checked. Raises `UsageError`."""
    from company.config import parse_address

    parse_address(text)
    return text


def parse_dht(text: str) -> str:
    """An address to listen on, or ``off``. Raises `UsageError`."""
    return text if text == "off" else parse_listen(text)


def parse_quota(text: str) -> str:
    """A size, a share of the disk or ``off``, checked. Raises `UsageError`."""
    from company.chief.quota import parse_quota as check

    check(text)
    return text


SANDBOXES = ("auto", "bubblewrap", "landlock", "none")
WORKERS = Parsed("workers", parse_workers)
LISTEN = Parsed("address", parse_listen)
DHT = Parsed("dht", parse_dht)
QUOTA = Parsed("quota", parse_quota)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(cls=Command, needs_chief=False)
@click.option("--name", help="The company's name (kept from then on).")
@click.option("--workers", type=WORKERS, default="auto", metavar="N|auto|0", help="Slots of its own: a number, one per core, or none.")
@click.option("--http", type=LISTEN, default="127.0.0.1:8470", metavar="ADDR:PORT", help="Web page and REST; port 0 picks a free one.")
@click.option("--rpc", type=LISTEN, default="0.0.0.0:8468", metavar="ADDR:PORT", help="Where workers connect.")
@click.option("--dht", type=DHT, metavar="ADDR:PORT|off", help="UDP, for the network of companies (else as --rpc).")
@click.option("--bootstrap", multiple=True, type=LISTEN, metavar="HOST:PORT", help="A node of the network that is known already.")
@click.option("--tracker", multiple=True, metavar="URL", help="A tracker that knows nodes.")
@click.option("--network", metavar="NAME", help="A private network of this name, instead of the public one.")
@click.option("--allow-private", is_flag=True, help="Dial companies on private addresses, too (a LAN, tests).")
@click.option("--relay", type=click.Choice(["on", "off"]), default="on", help="Pass channels on for companies that cannot be dialled.")
@click.option("--tls-cert", type=_FILE, help="Certificate for --http beyond this machine.")
@click.option("--tls-key", type=_FILE, help="Its key, when it is not in the same file.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A further name under which the page may be opened.")
@click.option("--allow-origin", multiple=True, metavar="ORIGIN", help="A further site whose pages may change things here.")
@click.option(
    "--quota", type=QUOTA, default="25%", metavar="SIZE|N%|off", help="What each user but owners may keep here: a size, or of the disk."
)
@click.option("--sandbox", type=click.Choice(SANDBOXES), default="auto", help="How modules are confined.")
@click.option("--i-understand", is_flag=True, help="Needed with --sandbox none: modules then have all your rights.")
@click.option("--open", "open_page", is_flag=True, help="Open the web page when ready.")
@click.option("--install-service", is_flag=True, help="Start now and at every boot, with systemd.")
@pass_session
def start(session: Session, install_service: bool, open_page: bool, **options: Any) -> int | None:
    """Run a chief. Ctrl-C stops it; running jobs are saved and go on at the next start.

    With --json one line is printed when it is ready: http, rpc and dht addresses and an owner token.
    """
    from company.listening import check_exposure, load_certificate

    check_exposure(options["http"], has_tls=options["tls_cert"] is not None)
    check_sandbox(options["sandbox"], understood=options["i_understand"])
    if options["tls_cert"] is not None:
        load_certificate(options["tls_cert"], options["tls_key"])  # before anything starts, and before a service is made of it
    if install_service:
        from company.cli.service import install

        install(session, "company", "Chief of a company of processes", ["start", *_same_options()])
        return None
    from company.node import run_chief

    result = run_chief(plain_options(options) | {"home": str(session.home), "json": session.as_json, "open": open_page})
    return result if isinstance(result, int) else None


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON would have them: paths as text, tuples as lists."""
    kinds: dict[type, Any] = {tuple: list}
    return {key: os.path.abspath(v) if isinstance(v, Path) else kinds.get(type(v), lambda same: same)(v) for key, v in options.items()}


def check_sandbox(sandbox: str, *, understood: bool) -> None:
    """Raises `ConfigurationError` for no sandbox, unless that was said in words."""
    if sandbox == "none" and not understood:
        text = "without a sandbox, modules run with all rights of this user"
        raise ConfigurationError("sandbox-none", text, hint="say so: --sandbox none --i-understand")


def _same_options() -> list[str]:
    """The options of this call, for the service's own call of it."""
    left_out = {"--install-service", "--open", "--json"}
    arguments = sys.argv[sys.argv.index("start") + 1 :] if "start" in sys.argv else []
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument in left_out:
            skip = False
        elif argument == "--home":
            skip = True
        elif not argument.startswith("--home="):
            kept.append(argument)
    return kept
