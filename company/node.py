"""Builds whole processes from options: a chief with its page and workers, or one worker (I/O).

Called by the command line; the only place where parts of several packages meet.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from company.config import parse_address
from company.home_lock import HomeLock
from company.listening import ANY_HOST, check_exposure, is_loopback, load_certificate, page_urls
from company.own_worker import NAME, Memory, begun_early, command_of, keep_own_worker, serve_own_worker
from company.paths import Home
from p2p.base.errors import ParallelError, UsageError
from p2p.base.record import record

if TYPE_CHECKING:
    from company.sandbox import Sandbox

MAX_TOKEN_LINE = 4096
_log = logging.getLogger("company.node")


# ---- the chief ---------------------------------------------------------------------------------------------------------------
def run_chief(options: Mapping[str, Any]) -> int:
    """Run a chief until it is stopped. ``options``: as `company start` has them, plus home, json and open."""
    set_up_logging(json_lines=bool(options.get("json")))
    home = Home.locate(Path(options["home"]) if options.get("home") else None)
    tree = home.chief.create()
    count = own_slots(options.get("workers", 0))
    worker = command_of(home, count, options) if count else None
    with HomeLock.take(tree.root, "chief"), begun_early(home, worker) as begun:
        tree.address_file.unlink(missing_ok=True)  # of one that was killed: nobody is to dial it
        try:
            run_to_end(_chief, home, dict(options), worker, begun)
        finally:
            tree.address_file.unlink(missing_ok=True)
    return 0


def run_to_end(main: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Run trio; of several errors at once the first that the project knows is raised, and an interrupt is an end like any other.

    Not ``except*``: what is raised inside one comes out as a group again.
    """
    try:
        return trio.run(main, *arguments)
    except KeyboardInterrupt:
        return None
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        known = [error for error in errors if isinstance(error, ParallelError)]
        if known:
            for error in errors:
                if isinstance(error, Exception) and not isinstance(error, ParallelError):
                    logging.getLogger("company.node").error("at the same time", exc_info=error)
            raise known[0] from None
        if all(isinstance(error, KeyboardInterrupt) for error in errors):
            return None
        raise


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


async def _chief(home: Home, options: dict[str, Any], worker: list[str] | None, begun: subprocess.Popen[bytes] | None) -> None:
    from company.early import CHIEF, NETWORK, import_each, stop_collecting
    from company.sandbox import Sandbox

    stop_collecting()
    allow_none = options.get("sandbox") == "none" and bool(options.get("i_understand"))
    async with trio.open_nursery() as beside:
        beside.start_soon(import_each, CHIEF if options.get("dht") == "off" else CHIEF + NETWORK)
        async with Sandbox.open(home=home.chief.root, stage=home.chief.staged, allow_none=allow_none) as sandbox:
            await _chief_in(sandbox, home, options, worker, begun)


