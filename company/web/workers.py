"""The page Workers: who works here, and the lines that add one more (I/O: through the chief)."""

from __future__ import annotations

from urllib.parse import quote

from company import views
from company.chief.api.bodies import convert_untrusted
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import BadRequest
from company.chief.api.workers import ACTIONS
from company.web.pages import Pages, read_form, redirect
from p2p.net.http_types import Response


class WorkerPages:
    """What a browser sees of workers."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def index(self, call: Call) -> Response:
        """All workers."""
        return self._pages.show(call, "workers.html", workers=call.chief.list_workers(), actions=_actions)

    async def change(self, call: Call) -> Response:
        """Do what a button says."""
        await read_form(call)
        action = call.arg("action")
        if action not in (*ACTIONS, "rm"):
            raise BadRequest("action-unknown", f"No action {action[:40]!r}.")
        await call.chief.change_worker(call.arg("id"), action, by=call.by)
        return redirect(f"/workers#{quote(call.arg('id'), safe='')}")

    async def add(self, call: Call) -> Response:
        """Make a join token; it is in this answer and nowhere else."""
        fields = await read_form(call)
        wanted = convert_untrusted(
            {"role": "worker"} | {k: fields[k] for k in ("label", "uses", "ttl_s") if fields.get(k)}, views.TokenRequest, strict=False
        )
        made = await call.chief.create_token(wanted, call.by)
        return self._pages.show(call, "worker_token.html", 201, made=made)

    def endpoints(self) -> list[Endpoint]:
        """The routes."""
        return [
            Endpoint(method="GET", pattern="/workers", handler=self.index, need="viewer", summary="Workers", is_hidden=True),
            Endpoint(method="POST", pattern="/workers/add", handler=self.add, need="operator", summary="Add", is_hidden=True, csrf="later"),
            Endpoint(
                method="POST",
                pattern="/workers/{id}/{action}",
                handler=self.change,
                need="operator",
                summary="Change",
                is_hidden=True,
                csrf="later",
            ),
        ]


def _actions(worker: views.WorkerView) -> tuple[str, ...]:
    """What can be done to a worker in its state."""
    if worker.state in ("paused", "draining"):
        return ("resume",)
    if worker.state == "quarantined":
        return ("release",)
    return ("rm",) if worker.state == "offline" else ("pause", "drain", "quarantine")
