"""A hostile package on a lent worker, and a hostile lent worker at a borrower: what each tries, and what it is told."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from company import messages as m
from company.ticket import Ticket, sign_ticket
from company.worker.link import machine_item
from p2p.base.errors import ParallelError
from p2p.base.keys import Identity
from p2p.net.channel import Channel
from p2p.net.identity_file import load_or_create_identity
from p2p.net.rpc import dial
from tests.e2e.test_secondment import end, processor_of
from tests.support.company_processes import until, value_of, write_package
from tests.support.escapes import ESCAPES, module
from tests.support.fake_contracts import NETWORK
from tests.support.two_companies import TwoCompanies

pytestmark = pytest.mark.slow
LARGE = "def split(data):\n    for n in range(4):\n        yield bytes([n]) * (5 << 20)\n"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoCompanies]:
    with TwoCompanies(tmp_path_factory.mktemp("hostile")) as companies:
        yield companies


def test_a_guests_package_is_refused_everything_that_an_own_one_is(both: TwoCompanies, numbers: Path, tmp_path: Path) -> None:
    port = int(both.borrower.http.rpartition(":")[2])  # the borrower's REST, on this very machine
    around: dict[str, Any] = {
        "home": str(both.lender.home), "pid": both.lender.processes["chief"].pid, "group": both.lender.processes["lent0"].pid, "fd": 5,
        "abstract": "\0company-none", "port": port, "udp": port, "port6": port,
    }  # fmt: skip
    package = write_package(
        tmp_path / "p", module("process", list(ESCAPES.values())), split="def split(data):\n    yield 1\n",
        manifest='memory = "1GiB"\ntime_limit = "60s"\n',
    )  # fmt: skip
    job = both.borrower.client.submit(package, numbers, params={"x": around}, where="any", yes_foreign=True)
    contract = both.sign(processor_of(package), contract="escapes", check="none", memory_mib=1024, disk_mib=16, fragment_s=60)
    job.wait(60)
    assert job.state == "done", job.view
    (told,) = value_of(job, tmp_path / "out")
    through = {name: said for name, said in told.items() if said not in ESCAPES[name].refusals}
    assert through == {}
    assert len(told) == len(ESCAPES)
    end(both, contract)


class Forged:
    """A worker that the lender has really sent, and that does what it likes."""

    def __init__(self, both: TwoCompanies, contract: str, processor: str, seed: bytes = b"f" * 32, **changed: Any) -> None:
        self.both = both
        self.identity = Identity(seed)
        lender = load_or_create_identity(both.lender.home / "chief" / "identity" / "key")
        self.borrower = bytes.fromhex((both.borrower.home / "key").read_text())
        now = int(time.time())
        values: dict[str, Any] = {
            "lender": lender.public, "worker": self.identity.public, "contract": bytes.fromhex(contract), "borrower": self.borrower,
            "endpoints": (), "relays": (), "slots": 1, "duration_s": 600, "processor": bytes.fromhex(processor), "memory_mib": 512,
            "disk_mib": 16, "fragment_s": 600, "lease_s": 60, "serial": 1, "created": now, "expires": now + 600,
        }  # fmt: skip
        ticket = Ticket(**(values | changed))
        self.greeting = m.Guest(lender.public, *sign_ticket(lender, NETWORK, ticket), ())

    async def dial(self, purpose: str) -> Channel:
        return await dial(self.both.borrower.rpc, identity=self.identity, expected_key=self.borrower, purpose=purpose, registry=m.MESSAGES)

    async def come(self) -> Channel:
        channel = await self.dial("guest")
        machine = m.Machine("guest", 1, 1, 1 << 30, "3.11.7", "Linux", "bubblewrap", False, None, None, "0")
        await channel.send(self.greeting, *machine_item(machine))
        return channel


async def beat(channel: Channel) -> None:
    """What every worker says as long as it lives; one that is silent is cut off, however well it behaves."""
    with contextlib.suppress(ParallelError):
        while True:
            await channel.send(m.Ping(0))
            await trio.sleep(1)


async def answer(channel: Channel, kind: type[m.Message] | None = None) -> str:
    """The code with which the other side refuses, or the name of what it says."""
    with trio.fail_after(10):
        while True:
            try:
                message, _ = await channel.receive()
            except ParallelError as error:
                return str(error.facts.get("peer_code", error.code))
            if isinstance(message, m.Refused):
                return message.code_word
            if not isinstance(message, m.Pong) and (kind is None or isinstance(message, kind)):
                return type(message).__name__


def test_a_guest_that_asks_for_more_than_its_batch_is_refused(both: TwoCompanies, numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return len(fragment)\n", split=LARGE)
    other = write_package(tmp_path / "q", "def process(fragment):\n    return 2\n")
    secret = both.borrower.client.submit(other, numbers, params={"n": 5})
    job = both.borrower.client.submit(package, numbers, where="any", yes_foreign=True)
    until(lambda: job.status()["fragments"]["total"] == 4, "it is split")
    processor = processor_of(package)
    contract = both.sign(processor, contract="forged", check="none", at="borrower")

    async def main() -> dict[str, str]:
        guest = Forged(both, contract, processor)
        channel = await guest.come()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat, channel)
            found = await forge(guest, channel)
            nursery.cancel_scope.cancel()
        return found

    async def forge(guest: Forged, channel: Channel) -> dict[str, str]:
        found = {}
        with trio.fail_after(10):
            while not isinstance((got := await channel.receive())[0], m.Run):
                pass
        run = got[0]
        assert isinstance(run, m.Run)
        for name, asked in {
            "its own": m.BlobGet(run.token, run.job, run.first),
            "another fragment": m.BlobGet(run.token, run.job, (run.first + run.count) % 4 if run.count < 4 else 9),
            "another job": m.BlobGet(run.token, secret.id, 0),
            "another token": m.BlobGet(run.token + 1, run.job, run.first),
            "wheels": m.WheelsGet(run.job),
        }.items():
            bulk = await guest.dial("bulk")
            await bulk.send(asked)
            found[name] = await answer(bulk)
            await bulk.aclose()
        second = await Forged(both, contract, processor, b"g" * 32).come()
        found["a second slot"] = await answer(second)
        stolen = Forged(both, contract, processor, b"g" * 32)
        stolen.greeting = guest.greeting
        found["a stolen ticket"] = await answer(await stolen.come())
        found["an own worker's word"] = await say(channel, m.Seconded(bytes(32), 1, 1, "over", 0, 0, 0, 0, bytes(32), "", ""))
        again = await guest.come()
        found["another processor"] = await say(again, m.NeedProcessor(bytes.fromhex(processor_of(other))))
        last = await guest.come()
        found["a result of others' fragments"] = await claim(last, run, secret.id)
        return found

    async def say(channel: Channel, message: m.Message) -> str:
        await channel.send(message)
        while (said := await answer(channel)) in ("Resumed", "JobIs", "Run", "Cancel", "Drain", "Undrain"):
            pass
        return said

    async def claim(channel: Channel, run: m.Run, job: str) -> str:
        items = [b"\0", bytes(4), b"", b"\x01"]
        sizes = np.array([len(i) for i in items], dtype="<u4")
        await channel.send(m.Outcome(run.token + 77, job, 0, 1, True, 1, 1, 1, 0, ()), sizes, items)
        return await answer(channel, m.Stale)

    assert trio.run(main) == {
        "its own": "BlobPart", "another fragment": "stale-token", "another job": "stale-token", "another token": "stale-token",
        "wheels": "malformed-message", "a second slot": "slots-exceeded", "a stolen ticket": "ticket-refused",
        "an own worker's word": "not-a-guests", "another processor": "processor-not-agreed", "a result of others' fragments": "Stale",
    }  # fmt: skip
    assert secret.status()["fragments"]["done"] == 0
    assert json.dumps(job.status()["fragments"]["failed"]) == "0"
