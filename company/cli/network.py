"""company network: this chief among other companies (I/O)."""

from __future__ import annotations

from typing import Any

import click

from company.cli.framework import LazyGroup, Parsed, Session, pass_session
from company.cli.output import counted, print_json, reason_lines, safe, say, size, state_word, table
from company.cli.start import parse_listen
from company.config import format_duration

ADDRESS = Parsed("address", parse_listen)


@click.group(cls=LazyGroup)
def network() -> None:
    """See other companies, and how they see this one."""


@network.command()
@pass_session
def status(session: Session) -> None:
    """Whether other companies reach this chief, port by port, with what mends it."""
    view = session.client().network.status()
    if session.as_json:
        print_json("network/1", view)
        return
    rows = [("state", view["state"]), ("company", view["company"])]
    if view["state"] != "off":
        known = f"{counted(view['peers'], 'node', 'nodes')}, {counted(view['companies'], 'company', 'companies')}"
        if view["peers"]:
            known += f"; the network has about {counted(round(view['estimated_size']), 'node', 'nodes')}"
        rows += [("address", f"{view['address']} (UDP)"), ("seen as", view["seen_as"] or "-"), ("known", known)]
        clock = "not compared yet" if view["skew_s"] is None else f"{view['skew_s']:+.0f} s (others minus this one)"
        rows += [("clock", clock), ("offers", ", ".join(view["published"]) or "none published")]
        relay = view["relay"]
        serves = f"serves {relay['kept_for']}" if relay["serves"] else "off for others"
        rows.append(("relay", f"{serves}; uses {', '.join(relay['used']) or 'none'}"))
        rows += [("tracker", safe(f"{t['url']}: {t['text']}", 100)) for t in view["trackers"]]
    for label, text in rows:
        say(f"{label:<9} {safe(text)}")
    for line in reason_lines(view.get("reason"), ""):
        say(line)
    for port in view["ports"]:
        said = f" ({counted(port['witnesses'], 'company', 'companies')} tried)" if port["witnesses"] else ""
        say(f"{port['port']:<5} {safe(port['address'] or '-'):<24} {port['verdict']}{said}  {safe(port['consequence'])}")
        if port["fix"]:
            say(f"      → {safe(port['fix'])}")


@network.command()
@pass_session
def peers(session: Session) -> None:
    """List the nodes of the network that this chief's table holds."""
    found = session.client().network.list("peers")
    if session.as_json:
        print_json("network-peers/1", found)
        return
    rows = [
        [p["company"], p["address"], format_duration(p["answered_ago_s"]), _ms(p["round_trip_s"]), str(p["failures"])]
        for p in found["items"]
    ]
    say(table(("COMPANY", "ADDRESS", "ANSWERED", "ROUND TRIP", "FAILURES"), rows))
    if not rows:
        say("no node is known yet: company network bootstrap add HOST:PORT")


@network.command()
@pass_session
def companies(session: Session) -> None:
    """List the companies that were heard of. Their names are their own choice."""
    found = session.client().network.list("companies")
    if session.as_json:
        print_json("network-companies/1", found)
        return
    rows = [
        [c["company"], safe(c["name"], 30), safe(", ".join(c["endpoints"]) or "-", 44), safe(", ".join(c["relays"]) or "-", 44),
         format_duration(c["seen_ago_s"]), _ms(c["round_trip_s"])]
        for c in found["items"]
    ]  # fmt: skip
    say(table(("COMPANY", "NAME", "ADDRESS", "BY RELAY", "HEARD OF", "ROUND TRIP"), rows))


@network.command()
@pass_session
def offers(session: Session) -> None:
    """List what other companies lend, as they advertise it."""
    found = session.client().network.list("offers")
    if session.as_json:
        print_json("network-offers/1", found)
        return
    say(offer_table(found["items"]))
    if not found["items"]:
        say("no offers: company lend --max-workers N makes one")


@network.command()
@click.argument("company")
@pass_session
def ping(session: Session, company: str) -> int | None:
    """Reach a company's chief: exit code 69 where it does not answer."""
    view = session.client().network.ping(company)
    if session.as_json:
        print_json("network-ping/1", view)
    elif view["answered"]:
        say(f"{view['company']} answered in {_ms(view['round_trip_s'])} at {safe(view['way'])}: {safe(view['text'])}")
    else:
        say(f"{view['company']} does not answer: {safe(view['text'])}")
    return None if view["answered"] else 69


@network.group(cls=LazyGroup)
def bootstrap() -> None:
    """Nodes that are asked for the network at every start."""


@bootstrap.command("list")
@pass_session
def list_bootstraps(session: Session) -> None:
    """List them."""
    _show(session, session.client().network.list("bootstrap"))


@bootstrap.command()
@click.argument("address", type=ADDRESS, metavar="HOST:PORT")
@pass_session
def add(session: Session, address: str) -> None:
    """Add one, and ask it now."""
    _show(session, session.client().network.add_bootstrap(address))


@bootstrap.command("rm")
@click.argument("address", type=ADDRESS, metavar="HOST:PORT")
@pass_session
def remove(session: Session, address: str) -> None:
    """Forget one that was added."""
    session.client().network.remove_bootstrap(address)
    _show(session, session.client().network.list("bootstrap"))


@bootstrap.command()
@click.argument("address", type=ADDRESS, required=False, metavar="[HOST:PORT]")
@pass_session
def test(session: Session, address: str | None) -> int | None:
    """Whether it answers by UDP, or each that is kept. Exit code 69 where none does."""
    found = session.client().network.test_bootstrap(address)
    _show(session, found)
    return None if any(b["answered"] for b in found["items"]) else 69


def _show(session: Session, found: dict[str, Any]) -> None:
    if session.as_json:
        print_json("network-bootstrap/1", found)
        return
    rows = [
        [b["address"], b["source"], {None: "-", True: "ok", False: "fail"}[b["answered"]], _ms(b["round_trip_s"]), safe(b["text"])]
        for b in found["items"]
    ]
    say(table(("ADDRESS", "FROM", "ANSWERS", "ROUND TRIP", ""), rows))


def offer_table(items: list[dict[str, Any]]) -> str:
    """Offers, best first."""
    rows = [
        [o["company"] + (" (own)" if o["own"] else ""), safe(o["name"], 24), str(o["slots"]),
         "-" if o["idle_slots"] is None else str(o["idle_slots"]), size(o["memory_bytes"]), safe(",".join(o["pythons"]), 20),
         str(o["speed"] or "-"), f"{o['price_milli'] / 1000:g}", "-" if o["trust"] is None else f"{o['trust']:.2f}", _ms(o["round_trip_s"]),
         f"{o['score']:.2f}", state_word(safe(o["answer"])) or "-", safe(o["schedule"] or "always", 24)]
        for o in items
    ]  # fmt: skip
    headers = ("COMPANY", "NAME", "SLOTS", "IDLE", "MEM/SLOT", "PYTHON", "SPEED", "PRICE", "TRUST", "AWAY", "SCORE", "SAYS", "WHEN")
    return table(headers, rows)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f} ms"
