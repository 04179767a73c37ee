"""company borrow: find workers of other companies (I/O)."""

from __future__ import annotations

import click

from company.cli.framework import SIZE, LazyGroup, Session, pass_session
from company.cli.network import offer_table
from company.cli.output import print_json, reason_lines, say


@click.group(cls=LazyGroup)
def borrow() -> None:
    """Find workers of other companies."""


@borrow.command()
@click.option("--slots", type=click.IntRange(1), default=1, help="At least so many.")
@click.option("--memory", type=SIZE, metavar="SIZE", help="At least so much for each slot.")
@click.option("--python", metavar="X.Y", help="With this Python (else the chief's).")
@click.option("--arch", metavar="NAME", help="Machines of this kind (else the chief's), such as x86_64 or aarch64.")
@click.option("--ask/--no-ask", default=True, help="Ask the best what is idle now, or only show what is advertised.")
@pass_session
def search(session: Session, slots: int, memory: int | None, python: str | None, arch: str | None, ask: bool) -> None:
    """List signed, live offers, ranked by idle power, distance in time, price, and trust where it is known."""
    view = session.client().network.search(slots=slots, memory_bytes=memory, python=python, arch=arch, ask=ask)
    if session.as_json:
        print_json("offers/1", view)
        return
    say(offer_table(view["offers"]))
    say(f"{view['found']} found for {view['capability']}, {view['asked']} asked, in {view['took_s']:.1f} s")
    for spread in view["spreads"]:
        dropped = f", {spread['dropped']} outliers left out" if spread["dropped"] else ""
        say(f"  {spread['quantity']:<13} mean {spread['mean']:.3g}, spread {spread['spread']:.3g} of {spread['count']}{dropped}")
    for line in reason_lines(view.get("reason"), ""):
        say(line)
