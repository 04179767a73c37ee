"""company job submit: upload what is new, submit, and stay with the job if asked to (I/O)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from company.cli.framework import DURATION, SIZE, Command, Session, pass_session
from company.cli.output import note, print_json, safe, say, short_digest, size
from company.errors import INTERRUPTED
from p2p.base.errors import UsageError


@click.command(cls=Command)
@click.argument("pkg")
@click.argument("data")
@click.option("-p", "--param", "params", multiple=True, metavar="K=V", help="A parameter of the package; V is JSON where it reads as JSON.")
@click.option("--name", help="How the job is called.")
@click.option("--where", type=click.Choice(["own", "trusted", "any"]), default="own", help="Whose workers may compute it.")
@click.option("--yes-foreign", is_flag=True, help="With --where trusted or any: who will see the job's parts was read and confirmed.")
@click.option(
    "--borrow",
    type=click.Choice(["never", "ask", "automatically"]),
    help="How slots are borrowed for it, no less carefully than by policy.",
)
@click.option("--priority", type=int, default=0, help="Higher goes first within your own jobs.")
@click.option("--time-limit", type=DURATION, help="Per fragment: 90s, 10m (else the package's, else 10 min).")
@click.option("--memory", type=SIZE, help="Per fragment: 512MiB, 2GiB (else the package's).")
@click.option("--max-fails", metavar="N|P%", default="0", help="How many fragments may fail before the job does.")
@click.option("--retries", type=click.IntRange(0, 100), default=3, help="How often a failing fragment is tried.")
@click.option("--batching", type=click.Choice(["adaptive", "sqrt-window", "none"]), default="adaptive", help="How fragments are batched.")
@click.option("--matching", type=click.Choice(["stable", "seed"]), default="stable", help="How batches meet workers.")
@click.option("--wait", "wait_for_it", is_flag=True, help="Wait silently for the end; the exit code tells how it went.")
@click.option("--watch", "watch_it", is_flag=True, help="Follow it to the end. Ctrl-C detaches; the job runs on.")
@pass_session
def submit(
    session: Session, pkg: str, data: str, params: tuple[str, ...], time_limit: float | None, memory: int | None, wait_for_it: bool,
    watch_it: bool, **options: Any,
) -> int | None:  # fmt: skip
    """Submit a job.

    PKG is a package's directory or archive, or the name or digest of one at the chief. DATA is a file, a directory, or the name or
    digest of a dataset at the chief. What the chief has already is not sent again.

    \b
    company job submit ./wordcount corpus.txt -p lines=1000 --watch
    """
    from company.cli.transfer import transfer_bar
    from company.config import parse_params

    values = parse_params(params)  # before anything is uploaded
    has_data = _is_path(data)  # what is missing is said before anything is sent
    client = session.client()
    if options["where"] != "own" and not options["yes_foreign"]:
        options["yes_foreign"] = _confirm(session, options["where"])
    package_ref = _package(session, pkg)
    data_ref = data
    if has_data:
        try:
            with transfer_bar(Path(data).name, quiet=session.as_json) as progress:
                dataset = client.upload_data(data, progress=progress)
        except KeyboardInterrupt:
            note("Interrupted. The same command goes on with the upload where it stopped.")
            return INTERRUPTED
        data_ref = str(dataset["digest"])
        if not session.as_json:
            new = "" if dataset.get("new") else ", already there"
            say(f"data     {safe(dataset['name'])}  {size(dataset.get('size'))}  sha256:{short_digest(data_ref)}{new}")
    job = client.submit(package_ref, data_ref, params=values, time_limit_s=time_limit, memory_bytes=memory, **options)
    if not session.as_json:
        say(f"job      {job.id}  {job.state}")
    if watch_it:
        from company.cli.watching import watch_job

        return watch_job(session, job)
    if wait_for_it:
        from company.cli.job_follow import finish_waiting

        return finish_waiting(session, job, None)
    if session.as_json:
        print_json("job/1", job.view)
    else:
        say(f"Follow it: company job watch {job.id}")
    return None


def _confirm(session: Session, where: str) -> bool:
    """Let the user read who will see what, and ask. Raises `UsageError` where nobody can be asked."""
    from company.foreign_words import foreign_words

    if session.as_json or not sys.stdin.isatty():
        raise UsageError("foreign-unconfirmed", " ".join(foreign_words(where)), hint="read this, then give --yes-foreign")
    active = session.client().contracts.list("active")["items"]
    companies = {f"{c['name'] or 'unnamed'} ({c['company']})": None for c in active if c["role"] == "borrower"}
    words = foreign_words(where, tuple(companies)[:20])
    for line in words:
        say(safe(line))
    click.confirm("Submit it?", abort=True)
    return True


def _package(session: Session, pkg: str) -> str:
    """The digest of an uploaded package, or the name as it is."""
    if not _is_path(pkg):
        return pkg
    package = session.client().upload_package(pkg)
    if not session.as_json:
        functions = ", ".join(package.get("functions") or [])
        what = f"{safe(package['name'])}  {size(package.get('size'))}  sha256:{short_digest(package['digest'])}"
        say(f"package  {what}  checked ({functions})")
        for warning in package.get("warnings") or []:
            note(f"  ! {safe(warning)}")
    return str(package["digest"])


def _is_path(text: str) -> bool:
    """Whether a path here is meant; one that looks like a path and is missing is an error of its own."""
    from company.client.client import is_here

    return is_here(text)
