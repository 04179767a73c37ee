"""What nodes learn of each other's calendars."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any, cast

from company.chief.network.words import state_reason
from p2p.dht.clocks import REFUSED_KEPT, REFUSED_S, PeerClocks
from p2p.dht.core import DhtCore, Send
from p2p.dht.parameters import Parameters
from tests.support.dht_network import NETWORK_ID, UNIX, CheapKey, cheap_verify


def test_a_node_of_another_time_is_not_answered_and_its_difference_is_known() -> None:
    here, there = (
        DhtCore(CheapKey(bytes([n]) * 32), NETWORK_ID, Random(n), Parameters(), unix_offset=UNIX + ahead_s, verify=cheap_verify)
        for n, ahead_s in ((1, 0.0), (2, 7500.0))
    )
    there.ping(0.0, None, ("23.0.0.1", 1), cast(Any, SimpleNamespace()))
    (sent,) = [effect for effect in there.take_effects() if isinstance(effect, Send)]
    assert not [e for e in here.on_datagram(0.0, sent.data, ("23.0.0.2", 1)) if isinstance(e, Send)]
    assert here.drops["clock"] == 1
    assert here.clocks.median(1.0, is_alone=True) == 7500.0
    assert here.clocks.median(1.0, is_alone=False) is None, "as long as others answer, one that is refused tells nothing"
    assert here.clocks.median(REFUSED_S + 1.0, is_alone=True) is None


def test_what_is_kept_of_refused_nodes_is_bounded_and_the_newest() -> None:
    clocks = PeerClocks(Random(1))
    for n in range(10 * REFUSED_KEPT):
        clocks.refused(n.to_bytes(32, "big"), float(n), 0.0)
    assert clocks.median(0.0, is_alone=True) == 10 * REFUSED_KEPT - (REFUSED_KEPT + 1) / 2
    clocks.answered(3.0)
    assert clocks.median(0.0, is_alone=False) == 3.0


def test_a_company_that_nobody_answers_is_told_that_clocks_differ() -> None:
    def reason(skew_s: float | None, peers: tuple[object, ...], state: str) -> Any:
        status = SimpleNamespace(skew_s=skew_s, peers=peers)
        ground = SimpleNamespace(
            directory=SimpleNamespace(status=lambda: status), report=SimpleNamespace(state=state), known=[], allow_private=True
        )
        return state_reason(cast(Any, ground))

    for state in ("public", "offline"):
        found = reason(-7500.0, (), state)
        assert found.code == "clock-differs" and "2 h 5 min behind this machine's" in found.text, found
        assert found.facts == {"skew_s": -7500} and found.actions[0]["cli"] == "timedatectl set-ntp true"
    assert reason(-599.0, (), "offline").code == reason(None, (), "offline").code == "network-offline"
    assert reason(7500.0, (object(),), "public") is None
