"""Every page of a chief, in one list (I/O: through its handlers)."""

from __future__ import annotations

from pathlib import Path

from company.chief.api.auth import Auth
from company.chief.api.gate import Gate
from company.chief.api.routes import make_gate
from company.chief.facade import Chief
from company.web.contracts import ContractPages
from company.web.files import StaticFiles
from company.web.jobs import JobPages
from company.web.login import LoginPages
from company.web.network import NetworkPages
from company.web.pages import Pages
from company.web.reputation import ReputationPages
from company.web.submit import SubmitPages
from company.web.workers import WorkerPages
from p2p.net.http_types import Route


def web_routes(chief: Chief, auth: Auth, *, gate: Gate | None = None, scratch: Path | None = None) -> list[Route]:
    """All pages. Give the ``gate`` of `api_routes` too, so that both count in the same metrics; routes with fixed parts come first."""
    door = gate or make_gate(chief, auth)
    static = StaticFiles()
    pages = Pages(static.address)
    endpoints = [
        pages.guarded(endpoint)
        for part in (
            static,
            LoginPages(pages),
            JobPages(pages),
            SubmitPages(pages, scratch),
            WorkerPages(pages),
            NetworkPages(pages),
            ContractPages(pages),
            ReputationPages(pages),
        )
        for endpoint in part.endpoints()
    ]
    endpoints.sort(key=lambda e: (e.pattern.count("{"), e.pattern))
    return [door.route(endpoint, pages.refuse) for endpoint in endpoints]