async def _chief_in(
    sandbox: Sandbox, home: Home, options: dict[str, Any], worker: list[str] | None, begun: subprocess.Popen[bytes] | None
) -> None:
    from company.chief.service import running_chief
    from company.early import collect_again
    from company.messages import MESSAGES
    from company.wheels import Wheels
    from p2p.net.channel import Channel
    from p2p.net.rpc import serve_rpc

    registry, purposes = MESSAGES, frozenset[str]()
    if options.get("dht") != "off":
        from company.chief.network.dialling import REGISTRY
        from company.chief.network.peer_door import PURPOSES

        registry, purposes = REGISTRY, frozenset(PURPOSES)
    name = company_name(home, options.get("name"))
    async with running_chief(home, sandbox, name=name, quota=options.get("quota")) as chief, trio.open_nursery() as nursery:
        nursery.start_soon(_until_stopped, chief.stop, nursery.cancel_scope, chief.say_goodbye)
        page = await nursery.start(_serve_page, chief, options)
        wheels = Wheels(home.chief.cache / "wheels", on_built=chief.keep_wheels)
        host, port = parse_address(options.get("rpc") or "0.0.0.0:8468")
        network = await nursery.start(_network, chief, options)

        async def on_channel(channel: Channel) -> None:
            is_peer = network is not None and channel.purpose in purposes
            await (network.door if is_peer else chief.sessions).on_channel(channel)

        if worker is not None:  # before the port, so that it never has to take that
            await nursery.start(serve_own_worker, home.chief.socket, chief.identity, registry, on_channel)
        chief.addresses.rpc = await nursery.start(
            lambda task_status: serve_rpc(
                identity=chief.identity, host=None if host in ("0.0.0.0", "*", "") else host, port=port, registry=registry,
                on_channel=on_channel, http_get=wheels.get, task_status=task_status,
            )
        )  # fmt: skip
        if network is not None:
            from company.chief.secondment.opening import run_secondment

            nursery.start_soon(network.run)
            nursery.start_soon(run_secondment, chief, network, chief.seconding)
        owner = await chief.gate.local_token("owner")
        write_address(home, {
            "http": page.here, "rpc": chief.addresses.rpc, "dht": chief.addresses.dht, "token": owner, "pid": os.getpid(),
            "started": chief.started, "fingerprint": page.fingerprint,
        })  # fmt: skip
        if worker is not None:
            token, tell = await chief.gate.local_token("worker"), partial(chief.fleet.own_worker, own_slots(options.get("workers", 0)))
            listening = tuple(chief.addresses.for_tokens())
            nursery.start_soon(keep_own_worker, home, worker, token, listening, memory_of(home), tell, begun)
        if not is_loopback(host):  # a machine that may join is likely to ask
            nursery.start_soon(wheels.build_soon)
        collect_again()
        announce(chief, options, owner, page)
        if options.get("open"):
            await trio.to_thread.run_sync(_open_page, page.here, await chief.create_login(await chief.authenticate(owner)))
        await trio.sleep_forever()


async def _network(chief: Any, options: Mapping[str, Any], task_status: trio.TaskStatus[Any]) -> None:
    """Open the network of companies for as long as the chief lives; reports its service, or None where it is off."""
    if options.get("dht") == "off":
        task_status.started(None)
        return
    from company.chief.contracts.building import build_contracts
    from company.chief.contracts.front import Front
    from company.chief.contracts.needing import needs_of
    from company.chief.network.building import Options
    from company.chief.network.opening import open_network

    host, port = parse_address(options.get("dht") or options.get("rpc") or "0.0.0.0:8468")
    given = Options(
        bootstrap=tuple(options.get("bootstrap", ())), trackers=tuple(options.get("tracker", ())), relay=options.get("relay", "on") == "on",
        allow_private=bool(options.get("allow_private")),
    )  # fmt: skip
    async with open_network(
        identity=chief.identity, name=chief.name, addresses=chief.addresses, store=chief.store, workers=chief.fleet.list_workers,
        rung=chief.sandbox.rung, listen=("0.0.0.0" if host in ("", "*") else host, port), folder=chief.home.chief.root, options=given,
        network=options.get("network"),
    ) as network:  # fmt: skip
        chief.network = network
        chief.feed.listeners.append(network.poke)
        contracts = await build_contracts(
            identity=chief.identity, network=network, store=chief.store, committer=chief.committer, library=chief.library,
            jobs=lambda: chief.list_jobs(state=None, limit=1, offset=0)[0], needs=lambda: needs_of(chief.engine.state),
            on_change=lambda id_: chief.feed.put("contract", id_),
        )  # fmt: skip
        chief.goodbye = contracts.shut_down
        chief.contracts, chief.seconding = Front(contracts.desk, contracts.trust, contracts.seeker), contracts.living
        network.also.append(contracts.run)
        task_status.started(network)
        await trio.sleep_forever()


