"""Who sends which message between two companies' chiefs, for docs/protocol.md (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from company import peer_messages as pm
from p2p.base.schema import Message

PEER, KEEP, RELAY = "chief → chief, peer", "chief → relay, relay-keep", "to a relay, relay"
ROUTES: Mapping[type[Message], tuple[str, str]] = {
    pm.Ask: (PEER, "`Told`; refused: `not-lending`, `too-many-questions`"),
    pm.Told: (PEER, "–"),
    pm.DialBack: (PEER, "`DialedBack`"),
    pm.DialedBack: (PEER, "–"),
    pm.FindOffers: (PEER, "`OffersAre`"),
    pm.OffersAre: (PEER, "–"),
    pm.ContractWire: ("chief ↔ chief, contract", "`ContractWire` with the word that it is on disk; or `ContractTurned`"),
    pm.ContractTurned: ("chief ↔ chief, contract", "–"),
    pm.AskHalves: (PEER, "`HalvesAre`"),
    pm.HalvesAre: (PEER, "–"),
    pm.RelayKeep: (KEEP, "`RelayKept`; refused: `relay-off`, `relay-full`"),
    pm.RelayKept: ("relay → chief, relay-keep", "`Ping` every 30 s"),
    pm.RelayCall: ("relay → chief, relay-keep", "the chief comes back with `RelayTake`"),
    pm.RelayTo: (RELAY, "`RelayReady`; refused: `relay-unknown`, `relay-full`, `relay-no-answer`"),
    pm.RelayTake: (RELAY, "`RelayReady`; refused: `relay-unknown`"),
    pm.RelayReady: ("relay → both, relay", "the stream is carried from here on"),
}
