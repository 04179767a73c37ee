"""Contracts and reputation as a chief sees them (I/O through `Transport`)."""

from __future__ import annotations

from typing import Any

from company.client.transport import Transport, path_of

SLOW_S = 60.0  # calls that ask other companies


class ContractsClient:
    """What `company.client.Client.contracts` gives; plain maps as in `company.contract_views`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, section: str | None = None) -> dict[str, Any]:
        """All, or those of drafts, inbox, sent, active, settled or ended."""
        query = f"?section={section}" if section is not None else ""
        return dict(self._transport.json("GET", f"/api/v1/contracts{query}"))

    def show(self, ref: str) -> dict[str, Any]:
        """One, whole."""
        return dict(self._transport.json("GET", path_of("contracts", ref)))

    def request(self, company: str, **terms: Any) -> dict[str, Any]:
        """Offer; the terms are those of `company.contract_views.ContractRequest`."""
        body = {"company": company, **{k: v for k, v in terms.items() if v is not None}}
        return dict(self._transport.json("POST", "/api/v1/contracts", body, timeout_s=SLOW_S))

    def act(self, ref: str, action: str, **fields: Any) -> dict[str, Any]:
        """send, accept, reject, counter, revoke, renew, later, block or unblock; the last two take a company's id, too."""
        body = {k: v for k, v in fields.items() if v is not None}
        return dict(self._transport.json("POST", path_of("contracts", ref, action), body, timeout_s=SLOW_S))

    def discard(self, ref: str) -> None:
        """Forget a draft."""
        self._transport.request("DELETE", path_of("contracts", ref))

    def blocked(self) -> dict[str, Any]:
        """Companies that are dealt with no more."""
        return dict(self._transport.json("GET", "/api/v1/blocked"))

    def receipts(self, ref: str) -> dict[str, Any]:
        """Halves of the receipt."""
        return dict(self._transport.json("GET", path_of("contracts", ref, "receipts")))

    def export(self, ref: str) -> bytes:
        """The file that `company contract verify` reads."""
        return self._transport.request("GET", path_of("contracts", ref, "export")).body

    def borrow_policy(self, **changes: Any) -> dict[str, Any]:
        """What is borrowed by itself; with ``changes`` (fields of `company.contract_views.BorrowPolicyRequest`) changed first."""
        body = {k: v for k, v in changes.items() if v is not None}
        if body:
            return dict(self._transport.json("PUT", "/api/v1/borrow/policy", body))
        return dict(self._transport.json("GET", "/api/v1/borrow/policy"))

    def reputation(self) -> dict[str, Any]:
        """Everybody that a receipt names."""
        return dict(self._transport.json("GET", "/api/v1/reputation"))

    def explain(self, company: str, *, ask: bool = False) -> dict[str, Any]:
        """One company's score with its inputs; ``ask``: after asking it for its chain of receipts."""
        if ask:
            return dict(self._transport.json("POST", path_of("reputation", company, "ask"), {}, timeout_s=SLOW_S))
        return dict(self._transport.json("GET", path_of("reputation", company)))
