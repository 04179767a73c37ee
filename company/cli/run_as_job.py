"""company run --engine company: a job of the chief, waited for and downloaded, told as a local run is (I/O)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from company.errors import JobFailed

if TYPE_CHECKING:
    from company.cli.local_progress import LocalProgress
    from company.client import Client

POLL_S = 1.0


def run_as_job(
    client: Client, package: Path, data: Path, params: Mapping[str, Any], out: Path, progress: LocalProgress | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Submit, wait, download. Returns the facts of `company.local_engine.run_local`. Raises `JobFailed` with them."""
    began = time.monotonic()
    job = client.submit(package, data, params=params, **options)
    while not job.is_over:
        seen = job.status(wait_s=POLL_S)["fragments"]
        if progress is not None:
            progress(seen["done"], seen.get("total"), seen.get("failed", 0))
    fragments = job.view["fragments"]
    facts: dict[str, Any] = {
        "job": job.id, "fragments": fragments.get("total") or fragments["done"] + fragments.get("failed", 0), "done": fragments["done"],
        "failed": fragments.get("failed", 0), "files": [], "seconds": round(time.monotonic() - began, 3), "isolation": f"job {job.id}",
        "failures": job.failures(limit=100)["items"],
    }  # fmt: skip
    if job.state != "done":
        reason = job.view.get("reason") or {}
        raise JobFailed("job-failed", str(reason.get("text") or f"the job is {job.state}"), **facts)
    facts["files"] = [str(path) for path in job.download(out)]
    return facts
