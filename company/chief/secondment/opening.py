"""Contract path 5/8 - lending and borrowing for as long as a chief has its network of companies (I/O)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from company.chief.network.lending import bandwidth_of
from company.chief.secondment.service import build_secondment
from p2p.base.keys import company_id_text
from p2p.dht.addressing import is_dialable

if TYPE_CHECKING:
    from company.chief.contracts.port import Contracts
    from company.chief.network.service import NetworkService
    from company.chief.service import ChiefService

TRUSTED = 0.5  # a company's score, for --where trusted


async def run_secondment(chief: ChiefService, network: NetworkService, contracts: Contracts | None) -> None:
    """Until cancelled; returns at once where there are no contracts."""
    if contracts is None:
        return
    ground = network.ground
    trust_of = getattr(ground, "trust_of", None)

    def is_trusted(key: bytes) -> bool:
        score = trust_of(company_id_text(key)) if trust_of is not None else None
        return score is not None and score >= TRUSTED

    secondment = build_secondment(
        chief, contracts, network_id=ground.network_id, is_trusted=is_trusted,
        bandwidth=lambda slots: bandwidth_of(network.advertising.policy, slots), busy=lambda: network.advertising.busy,
        silent=lambda: network.advertising.silent,
        may_dial=lambda host, port: is_dialable((host, port), allow_private=ground.allow_private),
    )  # fmt: skip
    network.door.guests = chief.sessions.on_channel  # those that come by a relay
    try:
        await secondment.run()
    finally:
        chief.sessions.secondment = network.door.guests = None
