"""Every scenario by name (pure)."""

from __future__ import annotations

from p2p.base.errors import UsageError
from simulator.scenario import Scenario
from simulator.scenario_company import COMPANY
from simulator.scenario_dht import DHT
from simulator.scenario_hotkeys import HOTKEYS
from simulator.scenario_kicks import KICKS
from simulator.scenario_market import FAVOURS, MARKET, VOTES
from simulator.scenario_overlay import OVERLAY
from simulator.scenario_strangers import STRANGERS

SCENARIOS: dict[str, Scenario] = {s.name: s for s in (DHT, COMPANY, MARKET, STRANGERS, VOTES, FAVOURS, KICKS, HOTKEYS, OVERLAY)}


def scenario_called(name: str) -> Scenario:
    """Raises `UsageError` naming those that exist."""
    if name not in SCENARIOS:
        raise UsageError("simulation-parameters", f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
