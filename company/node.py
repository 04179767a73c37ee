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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from company.home_lock import HomeLock
from company.paths import Home
from p2p.base.errors import ParallelError, Unavailable, UsageError

RESTART_WORKER_S = 2.0
WORKER_GRACE_S = 15.0
_log = logging.getLogger("company.node")


# ---- the chief ---------------------------------------------------------------------------------------------------------------
def run_chief(options: Mapping[str, Any]) -> int:
    """Run a chief until it is stopped. ``options``: as `company start` has them, plus home, json and open."""
    set_up_logging(json_lines=bool(options.get("json")))
    home = Home.locate(Path(options["home"]) if options.get("home") else None)
    tree = home.chief.create()
    with HomeLock.take(tree.root, "chief"):
        try:
            trio.run(_chief, home, dict(options))
        except* ParallelError as group:
            raise _first(group) from None
        except* KeyboardInterrupt:
            pass
        finally:
            tree.address_file.unlink(missing_ok=True)
    return 0


def _first(group: BaseExceptionGroup[ParallelError]) -> ParallelError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ParallelError)
    return error


async def _chief(home: Home, options: dict[str, Any]) -> None:
    from company.chief.service import running_chief
    from company.messages import MESSAGES
    from p2p.net.rpc import serve_rpc

    name = company_name(home, options.get("name"))
    allow_none = options.get("sandbox") == "none" and bool(options.get("i_understand"))
    async with running_chief(home, name=name, allow_none=allow_none) as chief, trio.open_nursery() as nursery:
        nursery.start_soon(_until_stopped, chief.stop, nursery.cancel_scope)
        await nursery.start(_serve_page, chief, options)
        wheels = Wheels(home)
        host, port = split(options.get("rpc") or "0.0.0.0:8468")
        chief.addresses.rpc = await nursery.start(
            lambda task_status: serve_rpc(
                identity=chief.identity, host=None if host in ("0.0.0.0", "*") else host, port=port, registry=MESSAGES,
                on_channel=chief.sessions.on_channel, http_get=wheels.get, task_status=task_status,
            )
        )  # fmt: skip
        owner = await chief.gate.local_token("owner")
        write_address(home, {
            "http": chief.addresses.http, "rpc": chief.addresses.rpc, "dht": None, "token": owner, "pid": os.getpid(), "started": chief.started,
        })  # fmt: skip
        count = own_slots(options.get("workers", 0))
        if count:
            token = await chief.gate.local_token("worker")
            nursery.start_soon(_own_worker, home, token, count, options)
        announce(chief, options, owner)
        if options.get("open"):
            from p2p.base.errors import UsageError as _  # noqa: F401 - keeps the import local to the rare case

            await trio.to_thread.run_sync(_open_page, chief.addresses.http, await chief.create_login(await chief.authenticate(owner)))
        await trio.sleep_forever()


