"""company data: send and look at datasets (I/O)."""

from __future__ import annotations

import time
from pathlib import Path

import click

from company.cli.framework import LazyGroup, Session, pass_session
from company.cli.output import ago, note, print_json, safe, say, short_digest, size, table
from company.errors import INTERRUPTED


@click.group(cls=LazyGroup)
def data() -> None:
    """Send and look at datasets: files, or directories as they are."""


@data.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True), metavar="PATH")
@click.option("--name", help="The dataset's name (else the file's or directory's).")
@click.option("--private", is_flag=True, help="Nothing of it ever leaves this company, whatever a job says.")
@pass_session
def upload(session: Session, path: Path, name: str | None, private: bool) -> int | None:
    """Send a file or directory. What is there already is not sent again; above 64 MiB an interrupted upload goes on where it stopped."""
    from company.cli.transfer import transfer_bar

    try:
        with transfer_bar(path.name, quiet=session.as_json) as progress:
            view = session.client().upload_data(path, name=name, progress=progress)
            if private:
                view |= session.client().mark_dataset(view["digest"], private=True)
    except KeyboardInterrupt:
        note("Interrupted. The same command goes on where it stopped.")
        return INTERRUPTED
    if session.as_json:
        print_json("dataset/1", view)
    else:
        state = "new" if view["new"] else "already there"
        say(f"{safe(view['name'])}  {view['kind']}  {size(view.get('size'))}  sha256:{short_digest(view['digest'])}  {state}")
    return None


@data.command("list")
@pass_session
def list_datasets(session: Session) -> None:
    """List the datasets at the chief."""
    found = session.client().datasets()
    if session.as_json:
        print_json("datasets/1", found)
        return
    now = time.time()
    rows = [
        [short_digest(d["digest"]), safe(d["name"], 40), d["kind"], size(d.get("size")), str(d.get("files", 1)), str(d.get("jobs", 0)),
         ago(d.get("uploaded"), now)]
        for d in found["items"]
    ]  # fmt: skip
    say(table(("DIGEST", "NAME", "KIND", "SIZE", "FILES", "JOBS", "UPLOADED"), rows))


@data.command()
@click.argument("ref", metavar="DATASET")
@pass_session
def show(session: Session, ref: str) -> None:
    """Show one dataset."""
    view = session.client().dataset(ref)
    if session.as_json:
        print_json("dataset/1", view)
        return
    say(f"{safe(view['name'])}  sha256:{view['digest']}")
    say(f"  {view['kind']}, {size(view.get('size'))}, {view.get('files', 1)} files, used by {view.get('jobs', 0)} jobs")
    if view.get("private"):
        say("  private: nothing of it leaves this company")


@data.command()
@click.argument("ref", metavar="DATASET")
@click.option("--private/--shareable", required=True, help="Whether nothing of it ever leaves this company, whatever a job says.")
@pass_session
def edit(session: Session, ref: str, private: bool) -> None:
    """Mark a dataset private, so that it never leaves this company, or take the mark off."""
    view = session.client().mark_dataset(ref, private=private)
    if session.as_json:
        print_json("dataset/1", view)
    else:
        say(f"{safe(view['name'])} {'is private: nothing of it leaves this company' if private else 'may go where a job says'}")


@data.command("rm")
@click.argument("ref", metavar="DATASET")
@pass_session
def remove(session: Session, ref: str) -> None:
    """Remove a dataset that no job uses."""
    session.client().remove_dataset(ref)
    if session.as_json:
        print_json("removed/1", {"dataset": ref})
    else:
        say(f"{ref} removed")
