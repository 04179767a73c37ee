"""How others reach this chief: peers are asked to dial back, and where they cannot, two relays are kept (I/O)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Never

import trio

from company import peer_messages as pm
from company.chief.network.contact import Contact
from company.chief.network.dialling import PeerDialler, splice_in
from company.chief.network.ground import Ground
from company.listening import is_loopback
from company.messages import Ping
from p2p.base.errors import MalformedMessage, ParallelError
from p2p.dht import reachability as r
from p2p.dht.addressing import is_dialable
from p2p.dht.advertisement import Relay
from p2p.net.addresses import join_address, split_address
from p2p.net.channel import Channel
from p2p.net.clock import read_monotonic
from p2p.net.driver import Driver
from p2p.net.rpc import RpcServer

RELAYS = 2
LOOK_S = 2.0  # between two looks at who is known
PING_S = 30.0
RETRY_S = 15.0
_log = logging.getLogger("company.chief.network")


@dataclass(slots=True)
class Outreach:
    """Keeps `Ground.report` and `Ground.relays` true."""

    ground: Ground
    dialler: PeerDialler
    server: RpcServer  # serves what comes by a relay
    on_change: Callable[[], None]
    _driver: Driver[r.Event, r.Effect] | None = None
    _nursery: trio.Nursery | None = None
    _kept: dict[bytes, Relay] = field(default_factory=dict)
    _trying: set[bytes] = field(default_factory=set)

    async def run(self) -> Never:
        """Until cancelled."""
        machine = r.Reachability(read_monotonic())
        driver: Driver[r.Event, r.Effect] = Driver(machine, self._perform, tick=r.Tick())
        self._driver = driver
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(driver.run)
            while True:
                await driver.post(r.PeersKnown(self._helpers()))
                self._keep_relays(nursery)
                await trio.sleep(LOOK_S)
        raise AssertionError("unreachable")

    def _helpers(self) -> tuple[r.Helper, ...]:
        found = []
        for company in self.ground.known:
            for host, port in company.contact.endpoints:
                if is_dialable((host, port), allow_private=self.ground.allow_private):
                    found.append(r.Helper(company.contact.key, host, port))
                    break
        return tuple(sorted(found, key=lambda helper: helper.key))

    def _perform(self, effect: r.Effect) -> Awaitable[None] | None:
        if isinstance(effect, r.Changed):
            if effect.report.state != self.ground.report.state:
                _log.info("other companies: this chief is %s", effect.report.state)
            self.ground.report = effect.report
            self.on_change()
        elif self._nursery is not None:
            self._nursery.start_soon(self._ask, effect.helper)
        return None

    async def _ask(self, helper: r.Helper) -> None:
        contact = Contact(key=helper.key, endpoints=((helper.host, helper.port),))
        event: r.Event = r.Failed(helper)
        with trio.move_on_after(r.ASK_DEADLINE_S):
            try:
                channel = await self.dialler.open(contact)
                try:
                    await channel.send(self._question())
                    message, _ = await channel.receive()
                finally:
                    await channel.aclose()
                if isinstance(message, pm.DialedBack):
                    event = r.Told(helper, told_by(message), message.seen_as if _is_address(message.seen_as) else "")
            except ParallelError as error:
                _log.info("asking %s:%d to dial back: %s", helper.host, helper.port, error.text)
        if self._driver is not None:
            await self._driver.post(event)

    def _question(self) -> pm.DialBack:
        dht = self.ground.directory.status().address
        http = self.ground.addresses.http.partition("://")[2]
        return pm.DialBack(
            dht[1] if dht is not None else 0, self.ground.rpc_port(), 0 if not http or is_loopback(http) else split_address(http)[1]
        )

    # ---- relays -------------------------------------------------------------------------------------------------------------
    def _keep_relays(self, nursery: trio.Nursery) -> None:
        """Where nobody can dial us, stay in touch with two who can be dialled and who relay."""
        if self.ground.report.state != "outbound-only" or self.ground.report.is_open("rpc"):
            return
        wanted = RELAYS - len(self._kept) - len(self._trying)
        for company in sorted(self.ground.known, key=lambda c: c.contact.key):
            key = company.contact.key
            if wanted > 0 and company.relays_for_others and company.contact.endpoints and key not in self._trying | set(self._kept):
                wanted -= 1
                self._trying.add(key)
                nursery.start_soon(self._keep, company.contact)

    async def _keep(self, contact: Contact) -> None:
        key = contact.key
        try:
            channel = await self.dialler.open(Contact(key=key, endpoints=contact.endpoints), "relay-keep")
            try:
                await channel.send(pm.RelayKeep())
                message, _ = await channel.receive()
                if not isinstance(message, pm.RelayKept):
                    raise MalformedMessage(f"expected RelayKept, got {type(message).__name__}")
                host, port = split_address(channel.peer_address)
                relay = Relay(public=key, host=host, port=port)
                self._kept[key] = relay
                self._trying.discard(key)
                self._tell()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_ping, channel)
                    await self._serve_calls(channel, relay, nursery)
            finally:
                await channel.aclose()
        except ParallelError as error:
            _log.info("keeping a relay: %s", error.text)
        except ExceptionGroup as group:  # of the ping and the calls: the channel ended
            if group.split(ParallelError)[1] is not None:
                raise
        finally:
            self._kept.pop(key, None)
            self._tell()
        with trio.move_on_after(RETRY_S):
            await trio.sleep_forever()
        self._trying.discard(key)

    async def _serve_calls(self, channel: Channel, relay: Relay, nursery: trio.Nursery) -> None:
        while True:
            message, _ = await channel.receive()
            if isinstance(message, pm.RelayCall):
                nursery.start_soon(self._come, relay, message.ticket)

    async def _come(self, relay: Relay, ticket: bytes) -> None:
        """Somebody wants us: meet them at the relay, and serve their TLS there."""
        try:
            channel = await self.dialler.open(Contact(key=relay.public, endpoints=((relay.host, relay.port),)), "relay", 10.0)
            stream = None
            with trio.move_on_after(10.0):
                stream = await splice_in(channel, pm.RelayTake(ticket))
            if stream is None:
                await channel.aclose()
                return
        except ParallelError as error:
            _log.info("coming to a relay: %s", error.text)
            return
        where = join_address(relay.host, relay.port)
        await self.server.serve_stream(stream, f"relay {where}", f"by {where}")

    def _tell(self) -> None:
        self.ground.relays = tuple(self._kept[key] for key in sorted(self._kept))
        self.on_change()


async def _ping(channel: Channel) -> Never:
    while True:
        await trio.sleep(PING_S)
        await channel.send(Ping(0))
    raise AssertionError("unreachable")


def told_by(message: pm.DialedBack) -> dict[r.Port, r.Seen]:
    """A stranger's words, those that mean nothing as "not-asked"."""
    words: dict[r.Port, r.Seen] = {}
    given: dict[r.Port, str] = {"udp": message.udp, "rpc": message.rpc, "http": message.http}
    for port, word in given.items():
        words[port] = "open" if word == "open" else "closed" if word == "closed" else "not-asked"
    return words


def _is_address(text: str) -> bool:
    try:
        split_address(text)
    except ParallelError:
        return False
    return True
