"""Every REST route of a chief, in one list (I/O: through its handlers)."""

from __future__ import annotations

from company.chief.api.auth import Auth
from company.chief.api.calls import call_endpoints
from company.chief.api.contracts import contract_endpoints
from company.chief.api.gate import Endpoint, Gate
from company.chief.api.jobs import job_endpoints
from company.chief.api.live import event_endpoints
from company.chief.api.metrics import Metrics
from company.chief.api.network import network_endpoints
from company.chief.api.openapi import openapi_document
from company.chief.api.results import result_endpoints
from company.chief.api.system import system_endpoints
from company.chief.api.tus import tus_endpoints
from company.chief.api.uploads import upload_endpoints
from company.chief.api.workers import worker_endpoints
from company.chief.facade import Chief
from p2p.net.http_types import Route


def make_gate(chief: Chief, auth: Auth) -> Gate:
    """The door that the REST interface and the page share."""
    metrics = Metrics(chief)
    auth.on_failure = metrics.count_refusal
    return Gate(chief, auth, metrics)


def api_routes(chief: Chief, *, auth: Auth, gate: Gate | None = None) -> list[Route]:
    """All REST routes; pages come from `company.web.web_routes`. A server wants those with fixed parts before those with names."""
    door = gate or make_gate(chief, auth)
    endpoints: list[Endpoint] = []
    endpoints += (
        job_endpoints()
        + call_endpoints()
        + result_endpoints()
        + upload_endpoints()
        + tus_endpoints()
        + worker_endpoints()
        + event_endpoints()
    )
    endpoints += network_endpoints() + contract_endpoints()
    endpoints += system_endpoints(door.metrics, lambda: openapi_document(endpoints, chief.company().version))
    endpoints.sort(key=lambda e: (e.pattern.count("{"), e.pattern))
    return [door.route(endpoint) for endpoint in endpoints]
