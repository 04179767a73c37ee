"""company borrow: find workers of other companies, and ask for them (I/O)."""

from __future__ import annotations

import click

from company.cli.contract_output import contract_lines
from company.cli.framework import DURATION, SIZE, LazyGroup, Session, pass_session
from company.cli.network import offer_table
from company.cli.output import print_json, reason_lines, say
from company.config import format_duration


@click.group(cls=LazyGroup)
def borrow() -> None:
    """Find workers of other companies, and ask for them."""


@borrow.command()
@click.option("--slots", type=click.IntRange(1), default=1, metavar="N", help="At least so many.")
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
    for spread in [x for x in view["spreads"] if x["count"] > 1]:
        dropped = f", {spread['dropped']} outliers left out" if spread["dropped"] else ""
        say(f"  {spread['quantity']:<13} mean {spread['mean']:.3g}, spread {spread['spread']:.3g} of {spread['count']}{dropped}")
    for line in reason_lines(view.get("reason"), ""):
        say(line)


@borrow.command()
@click.option("--mode", type=click.Choice(("never", "ask", "automatically")), help="Say what could be borrowed (ask), or sign it.")
@click.option("--max-slots", type=click.IntRange(1, 1024), help="Slots at a time, of everybody together.")
@click.option("--contracts-per-day", type=click.IntRange(0, 1000), help="Offers signed a day at most.")
@click.option("--core-hours-per-day", type=click.FloatRange(0), help="What the contracts of a day may cost at most.")
@click.option("--max-price", type=click.FloatRange(0, 1000), help="Favours per core-second at most.")
@click.option("--time-frame", type=DURATION, metavar="TIME", help="Of each contract.")
@pass_session
def policy(
    session: Session, mode: str | None, max_slots: int | None, contracts_per_day: int | None, core_hours_per_day: float | None,
    max_price: float | None, time_frame: float | None,
) -> None:  # fmt: skip
    """Show or change what is borrowed for jobs with --where trusted or any without a request of yours."""
    view = session.client().contracts.borrow_policy(
        mode=mode, max_slots=max_slots, contracts_per_day=contracts_per_day, core_hours_per_day=core_hours_per_day,
        max_price_milli=round(max_price * 1000) if max_price is not None else None,
        time_frame_s=int(time_frame) if time_frame is not None else None,
    )  # fmt: skip
    if session.as_json:
        print_json("borrow-policy/1", view)
        return
    what = {"never": "nothing is borrowed without your request", "ask": "what a job could borrow is said, and you sign it",
            "automatically": "for jobs that lack slots, offers are signed by themselves"}  # fmt: skip
    say(f"mode      {view['mode']}: {what[view['mode']]}")
    say(f"at most   {view['max_slots']} slots at a time, {view['max_price_milli'] / 1000:g} favours per core-second, each contract for "
        f"{format_duration(view['time_frame_s'])}")  # fmt: skip
    say(f"a day     {view['contracts_per_day']} contracts ({view['contracts_left']} left), {view['core_hours_per_day']:g} core-hours "
        f"({view['core_hours_left']:g} left)")  # fmt: skip


@borrow.command()
@click.argument("company", metavar="OFFER")
@click.option("--slots", type=click.IntRange(1, 1024), default=1, help="How many slots to ask for.")
@click.option("--time-frame", type=DURATION, default="2h", metavar="TIME", help="How long, from the acceptance.")
@click.option("--package", metavar="PKG", help="What guests run: digest or name (else the newest job's, or the only one).")
@click.option("--memory", type=SIZE, metavar="SIZE", help="Per fragment (else what the package says).")
@click.option("--fragment-time", type=DURATION, metavar="TIME", help="Longest fragment (else what the package says).")
@click.option("--price", type=click.FloatRange(0), help="Favours per core-second (else what the lender asks).")
@click.option(
    "--check", type=click.Choice(("spot", "vote", "none")), default="spot", help="How results are checked; none believes everything."
)
@click.option("--lease", type=DURATION, default="60s", metavar="TIME", help="Silence that ends it.")
@click.option("--valid", type=DURATION, default="1d", metavar="TIME", help="How long the offer stands.")
@click.option("--draft", is_flag=True, help="Write it, sign nothing.")
@pass_session
def request(
    session: Session, company: str, slots: int, time_frame: float, package: str | None, memory: int | None, fragment_time: float | None,
    price: float | None, check: str, lease: float, valid: float, draft: bool,
) -> None:  # fmt: skip
    """Offer terms to the company of an OFFER (its id, a unique beginning of it, or its name). Signed and sent, unless --draft."""
    view = session.client().contracts.request(
        company, slots=slots, time_frame_s=int(time_frame), package=package, memory_mib=max(16, memory >> 20) if memory else None,
        fragment_s=int(fragment_time) if fragment_time else None, price_milli=round(price * 1000) if price is not None else None,
        check=check, lease_s=int(lease), valid_s=int(valid), draft=draft,
    )  # fmt: skip
    if session.as_json:
        print_json("contract/1", view)
        return
    for line in contract_lines(view, brief=not draft):
        say(line)
    if not draft:
        say(f"what becomes of it: company contract show {view['id']}")
