"""company run: split, process and merge a package on one of several engines, the same bytes from each (I/O)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from company.cli.framework import DURATION, SIZE, Command, Session, pass_session
from company.cli.output import note, print_json, safe, safe_lines, say
from company.errors import JOB_FAILED, SOME_FRAGMENTS_FAILED, JobFailed

SHOWN_FAILURES = 5


@click.command("run", cls=Command, needs_chief=False)
@click.argument("pkg", type=click.Path(path_type=Path, exists=True))
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--engine", type=click.Choice(["local", "company", "dask", "ray"]), default="local", help="Where fragments run.")
@click.option("--address", metavar="ADDRESS", help="Of the Dask scheduler (tcp://HOST:8786) or the Ray cluster (HOST:6379, auto).")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("result"), help="The directory for the result.")
@click.option("-p", "--param", "params", multiple=True, metavar="K=V", help="A parameter of the package; V is JSON where it reads as JSON.")
@click.option("--slots", type=click.IntRange(1, 1024), help="How many fragments at a time (else one per core).", show_default=False)
@click.option("--time-limit", type=DURATION, help="Per fragment: 90s, 10m (else the package's, else 10 min).")
@click.option("--memory", type=SIZE, help="Per fragment: 512MiB, 2GiB (else the package's).")
@click.option("--max-fails", metavar="N|P%", default="0", help="How many fragments may fail before the job does.")
@click.option("--retries", type=click.IntRange(1, 100), default=3, help="How often a failing fragment is tried.")
@click.option("--sandbox", type=click.Choice(["auto", "none"]), default="auto", help="How modules are confined.")
@click.option("--i-understand", is_flag=True, help="Needed with --sandbox none: modules then have all your rights.")
@pass_session
def run_package(
    session: Session, pkg: Path, data: Path, engine: str, address: str | None, out: Path, params: tuple[str, ...],
    slots: int | None, time_limit: float | None, memory: int | None, max_fails: str, retries: int, sandbox: str, i_understand: bool,
) -> int | None:  # fmt: skip
    """Run a package on data, and leave the result in --out.

    local: on this machine alone, without a chief. company: as a job of the chief. dask, ray: fragments on a cluster of yours, where
    company-compute is installed; split and merge run here. Fragments run in the same sandbox everywhere.
    """
    from company.cli.local_progress import local_progress
    from company.cli.start import check_sandbox
    from company.config import parse_params

    check_sandbox(sandbox, understood=i_understand)
    values = parse_params(params)
    if (engine in ("dask", "ray")) != (address is not None):
        raise click.UsageError("--address goes with --engine dask and --engine ray, and both need it")

    state = "done"
    try:
        with local_progress(quiet=session.as_json) as progress, contextlib.ExitStack() as stack:
            if engine == "company":
                from company.cli.run_as_job import run_as_job

                options = {"max_fails": max_fails, "retries": retries, "time_limit_s": time_limit, "memory_bytes": memory}
                facts = run_as_job(session.client(), pkg, data, values, out, progress, options)
            else:
                from company.local_engine import run_local

                cluster = None
                if address is not None:
                    from company.cluster.engines import open_cluster

                    cluster = stack.enter_context(open_cluster(engine, address))
                facts = run_local(
                    pkg, data, params=values, out=out, slots=slots, progress=progress, max_fails=max_fails, tries=retries,
                    time_limit_s=time_limit, memory_bytes=memory, allow_none=sandbox == "none", cluster=cluster,
                )  # fmt: skip
    except JobFailed as error:
        state, facts = "failed", {"reason": error.text, **error.facts}
    if session.as_json:
        print_json("run/1", {"state": state, "out": str(out), **facts, "engine": engine})
    else:
        _tell(state, facts)
    return JOB_FAILED if state == "failed" else SOME_FRAGMENTS_FAILED if facts.get("failed") else None


def _tell(state: str, facts: Mapping[str, Any]) -> None:
    """Failures first, the end last: that is where one looks."""
    failures = [f for f in facts["failures"] if f["final"]] or list(facts["failures"])
    for failure in failures[:SHOWN_FAILURES]:
        what = ": ".join(safe(part, 300) for part in (failure["exc_type"], failure["message"]) if part)
        note(f"fragment {failure['fragment']} ({failure['cause']}, {failure['tries']} tries): {what}")
        if failure["preview"]:
            note(f"  its input: {safe(failure['preview'], 300)}")
        for line in (failure["traceback"] or failure["log_tail"]).rstrip().splitlines()[-20:]:
            note(f"  {safe_lines(line)}")
    if len(failures) > SHOWN_FAILURES:
        note(f"and {len(failures) - SHOWN_FAILURES} more (--json has them)")
    if state == "failed":
        note(f"failed: {safe(facts['reason'], 1000)}")
        for line in str(facts.get("traceback") or "").rstrip().splitlines():
            note(f"  {safe_lines(line)}")
    failed = f", {facts['failed']} failed" if facts["failed"] else ""
    say(f"{facts['done']} of {facts['fragments']} fragments done{failed}, {facts['seconds']:.1f} s, {facts['isolation']}")
    for path in facts["files"][:10]:
        say(f"result     {safe(path)}")
    if len(facts["files"]) > 10:
        say(f"           and {len(facts['files']) - 10} files more")
    for name in ("log", "artifacts"):
        if name in facts:
            say(f"{name:<10} {safe(facts[name])}")
