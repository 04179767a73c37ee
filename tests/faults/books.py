"""What two companies must say alike of one contract, whatever happened to either (I/O: asks both)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from company.client import Client
from company.errors import CompanyError
from p2p.contracts.export import read_export_untrusted, verify_export

T = TypeVar("T")
OVER = ("rated", "rejected", "withdrawn", "lapsed")
UNBOUND = ("rejected", "withdrawn", "lapsed")  # nothing was agreed: each side says what it did itself where the two crossed on the wire
ALIKE = ("state", "accepted", "claimed", "causes", "receipt", "contract")


def ask(client: Callable[[], Client], question: Callable[[Any], T]) -> T | None:
    """Ask a chief; None where it is dead, or died of the question, or says no."""
    try:
        return question(client())
    except (CompanyError, OSError):
        return None


def contracts_of(client: Callable[[], Client]) -> dict[str, dict[str, Any]] | None:
    """Every contract that a company knows, by id; None where it does not answer."""
    found = ask(client, lambda c: c.contracts.list()["items"])
    return {str(row["id"]): dict(row) for row in found} if found is not None else None


def faults_of(id_: str, borrower: Client, lender: Client) -> list[str]:
    """Where the two books differ about a contract that is over, or where what one of them exports does not verify."""
    ours = borrower.contracts.show(id_)
    theirs: Mapping[str, Any] | None = ask(lambda: lender, lambda c: c.contracts.show(id_))
    if theirs is None:  # an offer that never arrived, or was turned away
        return [f"{id_} is rated at the borrower and unknown to the lender"] if ours["state"] == "rated" else []
    if ours["state"] in UNBOUND and theirs["state"] in UNBOUND:
        return []
    faults = [f"{id_}: {x} is {ours[x]} at the borrower, {theirs[x]} at the lender" for x in ALIKE if ours[x] != theirs[x]]
    if ours["state"] != "rated":
        return faults
    epoch_s = next(int(value) for name, value in ours["text"] if name == "epoch_s")
    lost_ms = ours["claimed"]["core_ms"] - ours["accepted"]["core_ms"]
    if lost_ms > epoch_s * 1000 * ours["slots"]:
        faults.append(f"{id_}: {lost_ms} core-ms were claimed and never accepted: more than one epoch")
    if ours["receipt"] != "both halves":
        faults.append(f"{id_}: {ours['receipt']}")
    halves = []
    for name, client in (("borrower", borrower), ("lender", lender)):
        verdict = verify_export(read_export_untrusted(client.contracts.export(id_)))
        faults += [f"{id_}, exported by the {name}: {fault}" for fault in verdict.faults]
        halves.append([(half["author"], half["hash"]) for half in client.contracts.receipts(id_)["items"]])
    if halves[0] != halves[1]:
        faults.append(f"{id_}: the receipts are not the same: {halves}")
    return faults
