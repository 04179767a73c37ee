"""What all parts of the chief's network share: who we are, the DHT, companies known, what others see of us (pure: only holds)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from company.chief.network.known import Known
from p2p.base.clock import UnixTime
from p2p.base.keys import Signer
from p2p.dht.addressing import is_private
from p2p.dht.advertisement import Relay
from p2p.dht.directory import Directory
from p2p.dht.reachability import Report
from p2p.net.addresses import split_address
from p2p.reputation.favours import Supply


class Listening(Protocol):
    """Where the chief listens: `company.chief.addresses.Addresses`."""

    http: str
    rpc: str

    def for_tokens(self) -> Sequence[str]:
        """host:port of the RPC port as other machines may dial it."""


@dataclass(slots=True, kw_only=True)
class Ground:
    """One chief's place in the network."""

    identity: Signer
    name: str
    network_id: bytes
    directory: Directory
    addresses: Listening
    allow_private: bool
    known: Known
    unix_time: Callable[[], UnixTime]
    trust_of: Callable[[str], float | None] = lambda company: None
    promised: Callable[[], int] = lambda: 0  # slots under contracts
    supply: Callable[[], Supply] = Supply  # the share of what may be lent that is offered
    supply_why: Callable[[], str] = lambda: ""
    could_take: Callable[[bytes], int] = lambda company: 0  # lent slots that would go back for a company
    report: Report = field(default_factory=Report)
    relays: tuple[Relay, ...] = ()  # those that we keep a channel to

    def rpc_port(self) -> int:
        """Where our peer RPC listens."""
        return split_address(self.addresses.rpc)[1]

    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Where other chiefs may dial us: as witnesses saw it; in a private network, and on a public address, before that, too."""
        port = self.rpc_port()
        hosts = [split_address(address)[0] for address in self.addresses.for_tokens()]
        hosts = [host for host in hosts if not host.startswith(("127.", "::1"))] or hosts  # loopback is for those on this machine alone
        own = [host for host in hosts if self.allow_private or not is_only_here(host)]
        if self.report.ports.get("rpc", ("unknown", 0))[0] == "closed":
            return ()
        if self.report.is_open("rpc") and self.report.seen_as:
            own.insert(0, split_address(self.report.seen_as)[0])
        return tuple((host, port) for host in list(dict.fromkeys(own))[:4])

    def dht_endpoints(self) -> tuple[tuple[str, int], ...]:
        """The same for UDP."""
        address = self.directory.status().address
        if address is None or self.report.ports.get("udp", ("unknown", 0))[0] == "closed":
            return ()
        return tuple((host, address[1]) for host, _ in self.endpoints())


def is_only_here(host: str) -> bool:
    """Whether an address means something else elsewhere, or is none."""
    try:
        return is_private(host)
    except ValueError:
        return True