async def _until_stopped(stop: trio.Event, scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def on_signal() -> None:
                async for _ in signals:
                    stop.set()

            nursery.start_soon(on_signal)
            await stop.wait()
            nursery.cancel_scope.cancel()
    scope.cancel()


async def _serve_page(chief: Any, options: dict[str, Any], task_status: trio.TaskStatus[None]) -> None:
    from company.chief.api import Auth, api_routes
    from company.chief.api.routes import make_gate
    from company.web import web_routes
    from p2p.base.clock import Monotonic
    from p2p.net.http_server import serve_http
    from p2p.net.tls import browser_context

    host, port = split(options.get("http") or "127.0.0.1:8470")
    context = None
    if options.get("tls_cert"):
        cert = Path(options["tls_cert"]).read_bytes()
        key = Path(options["tls_key"]).read_bytes() if options.get("tls_key") else cert
        context = browser_context(cert, key)
    elif not host.startswith(("127.", "::1", "localhost", "[::1")):
        raise UsageError("http-without-tls", f"--http {host}:{port} is reachable from other machines, and not encrypted", hint="give --tls-cert")
    auth = Auth(
        chief, monotonic=lambda: Monotonic(time.monotonic()), csrf_key=csrf_key(chief.home), cookie_id=chief.identity.public.hex(),
        hosts=("localhost", "127.0.0.1", "::1", host, *options.get("allow_host", ())), origins=tuple(options.get("allow_origin", ())),
    )  # fmt: skip
    gate = make_gate(chief, auth)
    routes = [*web_routes(chief, auth, gate=gate), *api_routes(chief, auth=auth, gate=gate)]

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        await serve_http(routes, host=host, port=port, ssl_context=context, task_status=task_status)

    async with trio.open_nursery() as nursery:
        bound = await nursery.start(serve)
        chief.addresses.http = f"{'https' if context else 'http'}://{bound}"
        task_status.started()


class Wheels:
    """Answers the plain GETs of a machine that is about to join; the wheelhouse is built when first asked for."""

    def __init__(self, home: Home) -> None:
        self._folder = home.chief.cache / "wheels"
        self._house: Any = None
        self._lock = trio.Lock()

    async def get(self, path: str) -> tuple[int, str, bytes]:
        """One GET of the RPC port."""
        from company.wheelhouse import build_wheelhouse

        async with self._lock:
            if self._house is None:
                try:
                    self._house = await trio.to_thread.run_sync(build_wheelhouse, self._folder)
                except Unavailable as error:
                    _log.warning("no wheelhouse: %s", error.text)
                    return 503, "text/plain; charset=utf-8", error.text.encode()
        return await trio.to_thread.run_sync(self._house.get, path)  # type: ignore[no-any-return]


async def _own_worker(home: Home, token: str, slots: int, options: dict[str, Any]) -> None:
    """Keep the chief's own worker process running; it ends with the chief."""
    arguments = [sys.executable, "-m", "company", "worker", "join", "--home", str(home.root), "--name", "local", "--slots", str(slots)]
    arguments += ["--token-file", "-"]
    if options.get("sandbox") == "none":
        arguments += ["--sandbox", "none", "--i-understand"]
    while True:
        # Popen from the main thread: a child's death signal follows the thread that made it
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        assert process.stdin is not None
        process.stdin.write(token.encode() + b"\n")
        process.stdin.close()
        try:
            code = await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
            _log.warning("the chief's own worker ended with %s; starting it again", code)
        finally:
            if process.poll() is None:
                process.terminate()
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(_wait_or_kill, process)
        await trio.sleep(RESTART_WORKER_S)


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(WORKER_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def announce(chief: Any, options: Mapping[str, Any], owner: str) -> None:
    """Say that it is ready: one JSON line, or what a person wants to know."""
    view = chief.company()
    if options.get("json"):
        line = {"http": chief.addresses.http, "rpc": chief.addresses.rpc, "dht": None, "token": owner, "pid": os.getpid(), "company": view.id}
        print(json.dumps(line), flush=True)
        return
    tunnel = chief.addresses.http.rpartition(":")[2]
    print(f"Company    {view.name}  {view.id}")
    print(f"Web page   {chief.addresses.http}   (open it: company open; from another machine: ssh -L {tunnel}:127.0.0.1:{tunnel} {socket.gethostname()})")
    print(f"Workers    connect to {', '.join(chief.addresses.for_tokens())}")
    print(f"Isolation  {view.isolation}")
    print("Next       company token create --role worker   |   company job submit PACKAGE DATA --watch")
    print("Ctrl-C stops the chief; running jobs are saved.", flush=True)


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


def split(address: str) -> tuple[str, int]:
    """host and port of ADDR:PORT."""
    host, _, port = str(address).rpartition(":")
    return host.strip("[]") or "127.0.0.1", int(port)


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
        chief_http=options.get("chief_http"),
        allow_requirements=bool(options.get("allow_requirements")), require_client_signature=bool(options.get("require_client_signature")),
        sandbox_allow_none=options.get("sandbox") == "none" and bool(options.get("i_understand")), on_ready=_printer(options),
    )  # fmt: skip
    try:
        return trio.run(serve_worker, settings)
    except* ParallelError as group:
        raise _first(group) from None


def _printer(options: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    def ready(facts: dict[str, Any]) -> None:
        if options.get("json"):
            print(json.dumps(facts, default=str), flush=True)
        else:
            print("Joined. " + "  ".join(f"{k} {v}" for k, v in facts.items()), flush=True)

    return ready


def set_up_logging(*, json_lines: bool) -> None:
    """Warnings and more to standard error; $COMPANY_LOG sets the level."""
    level = os.environ.get("COMPANY_LOG", "INFO" if not json_lines else "WARNING").upper()
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
