"""company divide: which loops of a program could be divided, and why not the others (I/O: standard output)."""

from __future__ import annotations

from pathlib import Path

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.output import print_json, say


@click.command("divide", cls=Command, needs_chief=False)
@click.argument("script", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@pass_session
def divide(session: Session, script: Path) -> None:
    """Say for each loop and comprehension of SCRIPT whether it could be divided into portions, and why. Nothing is run."""
    from dataclasses import asdict

    from company.divide import plan

    try:
        verdicts = plan(script.read_text("utf-8"))
    except SyntaxError as error:
        raise click.ClickException(f"{script}:{error.lineno}: {error.msg}") from None
    if session.as_json:
        print_json("divide/1", {"script": str(script), "loops": [asdict(v) for v in verdicts]})
        return
    for verdict in verdicts:
        say(f"{script}:{verdict.line}  {'safe' if verdict.is_safe else 'left alone':<10}  {verdict.kind}: {verdict.reason}")
    if not verdicts:
        say(f"{script} has no loop and no comprehension")
