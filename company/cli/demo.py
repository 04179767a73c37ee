"""company demo: a chief, two workers and two jobs on real data, then all of it gone (I/O)."""

from __future__ import annotations

from pathlib import Path

import click

from company.cli.framework import Command, Session, pass_session


@click.command(cls=Command, needs_chief=False)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default="demo-output", help="Where the results are put.")
@pass_session
def demo(session: Session, out: Path) -> int | None:
    """Try everything in a temporary home: start a chief and two workers, run two jobs, print the results, clean up."""
    from company.demo import main

    result = main(out)
    return result if isinstance(result, int) else None