def memory_of(home: Home) -> Memory:
    """What this home's own worker remembers of its chief; one whose memory is damaged will say so itself."""
    from company.worker.options import load_membership, save_membership

    folder = home.worker(NAME).root

    def read() -> tuple[str, ...]:
        with contextlib.suppress(UsageError):
            known = load_membership(folder)
            return known.addresses if known is not None else ()
        return ()

    def write(addresses: tuple[str, ...]) -> None:
        with contextlib.suppress(UsageError):
            known = load_membership(folder)
            if known is not None and known.addresses != addresses:
                save_membership(folder, replace(known, addresses=addresses))

    return Memory(read, write)


async def _until_stopped(stop: trio.Event, scope: trio.CancelScope, say_goodbye: Callable[[], Awaitable[None]]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def on_signal() -> None:
                async for _ in signals:
                    stop.set()

            nursery.start_soon(on_signal)
            await stop.wait()
            await say_goodbye()  # while everything still runs: what is signed now is written and sent
            nursery.cancel_scope.cancel()
    scope.cancel()


@record
class Page:
    """Where the web page is: for others (with a certificate), and from this machine."""

    public: str
    here: str
    fingerprint: str | None


async def _serve_page(chief: Any, options: dict[str, Any], task_status: trio.TaskStatus[Page]) -> None:
    from company.chief.api import Auth, api_routes
    from company.chief.api.routes import make_gate
    from company.web import web_routes
    from p2p.base.clock import Monotonic
    from p2p.net.http_server import serve_http
    from p2p.net.tls import also_show_key

    address = options.get("http") or "127.0.0.1:8470"
    certificate = None
    if options.get("tls_cert"):
        certificate = load_certificate(Path(options["tls_cert"]), Path(options["tls_key"]) if options.get("tls_key") else None)
    check_exposure(address, has_tls=certificate is not None)
    host, port = parse_address(address)
    known: tuple[str, ...] = (host,)
    if certificate is not None and not is_loopback(host):
        known = (host, socket.gethostname(), *chief.addresses.public_hosts, *certificate.names)
    if certificate is not None:
        also_show_key(certificate.context, chief.identity)
    auth = Auth(
        chief, monotonic=lambda: Monotonic(time.monotonic()), csrf_key=csrf_key(chief.home), cookie_id=chief.identity.public.hex(),
        hosts=("localhost", "127.0.0.1", "::1", *(h for h in known if h not in ANY_HOST), *options.get("allow_host", ())),
        origins=tuple(options.get("allow_origin", ())),
    )  # fmt: skip
    gate = make_gate(chief, auth)
    routes = [*web_routes(chief, auth, gate=gate), *api_routes(chief, auth=auth, gate=gate)]

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        context = certificate.context if certificate is not None else None
        await serve_http(routes, host="0.0.0.0" if host in ("", "*") else host, port=port, ssl_context=context, task_status=task_status)

    async with trio.open_nursery() as nursery:
        bound = await nursery.start(serve)
        public, here = page_urls(bound, certificate=certificate, hosts=chief.addresses.public_hosts)
        chief.addresses.http = public
        task_status.started(Page(public, here, certificate.fingerprint if certificate is not None else None))


def announce(chief: Any, options: Mapping[str, Any], owner: str, page: Page) -> None:
    """Say that it is ready: one JSON line, or what a person wants to know."""
    view = chief.company()
    if options.get("json"):
        line = {
            "http": page.public,
            "rpc": chief.addresses.rpc,
            "dht": chief.addresses.dht,
            "token": owner,
            "pid": os.getpid(),
            "company": view.id,
        }
        print(json.dumps(line | ({"fingerprint": page.fingerprint} if page.fingerprint else {})), flush=True)
        return
    for label, text in ready_lines(chief, view, page):
        print(f"{label:<11}{text}")
    print("Ctrl-C stops the chief; running jobs are saved.", flush=True)


def ready_lines(chief: Any, view: Any, page: Page) -> list[tuple[str, str]]:
    """What a person wants to know of a chief that has started."""
    lines = [("Company", f"{view.name}  {view.id}"), ("Web page", f"{page.public}   (logged in: company open)")]
    if page.fingerprint is None:
        host, port = parse_address(page.here.partition("://")[2])
        lines.append(("", f"from another machine, first there: ssh -L {port}:{host}:{port} {socket.gethostname()}"))
    else:
        lines.append(("", f"from another machine: company login {page.public}#sha256:{page.fingerprint}"))
    only_here = all(is_loopback(address) for address in chief.addresses.for_tokens())
    lines.append(("Workers", f"connect to {', '.join(chief.addresses.for_tokens())}" + (" (only from this machine)" if only_here else "")))
    lines.append(("Isolation", view.isolation))
    lines.append(("Next", "company token create --role worker   |   company job submit PACKAGE DATA --watch"))
    return lines


def write_address(home: Home, address: dict[str, Any]) -> None:
    """Tell the command line of this user where the chief is; 0600, because it holds an owner token."""
    path = home.chief.address_file
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(address, file)
    os.replace(part, path)


def csrf_key(home: Home) -> bytes:
    """32 bytes kept across restarts, so that open pages stay usable."""
    path = home.chief.identity / "csrf"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()


def company_name(home: Home, given: str | None) -> str:
    """The company's name: as given now, else as given before, else the machine's."""
    path = home.chief.root / "name"
    if given:
        path.write_text(given[:100])
    return path.read_text().strip() if path.exists() else socket.gethostname()


def own_slots(workers: Any) -> int:
    """How many slots of its own a chief runs."""
    if workers in ("auto", None):
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(workers)


def _open_page(http: str, secret: str) -> None:
    import webbrowser

    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(f"{http}/login?secret={secret}")


# ---- a worker ----------------------------------------------------------------------------------------------------------------
def run_worker(options: Mapping[str, Any]) -> int:
    """Run one worker until it leaves. ``options``: as `company worker join` has them, plus home and json."""
    from company.worker.options import WorkerOptions
    from company.worker.service import run_worker as serve_worker

    set_up_logging(json_lines=bool(options.get("json")))
    settings = WorkerOptions(
        home=Home.locate(Path(options["home"]) if options.get("home") else None), name=options["name"], token=options.get("token"),
        via=options.get("via"), slots=own_slots(options.get("slots", "auto")), transport=options.get("transport", "rpc"),
        read_token=read_line if options.get("token_from_input") else None,
        chief_http=options.get("chief_http"), http=options.get("http"), http_public=options.get("http_public"),
        allow_requirements=bool(options.get("allow_requirements")), require_client_signature=bool(options.get("require_client_signature")),
        sandbox_allow_none=options.get("sandbox") == "none" and bool(options.get("i_understand")), on_ready=_printer(options),
    )  # fmt: skip
    code = run_to_end(serve_worker, settings)
    return code if isinstance(code, int) else 0


def read_line() -> str:
    """One line of standard input. Not by `sys.stdin`: a thread that waits in it would hold its lock when the process ends."""
    line = b""
    while len(line) < MAX_TOKEN_LINE and b"\n" not in line and (part := os.read(0, MAX_TOKEN_LINE)):
        line += part
    return line.partition(b"\n")[0].decode("utf-8", "replace").strip()


def _printer(options: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    def ready(facts: dict[str, Any]) -> None:
        if options.get("json"):
            print(json.dumps(facts, default=str), flush=True)
            return
        slots = own_slots(options.get("slots", "auto"))
        print(f"Joined as {facts['worker']} with {slots} slot{'s' if slots != 1 else ''}. Ctrl-C leaves; what runs may finish first.")
        port = str(facts.get("rpc") or "").rpartition(":")[2]
        if port:
            print(f"Machines that cannot reach the chief may join through this one: --via {socket.gethostname()}:{port}", flush=True)
        sys.stdout.flush()

    return ready


def set_up_logging(*, json_lines: bool) -> None:
    """Warnings and more to standard error; $COMPANY_LOG sets the level."""
    level = os.environ.get("COMPANY_LOG", "INFO" if not json_lines else "WARNING").upper()
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s", datefmt="%H:%M:%S")
    for chatty in ("asyncio", "kademlia", "rpcudp"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
