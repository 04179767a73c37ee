"""The vectorised network: tables that are never stored, hop counts, sliding windows, disjoint paths."""

from __future__ import annotations

import numpy as np
import pytest

from p2p.base.errors import UsageError
from simulator.agreement import both_engines
from simulator.chance import Words
from simulator.dht_hops import closest_distinct, hop_counts, pairs
from simulator.dht_paths import disjoint_lookups, predicted_success
from simulator.dht_search import Search, closest, neighbours, search
from simulator.dht_tables import LOW, NONE, Tables, shared_bits


def brute_bucket(tables: Tables, node: int, target: int) -> set[int]:
    """Every node that shares exactly as many bits with ``node`` as ``target`` does."""
    shared = 64 - (node ^ target).bit_length()
    return {int(i) for i in tables.ids if 64 - (int(i) ^ node).bit_length() == shared}


def test_buckets_hold_the_nodes_that_share_exactly_so_many_bits() -> None:
    tables = Tables(400, 8, 1)
    for node in tables.ids[::37]:
        for target in tables.ids[::41]:
            if node == target:
                continue
            distance, goal = np.array([node ^ target]), np.array([target])
            found = {int(d ^ target) for d in tables.contacts(distance, goal)[:, 0] if d != NONE}
            whole = brute_bucket(tables, int(node), int(target))
            assert found <= whole
            assert len(found) == min(8, len(whole))  # k different ones, or all


def test_a_node_has_the_same_bucket_for_every_target_in_it() -> None:
    tables = Tables(5000, 8, 2)
    node = tables.ids[17]
    half = np.uint64(1) << np.uint64(63)
    others = tables.ids[(tables.ids & half) != (node & half)]
    seen = {frozenset(int(d ^ t) for d in tables.contacts(np.array([node ^ t]), np.array([t]))[:, 0]) for t in others[::200]}
    assert len(seen) == 1 and len(next(iter(seen))) == 8


def test_bucket_members_are_drawn_evenly() -> None:
    tables = Tables(256, 4, 3)
    half = np.uint64(1) << np.uint64(63)
    low, high = tables.ids[(tables.ids & half) == 0], tables.ids[(tables.ids & half) != 0]
    target = np.full(len(low), high[0])
    chosen = tables.contacts(low ^ target, target) ^ target
    counts = np.array([(chosen == i).sum() for i in high])
    expected = 4 * len(low) / len(high)
    assert abs(counts.mean() - expected) < 1e-9
    assert counts.std() < 2 * np.sqrt(expected)


def test_shared_bits_counts_leading_zeros() -> None:
    values = [1 << 63, (1 << 63) - 1, 1 << 40, (1 << 40) | 1, 1 << 12, 0]
    assert shared_bits(np.array(values, dtype=np.uint64)).tolist() == [0, 1, 23, 23, 51, 64]


def test_a_network_of_one_or_of_too_many_is_refused() -> None:
    for nodes, k in ((1, 8), (1 << 25, 8), (10, 0)):
        with pytest.raises(UsageError):
            Tables(nodes, k, 1)


def test_closest_distinct_drops_duplicates() -> None:
    rows = np.array([[5], [3], [5], [9], [3]], dtype=np.uint64)
    assert closest_distinct(rows, 4)[:, 0].tolist() == [3, 5, 9, int(NONE)]


@pytest.mark.parametrize(
    ("n", "k", "alpha", "beta", "mean"),
    [(1_000, 8, 4, 1, 2.237), (10_000, 8, 4, 1, 2.875), (10_000, 20, 4, 1, 2.403), (1_000, 20, 3, 2, 1.895)],
)
def test_hop_counts_are_those_of_roos_salah_strufe(n: int, k: int, alpha: int, beta: int, mean: float) -> None:
    ours = [hop_counts(Tables(n, k, seed), alpha=alpha, beta=beta, lookups=8000, seed=seed)[0].mean() for seed in range(1, 6)]
    assert abs(float(np.mean(ours)) / mean - 1) < 0.005


