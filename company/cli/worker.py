"""company worker: join a company with this machine, and look after its workers (I/O)."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import Any

import click

from company.cli.framework import LazyGroup, Parsed, Session, pass_session
from company.cli.output import ago, print_json, reason_lines, safe, say, size, table
from company.cli.start import SANDBOXES, check_sandbox, parse_listen, parse_workers
from p2p.base.errors import UsageError

SLOTS = Parsed("slots", parse_workers)
VIA = Parsed("address", parse_listen)


@click.group(cls=LazyGroup)
def worker() -> None:
    """Join a company with this machine, and look after its workers."""


@worker.command(needs_chief=False)
@click.argument("token", required=False)
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="Read the token from a file, - for input.")
@click.option("--via", type=VIA, metavar="HOST:PORT", help="Join through this worker, where the chief cannot be reached.")
@click.option("--slots", type=SLOTS, default="auto", metavar="N|auto", help="How many fragments at a time; auto: one per core.")
@click.option("--name", help="The worker's name (else the machine's).")
@click.option("--transport", type=click.Choice(["rpc", "rest"]), default="rpc", help="rest: by the REST calls alone.")
@click.option(
    "--chief-http", metavar="URL", help="With rest: where the chief's page is (else the token's host, port 8470). Over https it must show "
    "the token's key; a server in front of it: URL#sha256:FINGERPRINT, or URL#ca.",
)  # fmt: skip
@click.option(
    "--http", metavar="HOST:PORT", help="Where this worker's own HTTP listens: TLS with its key beyond loopback. With rest always, "
    "127.0.0.1:0 if nothing is said.",
)  # fmt: skip
@click.option("--http-public", metavar="HOST:PORT", help="What others are told to call in its place, where that is another address.")
@click.option("--allow-requirements", is_flag=True, help="Accept wheels that packages ask for.")
@click.option("--require-client-signature", is_flag=True, help="Run only what a client has signed itself.")
@click.option("--sandbox", type=click.Choice(SANDBOXES), default="auto", help="How modules are confined.")
@click.option("--i-understand", is_flag=True, help="Needed with --sandbox none: modules then have all your rights.")
@click.option("--on", metavar="URL", help="Join with the nodes of a cluster instead: dask://HOST:PORT, ray://HOST:PORT.")
@click.option("--install-service", is_flag=True, help="Start now and at every boot, with systemd.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground; this is what happens anyway without --install-service.")
@pass_session
def join(
    session: Session, token: str | None, token_file: Path | None, slots: str | int, name: str | None, install_service: bool,
    foreground: bool, on: str | None, **options: Any,
) -> int | None:  # fmt: skip
    """Join with the token that `company token create --role worker` printed, and work until Ctrl-C.

    Without TOKEN, a worker that has joined before comes back: its key is in its home.
    """
    if token and token_file:
        raise click.UsageError("give TOKEN or --token-file, not both")
    check_sandbox(options["sandbox"], understood=options["i_understand"])
    check_door(options)
    if slots == 0:
        raise click.UsageError("a worker needs at least one slot")
    if install_service and foreground:
        raise click.UsageError("--install-service and --foreground exclude each other")
    from_input = str(token_file) == "-" and not install_service  # read when it is needed: it may come while the worker still loads
    if token_file is not None and not from_input:
        token = _read_token(token_file)
    if on is not None:
        from company.cli.worker_on import join_on

        if install_service or options["http"] or options["chief_http"] or options["transport"] != "rpc":
            raise click.UsageError("--on takes --slots, --name, --via, --allow-requirements, --require-client-signature and --sandbox")
        given_token = _read_token(Path("-")) if from_input else token
        count = slots if isinstance(slots, int) else None
        return join_on(on, given_token, slots=count, name=name or "pilot", options=_same_options(options), as_json=session.as_json)
    from company.paths import Home

    called = name or default_name(socket.gethostname())
    home = Home.locate(session.given_home).worker(called)
    if token is None and not from_input and not home.root.exists():
        hint = "company worker join TOKEN; the chief makes one: company token create --role worker"
        raise UsageError("no-token", f"the worker {called!r} has not joined a company yet", hint=hint)
    if install_service:
        _install(session, home.root, called, token, slots, options)
        return None
    from company.node import run_worker

    given = {"token": token, "token_from_input": from_input, "name": called, "slots": slots}
    result = run_worker({"home": str(session.home), "json": session.as_json, **given, **options})
    return result if isinstance(result, int) else None


def check_door(options: dict[str, Any]) -> None:
    """Refuse an address in clear for other machines before anything is started or installed. Raises `UsageError`, `ConfigurationError`."""
    if options["http_public"] and not options["http"]:
        raise click.UsageError("--http-public says how --http is reached from elsewhere; say --http HOST:PORT too")
    if options["http"]:
        from company.worker.door import door_of

        door_of(options["http"], options["http_public"])


def default_name(host: str) -> str:
    """The machine's name as a worker's name."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in host.partition(".")[0])
    return kept.strip("-.")[:60] or "worker"


