"""company run: split, process and merge here, without a daemon (I/O)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.output import print_json, say


@click.command("run", cls=Command, needs_chief=False)
@click.argument("pkg", type=click.Path(path_type=Path, exists=True))
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--engine", type=click.Choice(["local"]), default="local", help="Where it runs.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("result"), help="The directory for the result.")
@click.option("-p", "--param", "params", multiple=True, metavar="K=V", help="A parameter of the package; V is JSON where it reads as JSON.")
@click.option("--slots", type=click.IntRange(1, 1024), help="How many fragments at a time (else one per core).", show_default=False)
@pass_session
def run_package(session: Session, pkg: Path, data: Path, engine: str, out: Path, params: tuple[str, ...], slots: int | None) -> int | None:
    """Run a package on data on this machine alone, in the same sandbox, without a chief."""
    from company.cli.local_progress import local_progress
    from company.config import parse_params

    values = parse_params(params)
    from company.local import run_local

    with local_progress(quiet=session.as_json) as progress:
        result: Any = run_local(pkg, data, params=values, out=out, slots=slots, progress=progress)
    facts = result if isinstance(result, dict) else {"result": repr(result)}
    if session.as_json:
        print_json("run/1", {"engine": engine, "out": str(out), **facts})
    else:
        for key, value in facts.items():
            say(f"{key}: {value}")
        say(f"result in {out}")
    return 3 if facts.get("failed") else None
