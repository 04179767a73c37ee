"""A job as every surface shows it: built from its row, and from the machine while it lives (I/O free, but knows the runtime)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

from company import views
from company.chief.facade import Conflict, Invalid
from company.chief.jobrun import JobRun
from company.chief.runtime import JobRuntime
from company.chief.store.jobs import JobRow
from company.foreign_words import foreign_words
from p2p.base.codec import decode_value_untrusted
from p2p.base.errors import MalformedMessage, Reason


def reason_view(reason: Reason | None) -> views.ReasonView | None:
    """A Reason as JSON has it."""
    if reason is None:
        return None
    return views.ReasonView(**reason.as_dict())


def stored_reason(data: bytes | None) -> views.ReasonView | None:
    """A Reason read back from a row."""
    if data is None:
        return None
    return msgspec.json.decode(data, type=views.ReasonView)


def options_of(row: JobRow) -> views.JobSubmit:
    """What the user asked for when submitting."""
    return msgspec.json.decode(row.options, type=views.JobSubmit)


def shown_params(params: bytes) -> dict[str, Any]:
    """Parameters as JSON has them."""
    from company.chief.merger import json_value

    try:
        value = json_value(decode_value_untrusted(params))
    except MalformedMessage:
        return {}
    return value if isinstance(value, dict) else {}


def row_view(row: JobRow, *, names: tuple[str, str], done: int, failed: int) -> views.JobView:
    """A job that is over, or whose live state is not asked for. ``names``: of package and dataset."""
    options = options_of(row)
    total = row.fragments_total
    return views.JobView(
        id=row.id, name=row.name, state=row.state, paused=row.paused, reason=stored_reason(row.reason),  # type: ignore[arg-type]
        package=row.package.hex(), package_name=names[0], dataset=row.dataset.hex(), dataset_name=names[1], owner=row.owner,
        priority=row.priority, params=shown_params(row.params), where=options.where, created=row.created, started=row.started,
        finished=row.finished, first_result=row.first_result,
        fragments=views.CountsView(total=total, at_least=total or done + failed, done=done, failed=failed),
        fraction=1.0 if row.state == "done" else ((done + failed) / total if total else None),
        max_fails=options.max_fails, time_limit_s=options.time_limit_s or 600.0, memory_bytes=options.memory_bytes or 0,
        result_bytes=row.result_size, result_digest=row.result_digest.hex() if row.result_digest else None,
        result_name=row.result_name, merge_attempt=row.merge_attempt, cpu_s=row.cpu_us / 1e6, results_own=done,
    )  # fmt: skip


def live_view(
    job: JobRun, runtime: JobRuntime, *, names: tuple[str, str], leased: int, slots: int, rng: np.random.Generator
) -> views.JobView:
    """A job that lives. ``leased``: fragments that slots hold now."""
    row = runtime.row
    view = row_view(row, names=names, done=job.done.total, failed=job.dead.total)
    view.state = job.phase
    view.paused = job.paused
    view.reason = reason_view(job.reason) or view.reason
    view.priority = job.spec.priority
    view.time_limit_s = runtime.time_limit_s
    view.memory_bytes = runtime.memory_bytes
    view.max_fails = job.spec.max_fails
    view.status = list(runtime.statuses)
    view.cpu_s = runtime.cpu_us / 1e6
    total = job.total if job.total is not None else job.expected
    seen = max(job.produced, job.settled)
    settled = job.settled
    view.fragments = views.CountsView(
        total=job.total, at_least=max(seen, total or 0), done=job.done.total, failed=job.dead.total, leased=leased,
        waiting=max(0, (total if total is not None else seen) - settled - leased),
    )  # fmt: skip
    view.fraction = min(1.0, settled / total) if total else None
    if job.first_lease is not None and job.last_result is not None and job.last_result > job.first_lease:
        view.rate_per_s = max(0, job.done.total - runtime.done_before) / (job.last_result - job.first_lease)
    if total is not None and settled < total:
        found = job.estimator.estimate(total - settled, max(1, slots), rng)
        if found is not None:
            view.eta = views.EtaView(low_s=found.low_s, high_s=found.high_s, basis=found.basis)
    return view


def as_json(request: views.JobSubmit, manifest: bytes | str | None = None) -> bytes:
    """The stored form of a submission, without parameters, which have a column of their own; limits not given are ``manifest``'s."""
    data = msgspec.to_builtins(request)
    data["params"] = {}
    if manifest is not None:
        said = json.loads(manifest)
        data |= {limit: data[limit] or said[limit] for limit in ("memory_bytes", "time_limit_s")}
    return json.dumps(data).encode()


def check_where(request: views.JobSubmit) -> None:
    """Who may compute it. Raises `Invalid`, and `Conflict` until somebody has confirmed who will see what."""
    if request.where == "own":
        return
    if request.stream:
        raise Invalid("where-unsupported", "An executor's calls run on own workers only.", hint="--where own")
    if not request.yes_foreign:
        raise Conflict(
            "foreign-unconfirmed",
            " ".join(foreign_words(request.where)),
            hint="company job submit --yes-foreign; in REST: yes_foreign: true",
        )


def not_ready(view: views.JobView) -> Conflict:
    """Why there is no final result yet, with the progress in the facts."""
    facts: dict[str, Any] = {"state": view.state, "done": view.fragments.done, "total": view.fragments.total, "fraction": view.fraction}
    if view.state in ("failed", "cancelled"):
        return Conflict(
            f"job-{view.state}",
            view.reason.text if view.reason else f"The job is {view.state}.",
            hint=f"company job retry {view.id}",
            **facts,
        )
    return Conflict(
        "result-not-ready",
        f"{view.id} is {view.state}: {view.fragments.done} of {view.fragments.total or 'at least ' + str(view.fragments.at_least)} done.",
        **facts,
    )
