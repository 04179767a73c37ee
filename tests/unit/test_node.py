"""How a process is put together: where it listens, what it says of it, and how errors of many tasks come out."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from company import node
from company.chief.addresses import Addresses
from company.errors import ConfigurationError
from company.home_lock import HomeLock
from company.listening import check_exposure, is_loopback, load_certificate, page_urls
from company.own_worker import Memory, begun_early, command_of, keep_own_worker
from company.paths import Home
from company.wheelhouse import installer, open_wheelhouse
from company.wheels import Wheels
from p2p.base.clock import UnixTime
from p2p.base.errors import InvariantBroken, Unavailable
from p2p.net.rpc import _open_listeners
from p2p.net.tls import browser_certificate

NO_MEMORY = Memory(tuple, lambda addresses: None)


# ---- listening
@pytest.mark.parametrize("http", ["0.0.0.0:1", "[::]:1", "*:1", ":1", "10.0.0.1:1", "example.org:1"])
def test_only_loopback_may_do_without_tls(http: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_exposure(http, has_tls=False)
    assert caught.value.exit_code == 78
    check_exposure(http, has_tls=True)


@pytest.mark.parametrize("http", ["127.0.0.1.evil.example:1", "localhost.evil.example:1", "[::1:2]:1"])
def test_a_name_that_begins_like_loopback_may_not(http: str) -> None:
    with pytest.raises(ConfigurationError):
        check_exposure(http, has_tls=False)
    assert not is_loopback(http)


@pytest.mark.parametrize("http", ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1"])
def test_loopback_may(http: str) -> None:
    check_exposure(http, has_tls=False)
    assert is_loopback(http.strip("["))


def certificate(folder: Path, *names: str) -> Path:
    path = folder / "cert.pem"
    path.write_bytes(b"".join(browser_certificate(names, now=UnixTime(int(time.time())))))
    return path


def test_a_page_on_all_interfaces_is_named_for_others_by_its_certificate_and_here_by_loopback(tmp_path: Path) -> None:
    found = load_certificate(certificate(tmp_path, "127.0.0.1", "grid.example"), None)
    assert page_urls("0.0.0.0:8470", certificate=found, hosts=("10.0.0.5", "127.0.0.1")) == (
        "https://grid.example:8470", "https://127.0.0.1:8470",
    )  # fmt: skip
    nameless = load_certificate(certificate(tmp_path, "localhost"), None)
    assert page_urls("[::]:8470", certificate=nameless, hosts=("10.0.0.5",)) == ("https://10.0.0.5:8470", "https://[::1]:8470")
    assert page_urls("127.0.0.1:8470", certificate=None, hosts=("10.0.0.5",)) == ("http://127.0.0.1:8470",) * 2


def test_the_fingerprint_is_of_the_first_certificate_of_a_chain(tmp_path: Path) -> None:
    leaf = certificate(tmp_path, "localhost")
    alone = load_certificate(leaf, None).fingerprint
    leaf.write_bytes(b"a remark\n" + leaf.read_bytes() + browser_certificate(("ca",), now=UnixTime(int(time.time())))[0])
    assert load_certificate(leaf, None).fingerprint == alone


async def test_a_port_that_the_system_picks_is_the_same_on_every_interface() -> None:
    listeners = await _open_listeners(None, 0)
    ports = {listener.socket.getsockname()[1] for listener in listeners}
    for listener in listeners:
        await listener.aclose()
    assert len(ports) == 1


# ---- errors of many tasks
async def _fail(*errors: BaseException) -> None:
    async def one(error: BaseException) -> None:
        raise error

    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        for error in errors:
            nursery.start_soon(one, error)
        outer.start_soon(trio.sleep, 0)


def test_an_error_that_the_project_knows_comes_out_of_any_nest_of_groups_as_itself() -> None:
    with pytest.raises(Unavailable, match="taken"):
        node.run_to_end(_fail, Unavailable("port-taken", "taken"))
    with pytest.raises(Unavailable):
        node.run_to_end(_fail, ValueError("a bug beside it"), Unavailable("port-taken", "taken"))


def test_an_interrupt_is_an_end_like_any_other_and_a_bug_stays_one() -> None:
    assert node.run_to_end(_fail, KeyboardInterrupt()) is None
    with pytest.raises(ExceptionGroup):
        node.run_to_end(_fail, ValueError("x"))
    with pytest.raises(InvariantBroken):
        node.run_to_end(_fail, InvariantBroken("x"))


# ---- what lies in the home
def test_the_address_file_is_for_this_user_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.chief.create()
    node.write_address(home, {"http": "x"})
    assert home.chief.address_file.stat().st_mode & 0o777 == 0o600
    assert json.loads(home.chief.address_file.read_text()) == {"http": "x"}
    assert len(list(home.chief.run.iterdir())) == 1


def test_the_key_of_forms_and_the_name_stay_over_restarts(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.chief.create()
    assert node.csrf_key(home) == node.csrf_key(home)
    assert node.company_name(home, "Lab") == node.company_name(home, None) == "Lab"


def test_an_own_worker_never_gets_its_token_by_the_command_line(tmp_path: Path) -> None:
    command = command_of(Home(tmp_path), 3, {"sandbox": "auto"})
    assert command[-2:] == ["--token-file", "-"]
    assert "--sandbox" not in command
    assert command_of(Home(tmp_path), 3, {"sandbox": "none"})[-1] == "--i-understand"


async def test_the_own_workers_process_begins_before_there_is_a_token_and_gets_it_on_its_input(tmp_path: Path) -> None:
    home = Home(tmp_path)
    told: list[int | None] = []
    command = [sys.executable, "-c", "import sys; sys.exit(7 if sys.stdin.readline() == 'cmpw1.secret\\n' else 8)"]
    with begun_early(home, command) as begun:
        assert begun is not None and begun.poll() is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_own_worker, home, command, "cmpw1.secret", ("127.0.0.1:1",), NO_MEMORY, told.append, begun)
            with trio.fail_after(60):
                assert await trio.to_thread.run_sync(begun.wait, abandon_on_cancel=True) == 7
            nursery.cancel_scope.cancel()


def test_a_worker_whose_chief_did_not_start_is_ended_and_one_of_before_is_left_alone(tmp_path: Path) -> None:
    home, command = Home(tmp_path), [sys.executable, "-c", "import time; time.sleep(600)"]
    ended = None
    with contextlib.suppress(Unavailable), begun_early(home, command) as begun:
        ended = begun
        raise Unavailable("port-taken", "the chief's port is taken")
    assert ended is not None and ended.poll() is not None
    with begun_early(home, None) as begun:
        assert begun is None
    with HomeLock.take(home.worker("local").create().root, "worker"), begun_early(home, command) as begun:
        assert begun is None


def test_a_chief_begins_its_worker_before_anything_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def in_place_of_the_chief(main: object, home: Home, options: object, worker: list[str] | None, begun: Any) -> None:
        seen.append((worker, begun, begun is not None and begun.poll() is None))

    monkeypatch.setattr(node, "run_to_end", in_place_of_the_chief)
    node.run_chief({"home": str(tmp_path), "workers": 2})
    node.run_chief({"home": str(tmp_path), "workers": 0})
    (worker, begun, was_alive), none = seen
    assert worker[-4:] == ["--slots", "2", "--token-file", "-"] and was_alive and begun.poll() is not None
    assert none == (None, None, False)


def test_a_token_is_one_line_of_what_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [b"cmpw1.", b"sec", b"ret\nmore"]
    monkeypatch.setattr("company.node.os.read", lambda fd, most: parts.pop(0))
    assert node.read_line() == "cmpw1.secret"
    parts[:] = [b"cut", b""]
    assert node.read_line() == "cut"


# ---- addresses in tokens, wheels
def test_a_token_names_the_bound_host_or_every_host_of_the_machine() -> None:
    addresses = Addresses(rpc="0.0.0.0:8468", public_hosts=("10.0.0.5", "fd00::2", "127.0.0.1"))
    assert addresses.for_tokens() == ["10.0.0.5:8468", "[fd00::2]:8468", "127.0.0.1:8468"]
    addresses.rpc = "127.0.0.1:99"
    assert addresses.for_tokens() == ["127.0.0.1:99"]


async def test_the_installer_is_served_before_any_wheel_is_packed(tmp_path: Path) -> None:
    status, _, body = await Wheels(tmp_path / "wheels").get("/install.py")
    assert (status, body) == (200, installer()[2])
    assert not (tmp_path / "wheels").exists()


def test_a_wheelhouse_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no wheelhouse"):
        open_wheelhouse(tmp_path)
    (tmp_path / "index.json").write_text('{"wheels": [{"file": "a-1-py3-none-any.whl", "size": 3, "sha256": "00"}]}')
    (wheel,) = open_wheelhouse(tmp_path).wheels
    assert (wheel.name, wheel.version, wheel.size, wheel.path) == ("a", "1", 3, tmp_path / "a-1-py3-none-any.whl")


def test_what_a_person_reads_names_the_tunnel_or_the_fingerprint() -> None:
    chief = type("Chief", (), {"addresses": Addresses(rpc="0.0.0.0:8468", public_hosts=("10.0.0.5",))})
    view = type("View", (), {"name": "Lab", "id": "co-x", "isolation": "bubblewrap"})
    plain = dict(node.ready_lines(chief, view, node.Page("http://127.0.0.1:8470", "http://127.0.0.1:8470", None)))
    assert "ssh -L 8470:127.0.0.1:8470" in plain[""]
    assert "only from this machine" not in plain["Workers"]
    pinned = dict(node.ready_lines(chief, view, node.Page("https://a:1", "https://127.0.0.1:1", "ff")))
    assert "company login https://a:1#sha256:ff" in pinned[""]


def test_a_chief_without_a_network_starts_without_what_it_does_not_need_at_once() -> None:
    code = (
        "import sys\nfrom importlib import import_module\nimport company.cli.app, company.cli.start, company.node\n"
        "from company.early import CHIEF\nfor name in CHIEF: import_module(name)\nprint(*sys.modules)\n"
    )
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert {"company.chief.service", "aiohttp", "sqlalchemy"} <= loaded
    slow = {"alembic", "jinja2", "prometheus_client", "rich", "p2p.contracts.machine", "p2p.dht.node", "company.chief.secondment.service"}
    assert not slow & loaded, "a chief's start pays for these"