def _same_options(options: dict[str, Any]) -> list[str]:
    """What a pilot's own command line says."""
    said = ["--sandbox", str(options["sandbox"]), *(["--via", str(options["via"])] if options["via"] else [])]
    flags = ("allow_requirements", "require_client_signature", "i_understand")
    return [*said, *(f"--{flag.replace('_', '-')}" for flag in flags if options[flag])]


def _read_token(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.readline().strip()
    from company.client.address import read_token

    return read_token(path)


def _install(session: Session, folder: Path, name: str, token: str | None, slots: str | int, options: dict[str, Any]) -> None:
    """The service reads the token from a private file, so that it stands neither in the unit nor in the process list."""
    from company.cli.service import install
    from company.client.address import write_private
    from company.paths import make_private

    arguments = ["worker", "join", "--name", name, "--slots", str(slots), "--transport", str(options["transport"])]
    arguments += ["--sandbox", str(options["sandbox"])]
    if token is not None:
        write_private(make_private(folder) / "join-token", token.encode() + b"\n")
        arguments += ["--token-file", str(folder / "join-token")]
    for option in ("via", "chief_http", "http", "http_public"):
        if options[option]:
            arguments += [f"--{option.replace('_', '-')}", str(options[option])]
    flags = ("allow_requirements", "require_client_signature", "i_understand")
    arguments += [f"--{flag.replace('_', '-')}" for flag in flags if options[flag]]
    install(session, f"company-worker-{name}", f"Worker {name} of a company of processes", arguments)


@worker.command("list")
@pass_session
def list_workers(session: Session) -> None:
    """List the company's workers."""
    found = session.client().workers()
    if session.as_json:
        print_json("workers/1", found)
        return
    now = time.time()
    rows = [
        [safe(w["id"], 20), safe(w["name"], 30), w["state"], f"{w.get('slots_busy', 0)}/{w.get('slots', 0)}", size(w.get("memory_bytes")),
         safe(w.get("python", "")), safe(w.get("isolation", "")), ago(w.get("last_seen"), now),
         safe((w.get("reason") or {}).get("text", ""), 60)]
        for w in found["items"]
    ]  # fmt: skip
    say(table(("ID", "NAME", "STATE", "SLOTS", "MEMORY", "PYTHON", "ISOLATION", "SEEN", "WHY"), rows))
    if not rows:
        say("no workers yet: company token create --role worker prints the line for another machine")


def _change(session: Session, ref: str, action: str, done: str) -> None:
    view = session.client().change_worker(ref, action)
    if session.as_json:
        print_json("worker/1", view or {"id": ref, "removed": True})
        return
    say(f"{safe(view.get('name', ref))}: {view.get('state', done)}")
    for line in reason_lines(view.get("reason")):
        say(line)


@worker.command()
@click.argument("ref", metavar="WORKER")
@pass_session
def pause(session: Session, ref: str) -> None:
    """Give a worker no more work until resumed; what runs finishes."""
    _change(session, ref, "pause", "paused")


@worker.command()
@click.argument("ref", metavar="WORKER")
@pass_session
def resume(session: Session, ref: str) -> None:
    """Give a paused worker work again."""
    _change(session, ref, "resume", "resumed")


@worker.command()
@click.argument("ref", metavar="WORKER")
@pass_session
def drain(session: Session, ref: str) -> None:
    """Let a worker finish what it runs and then leave."""
    _change(session, ref, "drain", "draining")


@worker.command()
@click.argument("ref", metavar="WORKER")
@pass_session
def quarantine(session: Session, ref: str) -> None:
    """Take a worker's work away and give it none."""
    _change(session, ref, "quarantine", "quarantined")


@worker.command()
@click.argument("ref", metavar="WORKER")
@pass_session
def release(session: Session, ref: str) -> None:
    """End a worker's quarantine."""
    _change(session, ref, "release", "released")


@worker.command("rm")
@click.argument("ref", metavar="WORKER")
@pass_session
def remove(session: Session, ref: str) -> None:
    """Forget a worker; its key is refused from then on."""
    _change(session, ref, "rm", "removed")
