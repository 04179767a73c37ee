"""Contract path 8/8 - what is known of other companies, and their chains of receipts (I/O).

Evidence is the halves in the database: own ones, and those that other chiefs showed. A chain is asked of its author, with the head that
the DHT has: who shows less than its head says, or another end, is named. Nothing here is believed without a signature.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Never

import msgpack
import numpy as np
import trio

from company import contract_views as cv
from company import peer_messages as pm
from company.chief.contracts.driver import BookDriver
from company.chief.contracts.port import YARDSTICK
from company.chief.contracts.rules import Asker, running_steps
from company.chief.network.contact import Contact
from company.chief.store import contracts as rows
from company.chief.store import meta
from company.chief.store.store import Store
from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, ParallelError
from p2p.base.frames import Frame
from p2p.base.ids import NODE_ID_BYTES
from p2p.base.keys import company_id_text
from p2p.contracts import messages as m
from p2p.contracts.chain import chain_fault, read_half_untrusted
from p2p.contracts.signing import Reader, Signed, open_signed_untrusted, trusted
from p2p.contracts.terms import array_untrusted
from p2p.dht.directory import Directory
from p2p.net.channel import Channel
from p2p.reputation import owed, trust
from p2p.reputation.evidence import Evidence
from p2p.reputation.favours import Favours
from p2p.reputation.trust import Opinion

KIND = "receipt-head"
LIFETIME_S = 3600
MAX_SHOWN = 200  # halves of one answer
MAX_ASKED = 2000  # of one company
MAX_HALVES = 100_000  # contracts between others, in memory: the oldest makes room. One's own, from which credit follows, all stay
ASK_S = 10.0
LEARN_EVERY_S = 600.0
MAX_OVER = 8  # companies that vouch for one, as they are shown
_log = logging.getLogger("company.chief.contracts")


@dataclass(slots=True, kw_only=True)
class Trust:
    """Evidence and what follows from it."""

    driver: BookDriver
    store: Store
    directory: Directory
    unix_time: Callable[[], UnixTime]
    open_channel: Callable[[bytes], Awaitable[Channel]]
    find: Callable[[str], Awaitable[Contact]]
    name_of: Callable[[bytes], str]
    evidence: Evidence
    yardsticks: dict[bytes, float] = field(default_factory=dict)  # by contract: core-ms of one of its fragments on own workers
    chains: dict[bytes, str] = field(default_factory=dict)  # what was found of each company's chain
    _keys: dict[str, bytes] = field(default_factory=dict)  # by id, of those whom an own receipt names
    _others: deque[bytes] = field(default_factory=deque)  # contracts of others, in the order in which they came
    _due: trio.Event = field(default_factory=trio.Event)

    async def load(self) -> None:
        """What is in the database."""
        for row in await self.store.read(lambda conn: rows.all_halves(conn, self.evidence.me, MAX_HALVES)):
            self._take(trusted(m.Half.code, row.body, row.signature))
        self.evidence.forked |= await self.store.read(rows.forked)
        found = await self.store.read(lambda conn: meta.starting_with(conn, YARDSTICK))
        self.yardsticks.update((bytes.fromhex(contract), float(said)) for contract, said in found.items())

    def on_half(self, half: Signed) -> None:
        """One more half is on disk."""
        self._take(half)
        self._due.set()

    def _take(self, half: Signed) -> None:
        found = half.message
        if not isinstance(found, m.Half):
            return
        is_new, is_added = found.contract not in self.evidence.entries, self.evidence.add(half)
        if is_added and self.evidence.me not in (found.author, found.peer):
            if is_new:
                self._others.append(found.contract)
            while len(self._others) > MAX_HALVES:
                self.evidence.forget(self._others.popleft())
        elif is_added:
            other = found.peer if found.author == self.evidence.me else found.author
            self._keys[company_id_text(other)] = other

    async def run(self) -> Never:
        """Publish the head of the own chain whenever it grew, and before the record runs out."""
        while True:
            if self.driver.book.chain.halves:
                await self.publish()
            self._due = trio.Event()
            with trio.move_on_after(LIFETIME_S / 3):
                await self._due.wait()
        raise AssertionError("unreachable")

    async def learn(self) -> Never:
        """Ask those who computed for us for their chains, now and then: they say who computed for them."""
        while True:
            await trio.sleep(LEARN_EVERY_S)
            for company in sorted(self.evidence.companies()):
                if self.evidence.computed(company, self.evidence.me) and company not in self.evidence.forked:
                    await self.ask_chain(company)
        raise AssertionError("unreachable")

    async def publish(self) -> None:
        """The head record."""
        head = self.driver.book.chain.head(self.unix_time())
        try:
            await self.directory.put(KIND, head_key(self.evidence.me), head.wire, LIFETIME_S)
        except ParallelError as error:
            _log.info("publishing the head of the receipts: %s", error.text)

    # ---- opinions ----------------------------------------------------------------------------------------------------------
    def opinion(self, key: bytes) -> Opinion:
        """Of one company."""
        return trust.opinion(self.evidence, key, self.unix_time())

    def score(self, company: str) -> float | None:
        """For the ranking of offers; None for one without a contract with us."""
        key = self._keys.get(company)
        if key is None:
            return None
        found = self.opinion(key)
        return found.score.value if found.score.contracts or found.is_forked else None

    def asker(self, key: bytes) -> Asker:
        """What lending asks of it."""
        found = self.opinion(key)
        known = found.score.contracts or found.is_forked
        return Asker(
            company=company_id_text(key), score=found.score.value if known else None, hops=found.hops, credit_left_core_ms=found.limit.left
        )

    def favours(self, companies: Iterable[bytes]) -> Favours:
        """What is owed to each of them: receipts, and the settled epochs of contracts that run."""
        found, running = Favours(), self._running()
        for company in set(companies):
            owed.enter(found, company, owed.steps_of(self.evidence, company, running.get(company, ()), self.yardsticks))
        return found

    def _running(self) -> dict[bytes, list[owed.Step]]:
        return running_steps(machine.a for machine in self.driver.book.contracts.values())

    def ranking(self) -> list[cv.ReputationView]:
        """Everybody that a receipt names, the one to ask first before all others."""
        ranked = trust.ranking(self.evidence, self.unix_time())
        favours = self.favours(found.company for found in ranked)
        return [self._view(found, favours.owed(found.company)) for found in ranked]

    async def explain(self, company: str, *, ask: bool) -> cv.ReputationExplained:
        """One, with every input of the formula."""
        contact = await self.find(company)
        if ask:
            await self.ask_chain(contact.key)
        inputs = trust.explain(self.evidence, contact.key, self.unix_time())
        steps = owed.steps_of(self.evidence, contact.key, self._running().get(contact.key, ()), self.yardsticks)
        inputs["favours"] = owed.explained(contact.key, steps)
        view = self._view(self.opinion(contact.key), inputs["favours"]["owed_core_ms"])
        return cv.ReputationExplained(view=view, inputs=inputs)

    def _view(self, found: Opinion, favour: float) -> cv.ReputationView:
        limit, score = found.limit, found.score
        passed = sum(x.checks_passed for x in self.evidence.own(found.company) if x.lender == found.company)
        near = {1: "it computed for us", 2: "it computed for a company that computed for us", 3: "nobody we know had work of it"}
        why = [
            f"{score.contracts} contracts with us, {score.completed} without a cause that counts: score {score.value:.3f}",
            f"distance {found.hops}: {near.get(found.hops, 'unknown')}",
            f"may have {limit.left / 3.6e6:.2f} core-hours more: a floor of {limit.floor / 3.6e6:.2f}, half of what it computed for us "
            f"({limit.computed_for_me / 3.6e6:.2f}) and of what others vouch for ({limit.cut / 3.6e6:.2f}), "
            f"less what it owes ({limit.owed / 3.6e6:.2f})",
        ]
        why.append(
            f"favours owed to it {favour / 3.6e6:.3f} core-hours: it comes in that order when slots do not do for everybody"
            if favour
            else "no favours owed to it: when slots do not do for everybody it comes after those that are owed, in a newcomer's tenth"
        )
        if found.is_forked:
            why.insert(0, "it signed two contradicting things, which is proved: nothing is lent to it and nothing of it is believed")
        return cv.ReputationView(
            company=company_id_text(found.company), name=self.name_of(found.company), score=score.value, good=score.good, bad=score.bad,
            contracts=score.contracts, completed=score.completed, hops=found.hops, credit_core_ms=limit.credit, left_core_ms=limit.left,
            computed_for_us_core_ms=limit.computed_for_me, given_core_ms=limit.given, checks_passed=passed, is_forked=found.is_forked,
            chain=self.chains.get(found.company, "not asked for yet"), why=why,
            favours_core_ms=favour,
            over={company_id_text(p.over): p.flow for p in sorted(limit.paths, key=lambda p: (-p.flow, p.over))[:MAX_OVER]},
        )  # fmt: skip

    # ---- chains of others -----------------------------------------------------------------------------------------------------
    async def ask_chain(self, key: bytes) -> str:
        """Ask a company for its halves and compare with its head in the DHT. Returns what was found, in words."""
        text = "it could not be reached"
        with trio.move_on_after(ASK_S):
            try:
                halves = await self._fetch(key)
                head = await self._head_of(key)
                fault = chain_fault(halves, head)
                text = fault.text if fault is not None else f"{len(halves)} halves, whole" + ("" if head else "; no head in the network")
                for half in halves if fault is None else ():
                    self.driver.keep_half(half)
                await self.driver.wait_durable()
            except ParallelError as error:
                text = error.text
        self.chains[key] = text
        return text

    async def _fetch(self, key: bytes) -> list[Signed]:
        channel = await self.open_channel(key)
        halves: list[Signed] = []
        try:
            while len(halves) < MAX_ASKED:
                await channel.send(pm.AskHalves(len(halves) + 1))
                message, frame = await channel.receive()
                if not isinstance(message, pm.HalvesAre):
                    raise MalformedMessage(f"expected HalvesAre, got {type(message).__name__}")
                page = halves_untrusted(self.driver.book.signer, key, frame)
                halves += page
                if not page or len(halves) >= message.total:
                    break
        finally:
            await channel.aclose()
        return halves

    async def _head_of(self, key: bytes) -> Signed | None:
        newest: Signed | None = None
        for record in await self.directory.get(head_key(key), 4, ASK_S / 2):
            try:
                found = head_untrusted(self.driver.book.signer, key, record.payload)
            except MalformedMessage:
                continue  # anybody may store what they like under a key
            if newest is None or found.message.chain_sequence > newest.message.chain_sequence:  # type: ignore[attr-defined]
                newest = found
        return newest

    async def answer(self, channel: Channel, asked: pm.AskHalves) -> None:
        """Show the own chain to whoever asks: it is there to be seen."""
        chain = self.driver.book.chain.halves
        page = chain[asked.first - 1 : asked.first - 1 + MAX_SHOWN]
        items = [msgpack.packb([half.body, half.signature], use_bin_type=True) for half in page]
        await channel.send(pm.HalvesAre(len(chain)), np.array([len(i) for i in items], dtype="<u4"), items)


def head_key(company: bytes) -> bytes:
    """Where the head of a company's chain lies in the DHT."""
    return blake2b(company, digest_size=NODE_ID_BYTES, person=b"dht-receipts").digest()


def halves_untrusted(reader: Reader, author: bytes, frame: Frame) -> list[Signed]:
    """The halves that a company showed. Raises only `MalformedMessage`."""
    if len(frame.sizes) > MAX_SHOWN:
        raise MalformedMessage(f"at most {MAX_SHOWN} halves were to be shown, got {len(frame.sizes)}")
    found, at = [], 0
    for size in frame.sizes:
        pair = array_untrusted(bytes(frame.body[at : at + int(size)]), 2048)
        at += int(size)
        if len(pair) != 2 or type(pair[0]) is not bytes or type(pair[1]) is not bytes:
            raise MalformedMessage("a half travels as [body, signature]")
        found.append(read_half_untrusted(reader, author, pair[0], pair[1]))
    return found


def head_untrusted(reader: Reader, author: bytes, payload: bytes) -> Signed:
    """A head record out of the DHT. Raises only `MalformedMessage`."""
    array = array_untrusted(payload, 2048)
    if len(array) != 3 or array[0] != m.Head.code or type(array[1]) is not bytes or type(array[2]) is not bytes:
        raise MalformedMessage("a head is [code, body, signature]")
    return open_signed_untrusted(reader.network_id, author, *array)
