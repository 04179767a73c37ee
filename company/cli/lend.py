"""company lend: offer this company's workers to others (I/O)."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import click

from company.cli.framework import DURATION, SIZE, LazyGroup, Session, pass_session
from company.cli.output import ago, counted, print_json, safe, say, size
from company.config import format_duration, parse_duration_s
from p2p.base.errors import UsageError


@click.group(cls=LazyGroup, invoke_without_command=True)
@click.option("--max-workers", type=click.IntRange(1), metavar="N", help="At most so many slots at a time.")
@click.option("--until", metavar="TIME", help="Ends then: 2h, or 2026-12-24T18:00 on this machine's clock.")
@click.option(
    "--schedule", default="", show_default=False, metavar="WHEN", help='Only then: "18:00-08:00", "mon-fri 18:00-08:00, sat-sun".'
)
@click.option("--min-trust", type=click.FloatRange(0, 1), default=0.0, metavar="0..1", help="Only to companies trusted at least so much.")
@click.option("--to", "only_to", multiple=True, metavar="COMPANY", help="Only to these companies, by id.")
@click.option("--price", type=click.FloatRange(0), default=0.0, metavar="FAVOURS", help="Asked per unit given; 0 asks nothing.")
@click.option("--max-frame", type=DURATION, metavar="TIME", help="Longest contract, such as 2h.")
@click.option("--max-load", type=click.FloatRange(0, 1), default=0.0, metavar="0..1", help="Only on machines that you use less yourself.")
@click.option("--only-on-mains", is_flag=True, help="Not while this machine runs on its battery.")
@click.option("--max-memory", type=SIZE, metavar="SIZE", help="For all guests together.")
@click.option("--max-disk", type=SIZE, metavar="SIZE", help="Scratch of all guests together.")
@click.option("--max-bandwidth", type=SIZE, metavar="SIZE", help="A second, to and from all guests together, such as 2MiB.")
@click.option(
    "--auto-accept",
    type=click.Choice(("never", "trusted", "any")),
    default="never",
    help="Sign offers that fit without asking: of nobody, of companies that computed for us within their credit, or of anybody.",
)
@click.option("--preview", is_flag=True, help="Only say what would be offered.")
@click.pass_context
def lend(
    ctx: click.Context, max_workers: int | None, until: str | None, schedule: str, min_trust: float, only_to: tuple[str, ...], price: float,
    max_frame: float | None, max_load: float, only_on_mains: bool, max_memory: int | None, max_disk: int | None,
    max_bandwidth: int | None, auto_accept: str, preview: bool,
) -> None:  # fmt: skip
    """Offer idle workers to other companies. The offer is signed and found in the network until `company lend stop`."""
    if ctx.invoked_subcommand is not None:
        return
    session = ctx.ensure_object(Session)
    if max_workers is None:
        raise click.UsageError("give --max-workers N (slots), or status, or stop")
    view = session.client().network.lend(
        max_workers, until=until_of(until, time.time()), schedule=schedule, min_trust=min_trust, only_to=list(only_to),
        price_milli=round(price * 1000), max_frame_s=int(max_frame or 0), max_load=max_load, only_on_mains=only_on_mains,
        max_memory_bytes=max_memory or 0, max_disk_bytes=max_disk or 0, max_bandwidth_bytes=max_bandwidth or 0, auto_accept=auto_accept,
        preview=preview,
    )  # fmt: skip
    _show(session, view)


@lend.command()
@pass_session
def status(session: Session) -> None:
    """Say what is lent."""
    _show(session, session.client().network.lending())


@lend.command()
@click.option("--now", is_flag=True, help="Also take every slot back: what runs for others is stopped within seconds.")
@pass_session
def stop(session: Session, now: bool) -> None:
    """Withdraw every offer. What runs under contracts goes on to their end, unless --now."""
    _show(session, session.client().network.stop_lending(now=now))


def until_of(text: str | None, now: float) -> float | None:
    """Unix seconds of a duration from now or a local time. Raises `UsageError`."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return now + parse_duration_s(text)
    except UsageError:
        raise UsageError("bad-until", f"{text[:40]!r} is neither a duration nor a time", hint="write 2h or 2026-12-24T18:00") from None


def _show(session: Session, view: dict[str, Any]) -> None:
    if session.as_json:
        print_json("lending/1", view)
        return
    say(("Preview: " if view["preview"] else "") + safe(view["text"]))
    if view["max_workers"]:
        terms = [
            f"at most {counted(view['max_workers'], 'slot', 'slots')}",
            f"ends {ago(view['until'], time.time())}" if view["until"] else "until stopped",
        ]
        terms += [view["schedule"]] if view["schedule"] else []
        terms += [f"trust at least {view['min_trust']:g}"] if view["min_trust"] else []
        terms += [f"only to {', '.join(view['only_to'])}"] if view["only_to"] else []
        terms += [f"at most {format_duration(view['max_frame_s'])} each"] if view["max_frame_s"] else []
        terms += [f"while its owner uses at most {view['max_load']:.0%} of this machine"] if view["max_load"] else []
        terms += ["on mains only"] if view["only_on_mains"] else []
        terms += [f"{size(view['max_memory_bytes'])} of memory in all"] if view["max_memory_bytes"] else []
        terms += [f"{size(view['max_disk_bytes'])} of scratch in all"] if view["max_disk_bytes"] else []
        terms += [f"{size(view['max_bandwidth_bytes'])} a second in all"] if view["max_bandwidth_bytes"] else []
        say(f"  terms     {safe('; '.join(terms))}")
        asked = {
            "never": "every offer waits for you: company contract list --inbox",
            "any": "offers of anybody that fit are signed by themselves",
        }
        trusted = "offers of companies that computed for us are signed by themselves, within their credit"
        say(f"  signing   {asked.get(view['auto_accept'], trusted)}")
        say(f"  who       {safe(view['who'])}")
        say(f"  get       {safe(view['gives'])}")
        say(f"  never     a guest can never reach {'; '.join(view['never'])}")
        if view["supply_why"]:
            say(f"  favours   {safe(view['supply_why'])}")
    if view["promised"]:
        say(f"  promised  {counted(view['promised'], 'slot', 'slots')} under contracts")
    for capability in view["capabilities"]:
        say(f"  offered   {safe(capability)}: {counted(view['slots'], 'idle slot', 'idle slots')}")
    if view["published"]:
        say(f"  kept by   {counted(view['stored_on'], 'node', 'nodes')} of the network")
