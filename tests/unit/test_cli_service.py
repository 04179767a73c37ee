"""What starts, stops and stays: options of start and join, the end of the home's own process only, systemd units."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from company.cli.app import run
from company.cli.stop import wait_for_end
from company.home_lock import HomeLock
from company.service_unit import Unit, install_unit, quote_word
from p2p.base.clock import UnixTime
from p2p.net.tls import browser_certificate
from tests.support.fake_chief_http import FakeChief, running

UNIT = Unit(
    name="company-worker-amber", description="Worker 100% amber", system=False,
    argv=("/usr/bin/python3", "-m", "company", "worker", "join", "--home", "/srv/my home", "--label", 'a"$b%'),
)  # fmt: skip


class Node(ModuleType):
    """In the place of company.node: keeps the options it is called with."""

    def __init__(self) -> None:
        super().__init__("company.node")
        self.calls: list[dict[str, Any]] = []

    def run_chief(self, options: dict[str, Any]) -> int:
        self.calls.append(options)
        return 0

    run_worker = run_chief


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    import company

    fake = Node()
    monkeypatch.setitem(sys.modules, "company.node", fake)
    monkeypatch.setattr(company, "node", fake, raising=False)
    for name in [n for n in os.environ if n.startswith("COMPANY_")]:
        monkeypatch.delenv(name)
    yield fake


# ---- start and join
def test_start_hands_plain_options_to_the_node(node: Node, tmp_path: Path) -> None:
    words = "start --workers 2 --http 127.0.0.1:0 --rpc :0 --dht off --bootstrap a:1 --bootstrap b:2 --json --name Lab"
    assert run([*words.split(), "--home", str(tmp_path)]) == 0
    options = node.calls[0]
    assert json.loads(json.dumps(options)) == options
    assert (options["home"], options["workers"], options["json"], options["name"]) == (str(tmp_path), 2, True, "Lab")
    assert (options["http"], options["rpc"], options["dht"], options["bootstrap"]) == ("127.0.0.1:0", ":0", "off", ["a:1", "b:2"])


@pytest.mark.parametrize("http", ["0.0.0.0:8470", ":8470", "10.1.2.3:80", "[::]:8470"])
def test_a_page_open_to_others_without_tls_is_refused(node: Node, http: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["start", "--http", http, "--home", str(tmp_path)]) == 78
    assert "ssh -L" in capsys.readouterr().err
    (tmp_path / "cert.pem").write_bytes(b"".join(browser_certificate(("127.0.0.1",), now=UnixTime(int(time.time())))))
    assert run(["start", "--http", http, "--tls-cert", str(tmp_path / "cert.pem"), "--home", str(tmp_path)]) == 0
    assert len(node.calls) == 1


def test_no_sandbox_needs_to_be_said_in_words(node: Node, tmp_path: Path) -> None:
    assert run(["start", "--sandbox", "none", "--home", str(tmp_path)]) == 78
    assert run(["start", "--sandbox", "none", "--i-understand", "--home", str(tmp_path)]) == 0


@pytest.mark.parametrize("bad", ["--workers many", "--workers -1", "--http 8470", "--dht on", "--tls-cert /nowhere"])
def test_wrong_options_are_found_before_anything_starts(node: Node, bad: str) -> None:
    assert run(["start", *bad.split()]) == 2
    assert not node.calls


def test_join_hands_token_and_limits_to_the_node(node: Node, tmp_path: Path) -> None:
    words = "worker join cmpw1.token --slots 3 --name amber --via h:1 --transport rest --allow-requirements"
    assert run([*words.split(), "--home", str(tmp_path)]) == 0
    wanted = {"token": "cmpw1.token", "slots": 3, "name": "amber", "via": "h:1", "transport": "rest", "allow_requirements": True}
    assert wanted.items() <= node.calls[0].items()


def test_an_address_in_clear_for_other_machines_is_refused_before_a_worker_starts(node: Node, tmp_path: Path) -> None:
    join = ["worker", "join", "cmpw1.token", "--transport", "rest", "--home", str(tmp_path)]
    assert run([*join, "--http", "http://0.0.0.0:8471"]) == 78
    assert run([*join, "--http", "8471"]) == 2
    assert run([*join, "--http-public", "worker.example:1"]) == 2
    assert not node.calls
    assert run([*join, "--http", "0.0.0.0:8471", "--http-public", "worker.example:1"]) == 0
    assert (node.calls[0]["http"], node.calls[0]["http_public"]) == ("0.0.0.0:8471", "worker.example:1")


def test_a_worker_that_has_joined_comes_back_without_a_token(node: Node, tmp_path: Path) -> None:
    assert run(["worker", "join", "--name", "amber", "--home", str(tmp_path)]) == 2
    (tmp_path / "workers" / "amber").mkdir(parents=True)
    assert run(["worker", "join", "--name", "amber", "--home", str(tmp_path)]) == 0
    assert node.calls[0]["token"] is None


# ---- stop
def test_stop_ends_the_process_that_holds_the_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A process that holds the lock as a chief does and dies of SIGTERM; it has no REST side, so stop falls back to the signal."""
    code = (
        "import sys, signal, pathlib; from company.home_lock import HomeLock; "
        "lock = HomeLock.take(pathlib.Path(sys.argv[1]), 'chief'); print('held', flush=True); signal.pause()"
    )
    (tmp_path / "chief").mkdir()
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "chief")], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"held\n"
    try:
        assert run(["stop", "--home", str(tmp_path), "--json"]) == 0
        assert child.wait(10) == -15
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert json.loads(capsys.readouterr().out)["stopped"] is True


