"""Looks for offers, asks the best of them what is idle now, and ranks the answers (I/O)."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import trio

from company import network_views as nv
from company import peer_messages as pm
from company.chief.network.contact import Contact
from company.chief.network.dialling import PeerDialler
from company.chief.network.finding import Finding
from company.chief.network.ground import Ground
from company.chief.network.peer_door import MAX_OFFERS
from company.chief.network.questions import NONCE_BYTES, Question, open_answer_untrusted, sign_question
from company.views import ReasonView
from p2p.base.clock import Monotonic
from p2p.base.errors import MalformedMessage, ParallelError, UsageError
from p2p.base.frames import Frame
from p2p.dht import solicit as s
from p2p.dht.advertisement import Capability, Listing, listing_of_untrusted, parse_capability
from p2p.dht.records import open_record_untrusted
from p2p.net.channel import RefusedByPeer

FIND_S = 4.0
ASK_S = 3.0
ASKED_MOST = 16
MAX_WANTED = 200
ASKED_FOR_US = 3  # chiefs that look up for one without UDP


@dataclass(slots=True)
class Asking:
    """Searches on behalf of a person or a job."""

    ground: Ground
    dialler: PeerDialler
    finding: Finding

    async def search(self, request: nv.SearchRequest) -> nv.SearchView:
        """Signed, live offers that fit, ranked."""
        began = trio.current_time()
        wanted = capability_of(request)
        listings = await self.find(str(wanted), min(request.wanted, MAX_WANTED))
        fitting = [x for x in listings if fits(x, request)]
        others = [x for x in fitting if x.owner != self.ground.identity.public]
        outcome = await self.ask(others, request, str(wanted)) if request.ask else s.judge(stated(others), self._trust(others), {})
        view = nv.SearchView(
            capability=str(wanted), found=len(listings), asked=min(len(others), ASKED_MOST) if request.ask else 0,
            offers=self._ranked(fitting, outcome, asked=request.ask),
            spreads=[
                nv.SpreadView(quantity=name, count=x.count, mean=x.mean, spread=x.spread, dropped=x.dropped) for name, x in outcome.spreads
            ],
            took_s=round(trio.current_time() - began, 3),
        )  # fmt: skip
        if not [offer for offer in view.offers if not offer.own]:
            view.reason = self._why_none(listings, request)
        return view

    async def find(self, capability: str, wanted: int) -> list[Listing]:
        """By the DHT, from trackers, and where neither has any, by other chiefs; one per company, the newest."""
        found = list(await self.ground.directory.find(capability, wanted, FIND_S))
        for tracker in self.finding.trackers:
            for entry in tracker.entries:
                found += listings_of([offer.raw for offer in entry.offers], capability, self.ground.network_id)
        if not found and not self.ground.directory.status().peers:
            found += await self._find_by_others(capability, wanted)
        newest: dict[bytes, Listing] = {}
        for listing in found:
            if listing.expires <= self.ground.unix_time():
                continue
            a = listing.advertisement
            self.ground.known.heard(Contact(key=listing.owner, endpoints=a.endpoints, relays=a.relays), "offer", trio.current_time())
            if listing.owner not in newest or newest[listing.owner].sequence < listing.sequence:
                newest[listing.owner] = listing
        return [x for x in newest.values() if not x.advertisement.is_tombstone][:wanted]

    async def _find_by_others(self, capability: str, wanted: int) -> list[Listing]:
        """Our UDP is blocked: chiefs with a public address ask the DHT for us; what they say is signed by the lenders."""
        found: list[Listing] = []

        async def ask(contact: Contact) -> None:
            try:
                channel = await self.dialler.open(contact, deadline_s=6.0)
                try:
                    await channel.send(pm.FindOffers(capability, min(wanted, MAX_OFFERS)))
                    message, frame = await channel.receive()
                finally:
                    await channel.aclose()
                if isinstance(message, pm.OffersAre):
                    found.extend(listings_of(items_of(frame), capability, self.ground.network_id))
            except ParallelError:
                return  # one of several

        with trio.move_on_after(12.0):
            async with trio.open_nursery() as nursery:
                for company in [c for c in self.ground.known if c.contact.endpoints][:ASKED_FOR_US]:
                    nursery.start_soon(ask, company.contact)
        return found

    # ---- asking -------------------------------------------------------------------------------------------------------------
    async def ask(self, listings: Sequence[Listing], request: nv.SearchRequest, capability: str) -> s.Outcome:
        """One signed question to the best, in parallel."""
        trust = self._trust(listings)
        candidates = [s.Candidate(key=x.owner, slots=x.advertisement.slots, trust=trust.get(x.owner)) for x in listings]
        contacts = {x.owner: Contact(key=x.owner, endpoints=x.advertisement.endpoints, relays=x.advertisement.relays) for x in listings}
        machine = s.Solicitation(candidates, most=ASKED_MOST, now=Monotonic(trio.current_time()), deadline_s=ASK_S)
        post, events = trio.open_memory_channel[s.Event](s.MAX_CANDIDATES + 1)
        async with trio.open_nursery() as nursery:
            event: s.Event = s.Began()
            while machine.outcome is None:
                for effect in machine.handle(event, Monotonic(trio.current_time())):
                    if isinstance(effect, s.Ask):
                        nursery.start_soon(self._ask_one, contacts[effect.candidate.key], request, capability, post)
                event = s.Tick()
                deadline = machine.next_deadline()
                if deadline is not None:
                    with trio.move_on_at(deadline):
                        event = await events.receive()
            nursery.cancel_scope.cancel()
        return machine.outcome

    async def _ask_one(self, contact: Contact, request: nv.SearchRequest, capability: str, post: trio.MemorySendChannel[s.Event]) -> None:
        try:
            answer = await self.question(contact, request, capability)
            self.ground.known.measured(contact.key, answer.round_trip_s)
            await post.send(s.Answered(answer))
        except RefusedByPeer as error:
            await post.send(s.Failed(contact.key, error.refused.code_word))
        except ParallelError as error:
            await post.send(s.Failed(contact.key, error.code))

    async def question(self, contact: Contact, request: nv.SearchRequest, capability: str) -> s.Answer:
        """Ask one company. Raises `ParallelError`."""
        channel = await self.dialler.open(contact, deadline_s=ASK_S)
        try:
            question = Question(
                asker=self.ground.identity.public, asked=contact.key, nonce=os.urandom(NONCE_BYTES), capability=capability,
                slots=request.slots, memory_mib=request.memory_bytes >> 20, frame_s=0, created=self.ground.unix_time(),
            )  # fmt: skip
            body, signature = sign_question(self.ground.identity, self.ground.network_id, question)
            sent = trio.current_time()
            await channel.send(pm.Ask(body, signature))
            message, _ = await channel.receive()
            took_s = trio.current_time() - sent
            if not isinstance(message, pm.Told):
                raise MalformedMessage(f"expected an answer, got {type(message).__name__}")
            return open_answer_untrusted(
                message.body, message.signature, self.ground.network_id, question_body=body, asked=contact.key, round_trip_s=took_s
            )
        finally:
            await channel.aclose()

    def _trust(self, listings: Sequence[Listing]) -> dict[bytes, float | None]:
        return {x.owner: self.ground.trust_of(x.company) for x in listings}

    def _ranked(self, listings: Sequence[Listing], outcome: s.Outcome, *, asked: bool) -> list[nv.OfferView]:
        place = {r.answer.key: (n, r) for n, r in enumerate(outcome.ranked)}
        refused = dict(outcome.refused)
        views = [self._view(x, place.get(x.owner), refused, asked=asked) for x in listings]
        order = {x.owner: place[x.owner][0] if x.owner in place else len(place) for x in listings}
        views.sort(key=lambda v: (v.own, order[bytes.fromhex(v.key)], -v.slots, v.company))
        return views

    def _view(self, x: Listing, placed: tuple[int, s.Ranked] | None, refused: Mapping[bytes, str], *, asked: bool) -> nv.OfferView:
        a, known = x.advertisement, self.ground.known.get(x.owner)
        answer = placed[1].answer if placed is not None and asked else None
        word = refused.get(x.owner, "") if answer is None else "idle" if answer.idle_slots else "busy"
        return nv.OfferView(
            company=x.company, key=x.owner.hex(), name=known.name if known is not None else "", capability=a.capability, slots=a.slots,
            idle_slots=answer.idle_slots if answer is not None else None, cores=a.cores, memory_bytes=a.memory_mib << 20,
            pythons=list(a.pythons), isolation=parse_capability(a.capability).rung, speed=a.speed, price_milli=a.price_milli,
            max_frame_s=a.max_frame_s, min_trust=a.min_trust_permille / 1000, schedule=a.schedule, trust=self.ground.trust_of(x.company),
            round_trip_s=answer.round_trip_s if answer is not None else known.round_trip_s if known is not None else None,
            score=placed[1].score if placed is not None else 0.0, expires=float(x.expires), own=x.owner == self.ground.identity.public,
            answer=word, outlier=placed[1].outlier if placed is not None else "",
        )  # fmt: skip

    def _why_none(self, listings: Sequence[Listing], request: nv.SearchRequest) -> ReasonView:
        if len(listings) > sum(x.owner == self.ground.identity.public for x in listings):
            return ReasonView(
                code="offers-too-small", text=f"{len(listings)} offers are here, none with {request.slots} slots and that memory.",
                actions=[{"label": "ask for less", "cli": "company borrow search --slots 1"}],
            )  # fmt: skip
        if not self.ground.directory.status().peers and not len(self.ground.known):
            return ReasonView(
                code="no-companies", text="This chief knows no other company yet.",
                actions=[{"label": "say where one is", "cli": "company network bootstrap add HOST:PORT", "href": "/network"}],
            )  # fmt: skip
        return ReasonView(
            code="no-offers", text="No other company lends this now.",
            actions=[{"label": "see all offers", "cli": "company network offers", "href": "/network"}],
        )  # fmt: skip


def capability_of(request: nv.SearchRequest) -> Capability:
    """What is looked for. Raises `UsageError`."""
    if request.slots < 1 or request.memory_bytes < 0 or not 1 <= request.wanted <= MAX_WANTED:
        raise UsageError("bad-search", f"slots is 1 or more, memory 0 or more, wanted 1..{MAX_WANTED}")
    python = request.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    return parse_capability(f"spare/v1/{request.arch or platform.machine().lower()}/py{python}/{request.isolation}")


def fits(listing: Listing, request: nv.SearchRequest) -> bool:
    """Whether an offer is large enough; what is idle is asked later."""
    a = listing.advertisement
    return a.slots >= request.slots and (not request.memory_bytes or a.memory_mib << 20 >= request.memory_bytes)


def stated(listings: Sequence[Listing]) -> list[s.Answer]:
    """What the advertisements themselves say, where nobody is asked."""
    return [
        s.Answer(key=x.owner, idle_slots=x.advertisement.slots, speed=x.advertisement.speed, price_milli=x.advertisement.price_milli)
        for x in listings
    ]


def listings_of(raws: Sequence[bytes], capability: str, network_id: bytes) -> list[Listing]:
    """Those that verify and are for this capability."""
    found = []
    for raw in raws:
        try:
            found.append(listing_of_untrusted(open_record_untrusted(raw, network_id), capability))
        except MalformedMessage:
            continue
    return found


def items_of(frame: Frame) -> list[bytes]:
    """The byte strings of a frame."""
    ends = np.cumsum(frame.sizes, dtype=np.int64)
    return [bytes(frame.body[int(end) - int(size) : int(end)]) for end, size in zip(ends, frame.sizes, strict=True)]
