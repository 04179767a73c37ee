"""company admin: backup and restore (I/O)."""

from __future__ import annotations

import os
from pathlib import Path

import click

from company.cli.framework import LazyGroup, Session, pass_session
from company.cli.output import print_json, say, size
from company.errors import ConflictError


@click.group(cls=LazyGroup)
def admin() -> None:
    """Back up and restore a chief."""


@admin.command()
@click.argument("file", type=click.Path(path_type=Path))
@pass_session
def backup(session: Session, file: Path) -> None:
    """Write a consistent backup while the chief runs. FILE is a path on the chief's machine."""
    target = Path(os.path.abspath(file))
    found = session.client().backup(target)
    if session.as_json:
        print_json("backup/1", {"path": str(target), **found})
    else:
        say(f"{target}  {size(found.get('size_bytes', found.get('size')))}")


@admin.command(needs_chief=False)
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option("--end-contracts", is_flag=True, help="Restore although the backup holds contracts; the company then signs no more of them.")
@pass_session
def restore(session: Session, file: Path, end_contracts: bool) -> None:
    """Put a backup into an empty home. The chief must not be running there."""
    from company.home_lock import holder_pid
    from company.paths import Home

    home = Home.locate(session.given_home)
    pid = holder_pid(home.chief.root)
    if pid is not None:
        raise ConflictError("home-in-use", f"a chief (process {pid}) runs in {home.root}", hint="company stop")
    if home.chief.database.exists():
        text = f"{home.chief.root} holds a company already"
        raise ConflictError("home-not-empty", text, hint="give another --home, or move it away first")
    from company.chief import backup as archive

    report = archive.restore_backup(file, home.chief, end_contracts=end_contracts)
    if session.as_json:
        print_json("restore/1", {"home": str(home.root), "files": report.files, "size_bytes": report.size_bytes, "digest": report.digest})
    else:
        say(f"{report.files} files restored into {home.root}; start it: company start --home {home.root}")
