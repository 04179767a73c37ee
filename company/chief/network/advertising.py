"""Says in the DHT what is lent now, and takes it back when it is over (I/O: through the directory and the store)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Never

import trio

from company.chief.network.contacts import KIND, LIFETIME_S, contact_key, contact_payload
from company.chief.network.ground import Ground
from company.chief.network.lending import (
    Facts,
    Policy,
    Standing,
    idle_of,
    is_due,
    is_trusted,
    may_borrow,
    policy_as_json,
    policy_of_json,
    standing,
)
from company.chief.network.questions import Question
from company.chief.store import meta
from company.chief.store.store import Store
from p2p.base.errors import ParallelError, PeerError
from p2p.base.keys import company_id_text
from p2p.dht.advertisement import Advertisement
from p2p.dht.solicit import Answer

POLICY = "network-lending"  # the row of `meta`
LOOK_S = 2.0
CONTACT_EVERY_S = LIFETIME_S / 3
_log = logging.getLogger("company.chief.network")


@dataclass(slots=True)
class Advertising:
    """The policy, and what the network was told of it."""

    ground: Ground
    store: Store
    facts: Callable[[], Facts]
    relays_for_others: bool
    policy: Policy | None = None
    standing: Standing = field(default_factory=lambda: Standing("not-lending", "Nothing is lent."))
    stored_on: int = 0
    busy: dict[str, str] = field(default_factory=dict)  # workers whose owner uses their machine, and how; as `facts` found last
    silent: frozenset[str] = frozenset()  # those that have yet to say it
    _published: dict[str, tuple[Advertisement, float]] = field(default_factory=dict)  # capability -> (what, when)
    _contact: tuple[bytes, float] = (b"", 0.0)
    _wake: trio.Event = field(default_factory=trio.Event)

    async def load(self) -> None:
        """What was lent before a restart is lent on."""
        found = await self.store.read(lambda conn: meta.get(conn, POLICY))
        self.policy = policy_of_json(found) if found else None
        if self.policy is not None:  # offers may be judged by it before `run` has looked for the first time
            self.standing = Standing("lending-no-slots", "This company has only just started: its workers are coming back.")

    async def set_policy(self, policy: Policy | None) -> Standing:
        """Lend, or stop. On disk before anybody is told."""
        await self.store.write(lambda conn: meta.put(conn, POLICY, policy_as_json(policy) if policy is not None else b""))
        self.policy = policy
        await self._look()
        return self.standing

    def preview(self, policy: Policy) -> Standing:
        """What would be offered."""
        return standing(policy, self.facts())

    def wake(self) -> None:
        """Look now: something changed."""
        self._wake.set()

    async def run(self) -> Never:
        """Until cancelled."""
        while True:
            try:
                await self._look()
                await self._say_where()
            except ParallelError as error:
                _log.warning("advertising: %s", error.text)
            self._wake = trio.Event()
            with trio.move_on_after(LOOK_S):
                await self._wake.wait()
        raise AssertionError("unreachable")

    async def _look(self) -> None:
        self.standing = standing(self.policy, self.facts())
        wanted = {a.capability: a for a in self.standing.advertisements}
        for capability in [c for c in self._published if c not in wanted]:
            del self._published[capability]
            await self.ground.directory.withdraw(capability)
        now = trio.current_time()
        for capability, advertisement in wanted.items():
            old, at = self._published.get(capability, (None, 0.0))
            if is_due(advertisement, old, now - at) or not self.stored_on:  # nobody had it, so nobody was there
                self._published[capability] = (advertisement, now)
                self.stored_on = (await self.ground.directory.publish(advertisement)).stored

    async def _say_where(self) -> None:
        """The contact record: whenever it changed, and before it runs out; as soon as there is somebody to keep it."""
        payload = contact_payload(
            self.ground.name, self.ground.endpoints(), self.ground.relays, relays_for_others=self.relays_for_others and self._is_relay()
        )
        said, at = self._contact
        if payload == said and trio.current_time() - at < CONTACT_EVERY_S:
            return
        own = company_id_text(self.ground.identity.public)
        done = await self.ground.directory.put(KIND, contact_key(own), payload, LIFETIME_S)
        if done.stored:
            self._contact = (payload, trio.current_time())

    def _is_relay(self) -> bool:
        """Only who can be dialled can relay."""
        return bool(self.ground.endpoints())

    @property
    def published(self) -> tuple[Advertisement, ...]:
        """What the network was told."""
        return tuple(advertisement for advertisement, _ in self._published.values())

    def answer(self, question: Question) -> Answer:
        """What another company may have now. Raises `PeerError` with the reason why nothing."""
        now = self.standing
        if now.code != "lending" or self.policy is None:
            raise PeerError("not-lending", now.text)
        if not may_borrow(self.policy, company_id_text(question.asker)):
            raise PeerError("not-lending", "Nothing is lent to this company.")
        if not is_trusted(self.policy, self.ground.trust_of(company_id_text(question.asker))):
            raise PeerError("trust-too-low", f"Trust of at least {self.policy.min_trust_permille / 1000:g} is asked for.")
        facts = self.facts()
        fits = any(a.capability == question.capability for a in now.advertisements) and question.memory_mib <= facts.memory_mib
        idle = idle_of(self.policy, facts) + self.ground.could_take(question.asker)
        return Answer(
            key=self.ground.identity.public, idle_slots=min(self.policy.max_slots, idle) if fits else 0, speed=facts.speed,
            price_milli=self.policy.price_milli, queued=0, max_frame_s=self.policy.max_frame_s,
        )  # fmt: skip

    async def withdraw_all(self) -> None:
        """At the end of the chief: others are to look elsewhere."""
        for capability in list(self._published):
            del self._published[capability]
            await self.ground.directory.withdraw(capability)


def minute_of_week(unix_s: float) -> int:
    """In this machine's zone, Monday 0:00 being 0."""
    at = time.localtime(unix_s)
    return at.tm_wday * 1440 + at.tm_hour * 60 + at.tm_min
