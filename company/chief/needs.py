"""What the owner should look at first: the badges of the start page (pure: only reads)."""

from __future__ import annotations

import shutil

from company import views
from company.chief.contracts.desk_port import ContractsPort
from company.chief.desk import JobDesk
from company.chief.fleet import Fleet
from company.chief.network.port import NetworkPort
from company.paths import Home

LEAST_DISK_BYTES = 1 << 30


def needs_you(fleet: Fleet, desk: JobDesk, home: Home, contracts: ContractsPort, network: NetworkPort) -> list[views.ReasonView]:
    """No workers, failed jobs, offers that wait, slots to be borrowed, a wrong clock, a full disk; one of each kind but the jobs."""
    found: list[views.ReasonView] = []
    if not fleet.list_workers() and not fleet.has_own_worker:
        add = {"label": "add one", "cli": "company token create --role worker", "href": "/workers#add"}
        found.append(views.ReasonView(code="no-workers", text="No worker has joined yet.", actions=[add]))
    waiting = contracts.waiting()
    if waiting:
        text = "An offer waits for your answer." if waiting == 1 else f"{waiting} offers wait for your answer."
        read = {"label": "read", "cli": "company contract list --inbox", "href": "/contracts#inbox"}
        found.append(views.ReasonView(code="offers-wait", text=text, facts={"offers": waiting}, actions=[read]))
    found += contracts.suggestions()[:3]
    reason = network.status().reason
    if reason is not None and reason.code == "clock-differs":
        found.append(reason)
    for view in desk.list_jobs(state="failed", limit=3, offset=0)[0]:
        text = f"{view.name} ({view.id}) failed: {view.reason.text if view.reason else ''}"
        look = {"label": "look", "cli": f"company explain {view.id}", "href": f"/jobs/{view.id}"}
        found.append(views.ReasonView(code="job-failed", text=text, actions=[look]))
    if shutil.disk_usage(home.root).free < LEAST_DISK_BYTES:
        free = {"label": "see what can go", "cli": "company data list"}
        found.append(views.ReasonView(code="disk-low", text="Less than 1 GiB of disk is free.", actions=[free]))
    return found
