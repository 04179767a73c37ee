"""Contract path 6/8 - tell the contracts what was counted, whatever has become of them meanwhile (I/O through the contracts' driver).

A contract may be settled and forgotten between a count and the moment when it is told; that is no fault of anybody and ends nothing.
"""

from __future__ import annotations

import logging
from typing import Any

from company.chief.contracts.port import Contracts
from p2p.base.errors import UsageError
from p2p.contracts.terms import Facts

_log = logging.getLogger("company.chief.secondment")


def tell_facts(contracts: Contracts, contract: bytes, facts: Facts, **more: Any) -> None:
    """Cumulative facts; ``more`` as `Contracts.state` has it."""
    try:
        contracts.state(contract, facts, **more)
    except UsageError as error:
        _log.warning("contract %s: %s is not taken: %s", contract.hex()[:16], tuple(facts), error.text)


def tell_heard(contracts: Contracts, contract: bytes) -> None:
    """The other company's keys were heard of."""
    try:
        contracts.heard(contract)
    except UsageError as error:
        _log.info("contract %s: %s", contract.hex()[:16], error.text)


def tell_drained(contracts: Contracts, contract: bytes) -> None:
    """Nothing of it runs here any more."""
    try:
        contracts.drained(contract)
    except UsageError as error:
        _log.info("contract %s: %s", contract.hex()[:16], error.text)
