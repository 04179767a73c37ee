"""The bill of a large overlay: its fits, and its page from made-up measurements."""

from __future__ import annotations

import pytest

from simulator.market_exact import MarketRules
from tools import overlay_costs as oc
from tools import overlay_page as page


def test_fits_find_the_exponent_and_the_slope_that_were_put_in() -> None:
    e, error = page.exponent(page.NETWORKS, [3 * n**0.5 for n in page.NETWORKS])
    assert e == pytest.approx(0.5) and error < 1e-6
    assert page.line(page.NETWORKS, [5.0, 7.0, 9.0, 11.0]) == pytest.approx((-1.0, 2.0))


def test_a_full_table_has_k_contacts_per_bucket_and_all_of_the_last_ones() -> None:
    assert page.contacts_at(15) == pytest.approx(15)
    assert page.contacts_at(1_000_000) == pytest.approx(15 * 20 + 1_000_000 / 2**15, abs=20)


def test_the_page_says_what_was_measured_and_what_is_a_line() -> None:
    def measured(dht: float, contracts: float = 7.0) -> page.Measured:
        causes = {"DHT: advertisements": dht / 10, "contracts: metering": 2.0}
        return page.Measured(dht, 1.0, contracts, 0.01, 20.0, 5.0, 2000.0, 80.0, 40.0, 864.0, causes)

    runs = {20: [measured(190.0, 6.9), measured(210.0, 7.1)], 200: [measured(290.0, 13.9), measured(310.0, 14.1)]}
    kept = {"mean": 3.0, "max": 70.0}
    hot = {page.MILLION: {"bytes_per_s_mean": 50.0, "bytes_per_s_max": 550.0, "findable_share": 1.0, "records_kept": kept}}
    text = page.page(runs, page.Units(30.0, 60.0, 300.0, 600.0, 500.0, 400.0), {"hops": [1.0, 2.0, 3.0, 4.0]}, hot)
    line = next(line for line in text.splitlines() if line.startswith("| DHT sent"))
    assert f"{200 + 100 * (6 - 1.30103):,.0f} bytes/s" in line and "line over log n" in line
    assert "| 1,000,000 | 1.0000 | 550 | 70 |" in text
    assert "| reading helpers' receipts | 4.00 bytes/s |" in text
    assert "| contracts: metering | 2 | 2 |" in text
    value, least, most = page.grown(runs, "contract_bytes", page.MILLION)
    assert value == pytest.approx(14 * (1_000_000 / 200) ** (0.30103), rel=0.02) and least < value < most  # twice with ten times as many
    assert f"{value:.0f} ({least:.0f} to {most:.0f})" in text
    assert "| DHT, bytes/s | 200 ± 1.3e+02 | 300 ± 1.3e+02 |" in text
    assert "extrapolations" in text


def test_what_is_sent_is_counted_by_its_cause_and_contracts_end_within_the_measured_time() -> None:
    world = oc.Metered(MarketRules(companies=6, hours=1.0, job_hours=4.0, load=1.0, frame_s=900, epoch_s=120, lease_s=360), 1)
    world.engine.run(until=2700)
    assert set(world.bytes_of) >= set(oc.CAUSES.values())
    assert sum(world.bytes_of.values()) == world.network.sent_bytes
    assert sum(len(company.book.chain.halves) for company in world.companies) > 0
