"""The bounds of the network of companies in virtual time, small; ``python -m tests.support.dht_scenarios`` runs them whole."""

from __future__ import annotations

from random import Random

import pytest

from p2p.dht.crawl import is_crowded, region_probes
from tests.support.dht_network import VirtualNetwork
from tests.support.dht_scenarios import adversaries, churn, crowd, eclipse, lookups, noise, refresh_all, with_dead


@pytest.mark.parametrize(
    ("dead", "loss", "median_s", "recall"), [(0.0, 0.0, 0.6, 0.99), (0.1, 0.0, 1.2, 0.95), (0.3, 0.0, 2.0, 0.95), (0.0, 0.05, 1.0, 0.995)]
)
def test_look_ups_stay_fast_and_exact_among_the_dead_and_the_lost(dead: float, loss: float, median_s: float, recall: float) -> None:
    found = lookups(with_dead(dead, loss), 40, Random(3))
    assert found.median_s <= median_s
    assert found.recall >= recall


@pytest.mark.slow
def test_one_refresh_mends_tables_of_which_a_third_is_dead() -> None:
    network = with_dead(0.3, 0.0, nodes=80)
    refresh_all(network)
    found = lookups(network, 40, Random(3))
    assert found.recall >= 0.99 and found.median_s <= 1.0
    for node in network.nodes:
        node.core.validate()


@pytest.mark.parametrize(("share", "paths", "bound"), [(0.10, 4, 0.99), (0.25, 8, 0.95)])
def test_a_record_is_found_among_nodes_that_know_only_one_another(share: float, paths: int, bound: float) -> None:
    assert adversaries(share, paths, records=15) >= bound


def test_an_offer_is_found_although_twenty_liars_lie_nearest_to_its_key() -> None:
    found = eclipse(nodes=200, readers=8)
    assert found.by_key >= 0.75  # honest nodes of the region keep it too
    assert found.by_find == 1.0


def test_a_hundred_of_a_thousand_offers_are_read_in_sixty_datagrams() -> None:
    outcomes = crowd()
    assert all(outcome.found == 100 for outcome in outcomes)
    assert max(outcome.datagrams for outcome in outcomes) <= 60
    assert all(outcome.most_held <= 64 for outcome in outcomes)


@pytest.mark.slow
def test_live_offers_are_found_under_churn_and_expired_ones_never_shown() -> None:
    found = churn(nodes=24, hours=0.3, advertisers=8)
    assert found.departures > 10
    assert found.found >= 0.99
    assert found.expired_shown == 0


def test_noise_is_dropped_in_bounded_memory_and_honest_service_goes_on() -> None:
    found = noise(20_000)
    assert found.answered == found.asked
    assert found.most_remembered < 50_000
    assert found.growth_bytes < 16 << 20
    assert found.rate >= 0.5


def test_no_datagram_is_larger_than_a_packet_that_is_never_cut() -> None:
    network = VirtualNetwork(1)
    network.add(30)
    for node in network.nodes[1:]:
        node.agent.join(network.now, [network.nodes[0].address])
        node.perform()
    network.run(30.0)
    assert min(len(node.core.table) for node in network.nodes) >= 20  # everybody knows most of 29
    assert network.largest < 1232


def test_a_crowded_key_is_told_from_chance_and_its_probes_lie_in_its_region() -> None:
    rng = Random(1)
    ids = [rng.getrandbits(160) for _ in range(1000)]
    for _ in range(200):
        target = rng.getrandbits(160)
        assert not is_crowded(sorted(i ^ target for i in ids)[:20], 1000, 20)
    near = [(target ^ rng.getrandbits(140)) for _ in range(20)]
    assert is_crowded(sorted(i ^ target for i in [*ids, *near])[:20], 1000, 20)
    for probe in region_probes(target.to_bytes(20, "big"), 1000, 20):
        assert 1000 * (int.from_bytes(probe, "big") ^ target) / 2**160 < 80  # within what holds about 4k nodes