def test_stop_asks_the_chief_first_and_waits_for_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(FakeChief()) as chief:
        chief.write_home(tmp_path)
        with HomeLock.take(tmp_path / "chief", "chief"):  # this very process holds it, and does not end
            assert run(["stop", "--home", str(tmp_path), "--timeout", "20ms"]) == 11
    assert chief.is_stopped
    assert f"process {os.getpid()}" in capsys.readouterr().err


def test_stop_leaves_a_stranger_with_an_old_pid_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The address file names a living process, but the lock does not: the number was used again."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        FakeChief(url="http://127.0.0.1:1").write_home(tmp_path, pid=sleeper.pid)
        assert run(["stop", "--home", str(tmp_path)]) == 0
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
    assert "no chief runs" in capsys.readouterr().out


def test_a_process_that_has_gone_has_ended() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert wait_for_end(gone.pid, 0.0)
    assert not wait_for_end(os.getpid(), 0.01)


# ---- units
def test_the_unit_restarts_what_crashes_but_not_what_is_wrong() -> None:
    text = UNIT.text()
    assert 'ExecStart=/usr/bin/python3 -m company worker join --home "/srv/my home" --label "a\\"$$b%%"\n' in text
    for line in ("Description=Worker 100%% amber", "Restart=on-failure", "RestartPreventExitStatus=2 77 78", "WantedBy=default.target"):
        assert line in text.splitlines()


@pytest.mark.parametrize("word", ["", "plain", "a b", 'q"q', "100%", "$HOME", "back\\slash", "semi;colon"])
def test_quoting_survives_systemds_own_reading(word: str) -> None:
    read = shlex.split(quote_word(word))  # systemd's quoting is the shell's, after % and $ are halved
    assert [w.replace("%%", "%").replace("$$", "$") for w in read] == [word]


def test_a_user_unit_lingers_and_is_started(tmp_path: Path) -> None:
    ran: list[tuple[str, ...]] = []

    def run_it(command: Sequence[str]) -> tuple[int, str]:
        ran.append(tuple(command))
        return 0, ""

    done = install_unit(UNIT, run=run_it, config_home=tmp_path, is_systemd=True)
    assert done.is_started and done.path == tmp_path / "systemd" / "user" / "company-worker-amber.service"
    assert done.path.read_text() == UNIT.text()
    assert [c[:2] for c in ran] == [("loginctl", "enable-linger"), ("systemctl", "--user"), ("systemctl", "--user")]


def test_where_systemd_does_not_run_the_file_and_the_commands_are_left(tmp_path: Path) -> None:
    unit = Unit(name="company", description="Chief", argv=("company", "start"), system=True)
    done = install_unit(unit, run=lambda command: pytest.fail("nothing may run"), is_systemd=False, system_units=tmp_path)
    assert (done.is_started, done.path.read_text()) == (False, unit.text())
    assert "systemd does not run here" in done.text
    assert done.commands == ("systemctl daemon-reload", "systemctl enable --now company.service")
    assert "WantedBy=multi-user.target" in unit.text()


def test_a_failing_systemctl_is_told_with_what_is_left_to_do(tmp_path: Path) -> None:
    done = install_unit(UNIT, run=lambda command: (1, "Failed to connect to bus"), config_home=tmp_path, is_systemd=True)
    assert not done.is_started and "Failed to connect to bus" in done.text and len(done.commands) == 3


def test_a_worker_service_keeps_its_token_out_of_the_unit(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from company import service_unit

    seen: list[Unit] = []

    def keep(unit: Unit) -> service_unit.Installed:
        seen.append(unit)
        return service_unit.Installed(tmp_path / "u", True, "ok")

    monkeypatch.setattr(service_unit, "install_unit", keep)
    words = "worker join cmpw1.secret --name amber --slots 2 --allow-requirements --install-service"
    assert run([*words.split(), "--home", str(tmp_path)]) == 0
    token_file = tmp_path / "workers" / "amber" / "join-token"
    assert not any("secret" in word for word in seen[0].argv) and str(token_file) in seen[0].argv
    assert (token_file.read_text(), token_file.stat().st_mode & 0o777) == ("cmpw1.secret\n", 0o600)
    assert not node.calls
    assert run([*seen[0].argv[4:]]) == 0  # the service's own call is one that the command line takes
    assert node.calls[0]["token"] == "cmpw1.secret" and node.calls[0]["allow_requirements"] is True
