"""The bill of a large overlay: its fits, and its page from made-up measurements."""

from __future__ import annotations

import pytest

from tools import overlay_costs as oc


def test_fits_find_the_exponent_and_the_slope_that_were_put_in() -> None:
    e, error = oc.exponent(oc.NETWORKS, [3 * n**0.5 for n in oc.NETWORKS])
    assert e == pytest.approx(0.5) and error < 1e-6
    assert oc.line(oc.NETWORKS, [5.0, 7.0, 9.0, 11.0]) == pytest.approx((-1.0, 2.0))


def test_a_full_table_has_k_contacts_per_bucket_and_all_of_the_last_ones() -> None:
    assert oc.contacts_at(15) == pytest.approx(15)
    assert oc.contacts_at(1_000_000) == pytest.approx(15 * 20 + 1_000_000 / 2**15, abs=20)


def test_the_page_says_what_was_measured_and_what_is_a_line() -> None:
    def measured(dht: float) -> oc.Measured:
        causes = {"DHT: advertisements": dht / 10, "contracts: metering": 2.0}
        return oc.Measured(dht, 1.0, 7.0, 0.01, 20.0, 5.0, 2000.0, 80.0, 40.0, 864.0, causes)

    runs = {20: measured(200.0), 200: measured(300.0)}
    kept = {"mean": 3.0, "max": 70.0}
    hot = {oc.MILLION: {"bytes_per_s_mean": 50.0, "bytes_per_s_max": 550.0, "findable_share": 1.0, "records_kept": kept}}
    text = oc.page(runs, oc.Units(30.0, 60.0, 300.0, 600.0, 500.0, 400.0), {"hops": [1.0, 2.0, 3.0, 4.0]}, hot)
    line = next(line for line in text.splitlines() if line.startswith("| DHT sent"))
    assert f"{200 + 100 * (6 - 1.30103):,.0f} bytes/s" in line and "line over log n" in line
    assert "| 1,000,000 | 1.0000 | 550 | 70 |" in text
    assert "| reading helpers' receipts | 4.00 bytes/s |" in text
    assert "| contracts: metering | 2 | 2 |" in text
    assert "extrapolations" in text


def test_what_is_sent_is_counted_by_its_cause_and_contracts_end_within_the_measured_time() -> None:
    world = oc.Metered(oc.MarketRules(companies=6, hours=1.0, job_hours=4.0, load=1.0, frame_s=900, epoch_s=120, lease_s=360), 1)
    world.engine.run(until=2700)
    assert set(world.bytes_of) >= set(oc.CAUSES.values())
    assert sum(world.bytes_of.values()) == world.network.sent_bytes
    assert sum(len(company.book.chain.halves) for company in world.companies) > 0
