"""company reputation: what receipts say of other companies (I/O)."""

from __future__ import annotations

from typing import Any

import click

from company.cli.framework import LazyGroup, Session, pass_session
from company.cli.output import print_json, safe, say, table


@click.group(cls=LazyGroup)
def reputation() -> None:
    """What receipts say of other companies."""


@reputation.command()
@click.argument("company", required=False, metavar="COMPANY")
@pass_session
def show(session: Session, company: str | None) -> None:
    """Show one company, or everybody that a receipt names, the one to ask first before all others."""
    if company is not None:
        found = session.client().contracts.explain(company)
        if session.as_json:
            print_json("reputation/1", found["view"])
        else:
            _lines(found["view"])
        return
    listed = session.client().contracts.reputation()
    if session.as_json:
        print_json("reputations/1", listed)
        return
    rows = [
        [c["company"], safe(c["name"], 24), f"{c['score']:.3f}", f"{c['completed']}/{c['contracts']}", str(c["hops"]),
         f"{c['left_core_ms'] / 3.6e6:.2f}", "proved fork" if c["is_forked"] else ""]
        for c in listed["items"]
    ]  # fmt: skip
    say(table(("COMPANY", "NAME", "SCORE", "COMPLETED", "HOPS", "MAY BORROW (core-h)", ""), rows))
    if not rows:
        say("no receipt names anybody yet")


@reputation.command()
@click.argument("company", metavar="COMPANY")
@click.option("--ask", is_flag=True, help="First ask that company for its chain of receipts.")
@pass_session
def explain(session: Session, company: str, ask: bool) -> None:
    """Show the formula of a score with every input: anybody can compute it again."""
    found = session.client().contracts.explain(company, ask=ask)
    if session.as_json:
        print_json("reputation-explained/1", found)
        return
    _lines(found["view"])
    inputs = found["inputs"]
    say(f"  formula   {safe(inputs['formula'])}")
    favours = inputs["favours"]
    say(f"  favours   {safe(favours['rule'])}")
    for step in favours["steps"]:
        running = ", running: by its settled epochs" if step["running"] else ""
        say(f"  favour    {step['contract'][:16]}  {step['what']} {step['core_ms'] / 1000:.1f} core-seconds{running}")
    say(f"  favours owed in all {favours['owed_core_ms'] / 1000:.1f} core-seconds")
    for receipt in inputs["receipts"]:
        against = "" if receipt["counts_against_it"] == "NONE" else f"  counts against it: {receipt['counts_against_it']}"
        earns = "" if receipt["earns"] else "  earns nothing"
        say(f"  receipt   {receipt['contract'][:16]}  {receipt['core_ms'] / 1000:.1f} core-seconds{against}{earns}")


def _lines(view: dict[str, Any]) -> None:
    done = f"{view['completed']} of {view['contracts']} contracts completed"
    say(f"{view['company']} {safe(view['name'], 40)}  score {view['score']:.3f}  {done}")
    for why in view["why"]:
        say(f"  {safe(why)}")
    say(f"  receipts  {safe(view['chain'])}")
