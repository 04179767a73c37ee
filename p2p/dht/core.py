"""One node of the network: datagrams and time in, datagrams and outcomes out (pure).

No clock, socket, file or module ``random``: time is an argument, the generator is handed in (the operating system's for real nodes). The
adapter (`p2p.dht.adapter`), the tests' and the simulator's networks drive this same core. Cheap checks come first: size, whether an answer
was asked for, budgets per address; only then a signature is checked; then budgets per key, the window of time, replays.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

from p2p.base.errors import MalformedMessage
from p2p.base.ids import NODE_ID_BYTES
from p2p.base.keys import Signer, is_signed_by, node_id
from p2p.dht import packets as pk
from p2p.dht.addressing import group_of, is_dialable, limited_as, packed, unpacked
from p2p.dht.clocks import PeerClocks
from p2p.dht.directory import Address
from p2p.dht.limits import Bucket, Buckets, Generations
from p2p.dht.parameters import DEFAULTS, Parameters
from p2p.dht.records import Record, Verify, open_record_untrusted
from p2p.dht.requests import InFlight, Waiter, Waiting
from p2p.dht.routing import Estimate, Table
from p2p.dht.store import RecordStore

LOSS_MEMORY = 64  # answers
LOSSY_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Send:
    """Put this datagram on the wire."""

    data: bytes
    address: Address


@dataclass(frozen=True, slots=True)
class Done:
    """An operation (`p2p.dht.operations`) has ended."""

    operation: int
    outcome: Any


Effect = Send | Done


class DhtCore:
    """Rules of one node. ``unix_offset``: Unix time minus the monotonic clock, set by the driver."""

    def __init__(
        self,
        signer: Signer,
        network_id: bytes,
        rng: Random,
        parameters: Parameters = DEFAULTS,
        *,
        unix_offset: float = 0.0,
        work: bytes = b"",
        verify: Verify = is_signed_by,
        is_read_only: bool = False,
    ) -> None:
        self.p = parameters
        self.signer = signer
        self.network_id = network_id
        self.rng = rng
        self.unix_offset = unix_offset
        self.is_read_only = is_read_only
        self.node_id = node_id(signer.public)
        self.id = int.from_bytes(self.node_id, "big")
        self.table = Table(self.id, parameters)
        self.store = RecordStore(parameters, rng)
        self.out: list[Effect] = []
        self.flying = InFlight(lambda data, address: self.out.append(Send(data, address)))
        self.rtt = Estimate()
        self._sent_again = 0.0  # share of the answers of late that came to a second sending only
        self.drops: Counter[str] = Counter()
        self.sent: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.served: Counter[int] = Counter()
        self.clocks = PeerClocks(rng)
        self.seen_as: dict[bytes, bytes] = {}  # group of the peer → our address as it saw it
        self._work = work
        self._work_bits = network_id[-1] if network_id[-1] <= 32 else 0
        self._verify = verify
        self._sealer = pk.Sealer(signer, network_id, verify)
        self._tokens: dict[Address, tuple[bytes, float]] = {}  # what others gave us
        self._secrets = [rng.randbytes(32), rng.randbytes(32)]
        self._secret_since = 0.0
        self._addresses = Buckets(parameters.address_per_s, parameters.address_burst, parameters.buckets_kept)
        self._identities = Buckets(parameters.identity_per_s, parameters.identity_burst, parameters.buckets_kept)
        self._unproved = Bucket(parameters.unproved_per_s, parameters.unproved_burst, 0.0)
        self._verifications = Bucket(parameters.verifications_per_s, parameters.verifications_per_s, 0.0)
        self._replays = Generations(parameters.replays_kept, float(parameters.window_s))
        self._pinger = Pinger(self)

    def unix(self, now: float) -> int:
        """Unix time at a moment of the monotonic clock."""
        return int(now + self.unix_offset)

    def take_effects(self) -> list[Effect]:
        """What is to be done, in order; each is given once."""
        out, self.out = self.out, []
        return out

    # --- datagrams in

    def on_datagram(self, now: float, data: bytes, address: Address) -> list[Effect]:
        """Whatever came from wherever."""
        if not pk.MIN_PACKET_BYTES <= len(data) <= pk.MAX_PACKET_BYTES:
            self.drops["size"] += 1
        elif data[0] == pk.REPLY:
            self._on_reply(now, data, address)
        elif data[0] == pk.REQUEST:
            self._on_request(now, data, address)
        else:
            self.drops["unknown kind"] += 1
        return self.take_effects()

    def _on_reply(self, now: float, data: bytes, address: Address) -> None:
        waiting = self.flying.get(data[1:21])
        if waiting is None or waiting.address != address:
            self.drops["answer that nobody asked for"] += 1
            return
        sender = int.from_bytes(node_id(pk.public_of(data)), "big")
        if (waiting.id is not None and sender != waiting.id) or sender == self.id:
            self.drops["answer by another key"] += 1
            return
        try:
            reply = self._sealer.open_reply_untrusted(data, waiting.method)
        except MalformedMessage:
            self.drops["malformed answer"] += 1
            return
        skew = reply.unix - self.unix(now)
        self.clocks.answered(skew)
        if abs(skew) > self.p.window_s:
            self.drops["clock"] += 1
            return
        if not self.flying.take(waiting, reply):
            return
        waiting.id = sender
        if reply.part == 0:
            self._sent_again += (waiting.is_sent_again - self._sent_again) / LOSS_MEMORY
        if not waiting.is_sent_again and reply.part == 0:
            took = now - waiting.sent_at
            self.rtt.add(took)
        contact = self.table.answered(sender, address, now)
        if contact is not None and not waiting.is_sent_again and reply.part == 0:
            contact.rtt.add(took)
        self._keep_token(address, reply.token, now)
        if reply.part == 0:
            self.answered[waiting.method] += 1
        waiting.waiter.on_reply(waiting, reply, now)

    def _keep_token(self, address: Address, token: bytes, now: float) -> None:
        self._tokens.pop(address, None)
        self._tokens[address] = (token, now)
        if len(self._tokens) > self.p.buckets_kept:
            del self._tokens[next(iter(self._tokens))]

    def _on_request(self, now: float, data: bytes, address: Address) -> None:
        try:
            who = limited_as(address, self.p.allow_private)
        except ValueError:
            self.drops["address"] += 1
            return
        is_proved = self.is_token_of(address, pk.token_of(data), now)
        if not self._addresses.take(who, now):
            self.drops["too many from one address"] += 1
            return
        if not is_proved and not self._unproved.take(now):
            self.drops["too many from unproved addresses"] += 1
            return
        public = pk.public_of(data)
        if public == self.signer.public:
            self.drops["our own"] += 1
            return
        try:
            request = self._sealer.open_request_untrusted(data)
        except MalformedMessage:
            self.drops["malformed request"] += 1
            return
        if not self._may_be_answered(request, public, address, now):
            return
        self.served[request.method] += 1
        room = self.p.max_packet_bytes if is_proved else self.p.amplification * len(data)
        sender = int.from_bytes(request.sender, "big")
        if request.flags & pk.READ_ONLY:
            self.table.forget(sender, address, now)  # it came in before it knew that nobody reaches it
        else:
            self.table.is_reached(sender, address)
        is_of_use = not request.flags & pk.READ_ONLY and (self.is_read_only or self.table.wants(sender, address))
        if is_of_use and len(self.flying) < self.p.in_flight:  # to see whether it is there; from one that is not, to say so
            ping_bytes = 2 * (pk.OVERHEAD_BYTES + NODE_ID_BYTES)  # it may be sent again
            if (is_proved or room - ping_bytes >= pk.OVERHEAD_BYTES) and self._verifications.take(now):
                room -= 0 if is_proved else ping_bytes
                self.ask(now, sender, address, pk.PING, [], self._pinger, size=0)
        self._serve(request, address, min(room, self.p.max_packet_bytes), is_proved, now)

    def _may_be_answered(self, request: pk.Request, public: bytes, address: Address, now: float) -> bool:
        if not self._identities.take(public, now):
            self.drops["too many from one key"] += 1
        elif abs(request.unix - self.unix(now)) > self.p.window_s:
            self.drops["clock"] += 1
            self.clocks.refused(public, request.unix - self.unix(now), now)
        elif request.to and request.to != self.node_id:
            self.drops["meant for another"] += 1
        elif self._work_bits and not pk.shows_work(public, request.work, self._work_bits):
            self.drops["no work"] += 1
        elif self._replays.is_replay(request.message_id, address, now):
            self.drops["replay"] += 1
        else:
            return True
        return False

    # --- serving others

    def _serve(self, request: pk.Request, address: Address, room: int, is_proved: bool, now: float) -> None:
        sender = int.from_bytes(request.sender, "big")
        if request.method == pk.PING:
            self._reply(request, address, [[packed(address)]], now)
        elif request.method == pk.STORE:
            self._reply(request, address, [[self._keep(request.arguments[0], address, is_proved, now)]], now)
        elif request.method == pk.FIND_NODE:
            result = self._contacts_near(request.arguments[0], sender, room - pk.OVERHEAD_BYTES)
            self._reply(request, address, [result], now)
        else:
            self._reply(request, address, self._value_parts(request, sender, room, is_proved, now), now)

    def _reply(self, request: pk.Request, address: Address, results: list[list[Any]], now: float) -> None:
        token = self._token_for(address, 0)
        for part, result in enumerate(results):
            data = self._sealer.reply(request.message_id, token, unix=self.unix(now), part=part, parts=len(results), result=result)
            self.out.append(Send(data, address))

    def _contacts_near(self, target: bytes, asker: int, room: int) -> list[bytes]:
        """The k nearest that fit into so many bytes."""
        v4: list[bytes] = []
        v6: list[bytes] = []
        for contact in self.table.nearest(int.from_bytes(target, "big"), self.p.k, but=asker):
            room -= len(contact.row)
            if room < 0:
                break
            (v4 if len(contact.packed) == 6 else v6).append(contact.row)
        return [b"".join(v4), b"".join(v6)]

    def _value_parts(self, request: pk.Request, asker: int, room: int, is_proved: bool, now: float) -> list[list[Any]]:
        """Part 0: contacts and what fits beside them; further parts: records only, where the address is proved."""
        key, target, after, pages = request.arguments
        records, total = self.store.read(key, after, self.unix(now))
        space = room - pk.OVERHEAD_BYTES - 16
        reserved = min(len(records[0].raw) + 3, space // 2) if records and pages <= 1 else 0
        contacts = [b"", b""] if pages > 1 else self._contacts_near(target, asker, space - reserved)
        results: list[list[Any]] = [[*contacts, [], total]]
        left = space - sum(map(len, contacts))
        for record in records:
            size = len(record.raw) + 3
            if size > left:
                if not is_proved or len(results) >= max(1, pages):
                    break
                results.append([b"", b"", [], total])
                left = self.p.max_packet_bytes - pk.OVERHEAD_BYTES - 16
            results[-1][2].append(record.raw)
            left -= size
        return results

    def _keep(self, raw: bytes, address: Address, is_proved: bool, now: float) -> int:
        if not is_proved:
            return pk.NO_TOKEN
        record = self.open_record(raw)
        if record is None:
            return pk.REFUSED
        return self.store.put(record, group_of(address, self.p.allow_private), self.unix(now))

    def open_record(self, raw: bytes) -> Record | None:
        """A stranger's record, or None where it does not hold."""
        try:
            return open_record_untrusted(raw, self.network_id, verify=self._verify)
        except MalformedMessage:
            self.drops["malformed record"] += 1
            return None

    # --- tokens

    def _token_for(self, address: Address, generation: int) -> bytes:
        return hashlib.blake2b(packed(address), digest_size=pk.TOKEN_BYTES, key=self._secrets[generation]).digest()

    def is_token_of(self, address: Address, token: bytes, now: float) -> bool:
        """Whether this node gave this token to this address within the last two periods."""
        if now - self._secret_since >= self.p.token_period_s:
            is_long_ago = now - self._secret_since >= 2 * self.p.token_period_s
            self._secrets = [self.rng.randbytes(32), self.rng.randbytes(32) if is_long_ago else self._secrets[0]]
            self._secret_since = now
        return token != pk.NO_TOKEN_BYTES and token in (self._token_for(address, 0), self._token_for(address, 1))

    def token_from(self, address: Address, now: float) -> bytes:
        """The token that this address gave us, or zeros."""
        token, since = self._tokens.get(address, (pk.NO_TOKEN_BYTES, now))
        return token if now - since < self.p.token_period_s else pk.NO_TOKEN_BYTES

    # --- asking others

    def ask(
        self, now: float, id_: int | None, address: Address, method: int, args: list[Any], waiter: Waiter, size: int | None = None
    ) -> Waiting | None:
        """Send a request; None where too many are in flight. ``size``: at least so many bytes, else as the token asks for."""
        if len(self.flying) >= self.p.in_flight:
            return None
        token = self.token_from(address, now)
        message_id = self.rng.randbytes(pk.MESSAGE_ID_BYTES)
        to = b"" if id_ is None else id_.to_bytes(NODE_ID_BYTES, "big")
        flags = pk.READ_ONLY if self.is_read_only else 0
        if size is None:
            size = self.p.padded_bytes if token == pk.NO_TOKEN_BYTES and method in (pk.FIND_NODE, pk.FIND_VALUE) else 0
        data = self._sealer.request(
            message_id, token, unix=self.unix(now), to=to, flags=flags, work=self._work, method=method, arguments=args, size=size
        )
        waiting = Waiting(message_id, id_, address, method, args, data, waiter, now, self.rto_s(id_))
        self.sent[method] += 1
        self.flying.add(waiting)
        return waiting

    def rto_s(self, id_: int | None) -> float:
        """How long to wait for a contact, or for anybody where nothing is known of it."""
        contact = None if id_ is None else self.table.get(id_)
        known = contact.rtt.rto_s() if contact is not None else None
        wait = known if known is not None else self.rtt.rto_s()
        return self.p.first_rto_s if wait is None else min(max(wait, self.p.min_rto_s), self.p.max_rto_s)

    @property
    def is_lossy(self) -> bool:
        """Whether datagrams get lost on the ways that are used: then silence twice does not mean that a node is dead."""
        return self._sent_again > LOSSY_SHARE

    def address_of(self, at: bytes) -> Address | None:
        """An address that a peer told us of, or None where it may not be dialled."""
        address = unpacked(at)
        return address if is_dialable(address, allow_private=self.p.allow_private) else None

    def note_seen_as(self, peer: Address, ours: bytes) -> None:
        """A peer said from which address our packets come; one word per address group, the last of 32."""
        group = group_of(peer, self.p.allow_private)
        self.seen_as.pop(group, None)
        self.seen_as[group] = ours
        if len(self.seen_as) > 32:
            del self.seen_as[next(iter(self.seen_as))]

    # --- time

    def ping(self, now: float, id_: int | None, address: Address, waiter: Waiter | None = None) -> None:
        """See whether a node answers."""
        self.ask(now, id_, address, pk.PING, [], waiter or self._pinger)

    def tick(self, now: float) -> list[Effect]:
        """What time alone decides: late requests, contacts to try again."""
        self.flying.tick(now)
        return self.take_effects()

    def ping_due(self, now: float, most: int = 16) -> None:
        """Try contacts again that failed, and those not heard for long."""
        for contact in self.table.due(now, self.p.refresh_s)[:most]:
            contact.retry_at = now + self.p.back_off_s * 2**contact.failures
            self.ping(now, contact.id, contact.address)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return self.flying.next_deadline()

    def validate(self) -> None:
        """Check every invariant."""
        self.table.validate()
        self.store.validate()


class Pinger:
    """Pings whose answer only the table cares about."""

    def __init__(self, core: DhtCore) -> None:
        self._core = core

    def on_reply(self, request: Waiting, reply: pk.Reply, now: float) -> None:
        """It answered: the table has been told; remember how it sees us."""
        self._core.note_seen_as(request.address, reply.result[0])

    def on_slow(self, request: Waiting, now: float) -> None:
        """Nothing."""

    def on_failure(self, request: Waiting, now: float) -> None:
        """Tell the table."""
        if request.id is not None:
            self._core.table.failed(request.id, now)
