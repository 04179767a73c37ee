"""company run-script: an unmodified program that uses multiprocessing, ProcessPoolExecutor or joblib, on a company (I/O)."""

from __future__ import annotations

from pathlib import Path

import click

from company.cli.framework import DURATION, Command, Session, pass_session

_REST = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command("run-script", cls=Command, context_settings=_REST)
@click.option("--local", "is_local", is_flag=True, help="On a company of this run alone, on this machine.")
@click.option("--workers", type=click.IntRange(1, 1024), help="With --local: how many slots (else one per core).", show_default=False)
@click.option("--divide", is_flag=True, help="Also run its loops in portions where that provably changes nothing.")
@click.option("--divide-after", type=DURATION, default="500ms", help="How long a loop runs here before the rest of it is divided.")
@click.argument("script", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_session
def run_script(
    session: Session, is_local: bool, workers: int | None, divide: bool, divide_after: float, script: Path, arguments: tuple[str, ...]
) -> int:
    """Run SCRIPT as python would, its pools of processes being the company. With --divide also loops: company divide SCRIPT says which."""
    from company import collector
    from company.client.private import local
    from company.client.unmodified import run_script as run

    collector.as_usual()  # the program's garbage is to be collected, and what it holds closed, as it would be alone
    with local(workers) if is_local else session.client() as client:
        return run(script, list(arguments), client, divide_after_s=divide_after if divide else None)