def test_results_do_not_depend_on_the_size_of_a_batch() -> None:
    tables = Tables(3000, 8, 5)
    hops = [hop_counts(tables, alpha=3, beta=2, lookups=900, seed=4, batch=b)[0].tolist() for b in (90, 300, 5000)]
    assert hops[0] == hops[1] == hops[2]
    how = Search(alpha=3, resiliency=3, dead=0.2, loss=0.1)
    found = [search(tables, how, lookups=300, seed=4, batch=b) for b in (77, 4096)]
    for name in ("is_success", "hops", "messages", "latency_s", "recall"):
        assert all((getattr(f, name) == getattr(found[0], name)).all() for f in found), name
    paths = [disjoint_lookups(tables, paths=3, adversaries=0.2, lookups=300, seed=4, batch=b).lengths.tolist() for b in (67, 300)]
    assert paths[0] == paths[1]


def sorted_distances(tables: Tables, target: np.uint64, count: int) -> list[int]:
    return np.sort(tables.ids ^ target)[:count].tolist()


def test_closest_nodes_are_those_of_a_full_scan() -> None:
    tables = Tables(700, 20, 1)
    targets: Words = pairs(tables, 60, 9)[1] ^ (np.uint64(0xABCDEF) << np.uint64(8))
    for target, found in zip(targets, closest(tables, targets, 20), strict=True):
        assert found.tolist() == sorted_distances(tables, target, 20)


def test_neighbours_near_the_target_are_the_closest_and_far_ones_come_from_the_bucket() -> None:
    tables = Tables(2000, 8, 1)
    node, target = tables.ids[3], tables.ids[1500]
    answer = neighbours(tables, np.array([node ^ target]), np.array([target]), 8)[0]
    assert sorted(answer.tolist()) == answer.tolist()
    assert {int(d ^ target) for d in answer} <= brute_bucket(tables, int(node), int(target))
    near = np.sort(tables.ids ^ target)[1]
    assert neighbours(tables, np.array([near]), np.array([target]), 8)[0].tolist() == sorted_distances(tables, target, 8)


def test_without_faults_a_look_up_for_a_key_finds_the_closest() -> None:
    found = search(Tables(2000, 20, 1), Search(alpha=3, resiliency=3), lookups=500, seed=1)
    assert found.is_success.all()
    assert found.recall.mean() > 0.999


def test_dead_contacts_cost_time_messages_and_some_recall() -> None:
    tables = Tables(2000, 20, 1)
    calm = search(tables, Search(alpha=3, resiliency=20), lookups=400, seed=1)
    dead = search(tables, Search(alpha=3, resiliency=20, dead=0.3), lookups=400, seed=1)
    assert dead.latency_s.mean() > 1.5 * calm.latency_s.mean()
    assert dead.messages.mean() > 1.1 * calm.messages.mean()
    assert dead.recall.mean() > 0.9  # answers carry k contacts, dead ones among them


def test_disjoint_paths_ask_nobody_twice_and_follow_the_closed_form() -> None:
    tables = Tables(4000, 16, 1)
    calm = disjoint_lookups(tables, paths=4, adversaries=0.0, lookups=3000, seed=2)
    assert calm.is_success.all()
    sims = [disjoint_lookups(Tables(4000, 16, s), paths=4, adversaries=0.3, lookups=1500, seed=s).is_success.mean() for s in range(1, 7)]
    error = np.std(sims, ddof=1) / np.sqrt(len(sims))
    assert abs(np.mean(sims) - predicted_success(calm.lengths, 0.3)) < 4 * error + 0.01


def test_low_bits_of_ids_are_free_for_notes() -> None:
    assert not (Tables(1000, 8, 1).ids & LOW).any()


def test_the_shipped_core_and_the_vectorised_engine_agree_at_300_nodes() -> None:
    """2,000 nodes are a row of docs/validation.md."""
    found = both_engines(300, networks=3, exact_lookups=80, vector_lookups=2000, validate_every=53)
    for r in found:
        assert r.holds, r
        assert abs(r.exact / r.vector - 1) < 0.15, r  # three networks make a wide interval; this is the other bound
