"""What a package's split, process and merge attempt and are refused, and the layer that refuses it.

All attempts of one role run in one child, in one go; a test looks at one of them. The last tests take layers away one by one
and see exactly those attempts get through that nothing else stops, so that the layer named is the one.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from company.sandbox import Sandbox, seccomp
from company.sandbox.selftest import run_self_test
from p2p.base.errors import UsageError
from tests.support import escapes
from tests.support.escapes import ESCAPES, Escape
from tests.support.sandbox_layers import ALLOW_ALL, ROLES, ask, require_bubblewrap, start_of

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the attempts know the system call numbers of x86_64 alone")
TMP_BYTES = 16 << 20
MEMORY_BYTES = 1 << 30
BUGS = ("NameError", "TypeError", "AttributeError", "SyntaxError", "ImportError", "ModuleNotFoundError", "KeyError", "IndexError", "error")
Told = dict[str, str]


class Surroundings:
    """A company's home with things worth stealing, and servers worth talking to."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        for name in ("chief/identity/key", "chief/company.sqlite", "workers/w1/scratch/neighbour", "chief/jobs/other/fragments/part"):
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("SECRET")
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        try:
            self._sockets.append(socket.create_server(("::1", 0), family=socket.AF_INET6))
        except OSError:  # this machine has no IPv6
            pass
        abstract, named = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        abstract_name = f"\0company-{os.getpid()}"
        abstract.bind(abstract_name)
        named.bind(str(self.home / "s"))
        abstract.listen()
        named.listen()
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        self._sockets += [abstract, named, udp]
        threading.Thread(target=_echo, args=(udp,), daemon=True).start()
        # a group of its own: the tests' may be 0 or 1, which are groups inside too, when make is the first process of a container
        self._outsider = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        self.x: dict[str, Any] = {
            "home": str(self.home), "pid": os.getpid(), "group": self._outsider.pid,
            "fd": self._sockets[0].fileno(), "abstract": abstract_name,
            "port": self._sockets[0].getsockname()[1], "udp": udp.getsockname()[1],
            "port6": self._sockets[1].getsockname()[1] if self._sockets[1].family == socket.AF_INET6 else 0,
        }  # fmt: skip

    def close(self) -> None:
        for one in self._sockets:
            one.close()
        self._outsider.kill()
        self._outsider.wait()


def _echo(udp: socket.socket) -> None:
    try:
        while True:
            data, sender = udp.recvfrom(64)
            udp.sendto(data, sender)
    except OSError:
        return


@pytest.fixture(scope="module")
def surroundings() -> Iterator[Surroundings]:
    os.environ["SECRET_OF_PARENT"] = "x"
    with tempfile.TemporaryDirectory() as folder:
        found = Surroundings(Path(folder))
        yield found
        found.close()
    del os.environ["SECRET_OF_PARENT"]


async def _try(around: Surroundings, role: str, chosen: list[Escape], without: tuple[str, ...] = ()) -> Told:
    jobs = around.home / "chief" / "jobs"
    async with Sandbox.open(home=around.home / "chief", stage=[jobs]) as sandbox:
        require_bubblewrap(sandbox)
        source = escapes.module(role, chosen)
        start = start_of(sandbox, without)
        told = await ask(start, role, source, around.x, output=jobs / "out", tmp_bytes=TMP_BYTES, memory_bytes=MEMORY_BYTES)
    assert isinstance(told, dict)
    return told


@pytest.fixture(scope="module")
def told(surroundings: Surroundings) -> dict[str, Told]:
    return {role: trio.run(_try, surroundings, role, list(ESCAPES.values())) for role in ROLES}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", [pytest.param(name, id=f"{name}--{e.layers[0].replace(' ', '-')}") for name, e in ESCAPES.items()])
def test_an_escape_is_refused_by_the_layer_that_is_meant_to(told: dict[str, Told], name: str, role: str) -> None:
    assert told[role][name] in ESCAPES[name].refusals, f"{role}: {ESCAPES[name].layers[0]}"


ABLATIONS = (
    (escapes.SECCOMP,),
    (escapes.SECCOMP, escapes.NET),
    (escapes.SECCOMP, escapes.CAPS),
    (escapes.SECCOMP, escapes.USERNS),
    (escapes.READ_ONLY,),
    (escapes.SIZE,),
    (escapes.RLIMIT,),
    (escapes.RLIMIT, escapes.SIZE),
)


@pytest.mark.parametrize("without", ABLATIONS, ids=lambda without: "-and-".join(without).replace(" ", "-"))
def test_without_a_layer_just_those_escapes_succeed_that_nothing_else_stops(surroundings: Surroundings, without: tuple[str, ...]) -> None:
    chosen = [e for e in ESCAPES.values() if e.is_harmless]
    told = trio.run(_try, surroundings, "process", chosen, without)
    through = {name for name, said in told.items() if said.startswith("WORKED")}
    expected = {e.name for e in chosen if set(e.layers) <= set(without)}
    if not surroundings.x["port6"]:
        through, expected = through - {"tcp6-loopback"}, expected - {"tcp6-loopback"}
    assert through == expected, {name: told[name] for name in through ^ expected}
    assert expected, "an ablation that lets nothing through shows nothing"
    assert not [name for name, said in told.items() if said in BUGS]


def test_without_its_own_pid_namespace_a_child_of_the_same_user_reaches_its_parent(surroundings: Surroundings) -> None:
    if os.geteuid() == 0:
        pytest.skip("a root daemon's children are other users, a second layer")
    chosen = [e for e in ESCAPES.values() if e.name in ("signal-parent", "limits-of-parent")]
    told = trio.run(_try, surroundings, "process", chosen, (escapes.SECCOMP, escapes.PIDS))
    assert all(said.startswith("WORKED") for said in told.values()), told


LACKING = ((escapes.SECCOMP,), (escapes.NET,), (escapes.CAPS,), (escapes.READ_ONLY,))


async def test_start_up_proof_passes_with_all_layers_and_fails_without_any_of_these(tmp_path: Path) -> None:
    async with Sandbox.open(home=tmp_path) as sandbox:
        require_bubblewrap(sandbox)
        assert sandbox.is_for_strangers and (await sandbox.self_test()).ok
        for without in LACKING:
            proof = await run_self_test(start_of(sandbox, without), sandbox.rung)
            assert not proof.ok and proof.first_failure(), without


async def test_a_daemon_without_a_sandbox_that_proves_itself_refuses_to_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter is what both rungs need; without one that holds, no daemon opens, and only its owner's words change that."""
    monkeypatch.setattr(seccomp, "program", lambda *_, **__: ALLOW_ALL)
    with pytest.raises(UsageError) as refused:
        async with Sandbox.open(home=tmp_path):
            pass
    assert refused.value.code == "no-sandbox" and "no-fork" in refused.value.text
    async with Sandbox.open(home=tmp_path, allow_none=True) as sandbox:
        assert sandbox.rung == "none" and not sandbox.is_for_strangers
