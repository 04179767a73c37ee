"""company contract: what was agreed with other companies, and whether it holds (I/O)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from company.cli.contract_output import contract_lines, contract_table, receipt_lines
from company.cli.framework import DURATION, SIZE, LazyGroup, Session, pass_session
from company.cli.output import print_json, safe, say
from company.config import format_count

OVER = ("expired", "closing", "settled", "rated")
SECTIONS = ("inbox", "drafts", "sent", "active", "settled")


@click.group(cls=LazyGroup)
def contract() -> None:
    """Contracts with other companies: offers, signatures, receipts; verify an exported one on any machine."""


@contract.command("list")
@click.option("--inbox", "section", flag_value="inbox", help="Offers and proposals that wait for this side.")
@click.option("--drafts", "section", flag_value="drafts", help="Written here, not signed.")
@click.option("--sent", "section", flag_value="sent", help="Own offers without an answer.")
@click.option("--active", "section", flag_value="active", help="In force, or being wound up.")
@click.option("--settled", "section", flag_value="settled", help="With receipts.")
@click.option("--ended", "section", flag_value="ended", help="Refused, taken back or lapsed.")
@pass_session
def list_(session: Session, section: str | None) -> None:
    """List contracts, those first that wait for you."""
    found = session.client().contracts.list(section)
    if session.as_json:
        print_json("contracts/1", found)
        return
    say(contract_table(found["items"]))
    if not found["items"]:
        say("none; find offers with: company borrow search")


@contract.command()
@click.argument("id_", metavar="ID")
@pass_session
def show(session: Session, id_: str) -> None:
    """Show one: what it says in plain language, beside the exact text that is signed."""
    _show(session, session.client().contracts.show(id_))


@contract.command()
@click.argument("id_", metavar="ID")
@click.option("--digest", metavar="HEX", help="Of the text that was read. Without it the text is shown and you are asked.")
@click.option("--slots", type=click.IntRange(1), help="Give fewer slots than are asked for.")
@click.option("--yes", is_flag=True, help="Sign what `company contract show` says now, without asking.")
@pass_session
def accept(session: Session, id_: str, digest: str | None, slots: int | None, yes: bool) -> None:
    """Sign an offer, a counter-proposal or an amendment. It binds to the text that was read: another text is refused."""
    digest = _read(session, id_, digest, yes)
    _show(session, session.client().contracts.act(id_, "accept", digest=digest, slots=slots), brief=True)


@contract.command()
@click.argument("id_", metavar="ID")
@click.option("--digest", metavar="HEX", help="Of the text that was read.")
@click.option("--yes", is_flag=True, help="Sign it without asking.")
@pass_session
def send(session: Session, id_: str, digest: str | None, yes: bool) -> None:
    """Sign a draft and send it."""
    digest = _read(session, id_, digest, yes)
    _show(session, session.client().contracts.act(id_, "send", digest=digest), brief=True)


@contract.command()
@click.argument("id_", metavar="ID")
@pass_session
def discard(session: Session, id_: str) -> None:
    """Forget a draft."""
    session.client().contracts.discard(id_)
    _done(session, "contract-discarded/1", {"id": id_}, "forgotten")


@contract.command()
@click.argument("id_", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="What the other side reads, at most 80 bytes.")
@click.option("--retry-after", type=DURATION, metavar="TIME", help="When it may ask again.")
@pass_session
def reject(session: Session, id_: str, reason: str, retry_after: float | None) -> None:
    """Refuse what is on the table, or take back your own offer."""
    view = session.client().contracts.act(id_, "reject", reason=reason, retry_after_s=int(retry_after or 0))
    _show(session, view, brief=True)


@contract.command()
@click.argument("id_", metavar="ID")
@click.option("--slots", type=click.IntRange(1), help="Propose so many slots.")
@click.option("--time-frame", type=DURATION, metavar="TIME", help="Propose so long a time, say 2h.")
@click.option("--memory", type=SIZE, metavar="SIZE", help="Per fragment.")
@click.option("--fragment-time", type=DURATION, metavar="TIME", help="Longest fragment.")
@click.option("--price", type=click.FloatRange(0), help="Favours per core-second.")
@click.option("--reason", default="", metavar="TEXT", help="What the other side reads, at most 80 bytes.")
@pass_session
def counter(
    session: Session, id_: str, slots: int | None, time_frame: float | None, memory: int | None, fragment_time: float | None,
    price: float | None, reason: str,
) -> None:  # fmt: skip
    """Propose other numbers: to an offer, a counter-proposal, or as an amendment of what runs."""
    view = session.client().contracts.act(
        id_, "counter", slots=slots, time_frame_s=int(time_frame) if time_frame is not None else None,
        memory_mib=max(1, memory >> 20) if memory is not None else None,
        fragment_s=int(fragment_time) if fragment_time is not None else None,
        price_milli=round(price * 1000) if price is not None else None, reason=reason,
    )  # fmt: skip
    _show(session, view, brief=True)


contract.add_command(counter, "amend")  # of what runs: people look for it under this name


@contract.command()
@click.argument("id_", metavar="ID")
@click.option("--now", is_flag=True, help="Without notice: what runs is stopped.")
@click.option("--reason", default="", metavar="TEXT", help="What the other side reads, at most 80 bytes.")
@pass_session
def revoke(session: Session, id_: str, now: bool, reason: str) -> None:
    """End it. In force here at once, whether or not the other side can be reached."""
    _show(session, session.client().contracts.act(id_, "revoke", notice_s=0 if now else None, text=reason), brief=True)


@contract.command()
@click.argument("id_", metavar="ID")
@click.option("--time-frame", type=DURATION, required=True, metavar="TIME", help="So much longer.")
@pass_session
def renew(session: Session, id_: str, time_frame: float) -> None:
    """Propose the same for longer; in force once the other side has agreed."""
    _show(session, session.client().contracts.act(id_, "renew", more_s=int(time_frame)), brief=True)


@contract.command()
@click.argument("id_", metavar="ID")
@pass_session
def later(session: Session, id_: str) -> None:
    """Leave an offer in the inbox, without its badge."""
    _show(session, session.client().contracts.act(id_, "later"), brief=True)


@contract.command()
@click.argument("id_", metavar="ID|COMPANY")
@pass_session
def block(session: Session, id_: str) -> None:
    """Deal with a company, or with that of this contract, no more; its waiting offers are refused. What runs goes on."""
    said = session.client().contracts.act(id_, "block")
    _done(session, "contract-blocked/1", said, f"blocked; {said['refused']} waiting offers refused; undo: company contract unblock")


@contract.command()
@click.argument("company", metavar="COMPANY|ID")
@pass_session
def unblock(session: Session, company: str) -> None:
    """Deal with a company again that was blocked."""
    said = session.client().contracts.act(company, "unblock")
    _done(session, "contract-unblocked/1", said, f"{said['company']} may send offers again")


@contract.command()
@pass_session
def blocked(session: Session) -> None:
    """List the companies that are blocked."""
    found = session.client().contracts.blocked()
    lines = "\n".join(f"{item['company']}  {item['name']}" for item in found["items"])
    _done(session, "blocked-companies/1", found, lines or "none")


@contract.command()
@click.argument("id_", metavar="ID")
@pass_session
def receipts(session: Session, id_: str) -> None:
    """Show both halves of a contract's receipt."""
    found = session.client().contracts.receipts(id_)
    if session.as_json:
        print_json("receipts/1", found)
        return
    for line in receipt_lines(found["items"]):
        say(line)


@contract.command()
@click.argument("id_", metavar="ID")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE", help="Where to write it.")
@pass_session
def export(session: Session, id_: str, output: Path) -> None:
    """Write every signed message of a contract to a file that anybody can verify."""
    data = session.client().contracts.export(id_)
    output.write_bytes(data)
    _done(
        session,
        "contract-export/1",
        {"file": str(output), "size": len(data)},
        f"{output}: {len(data)} bytes; company contract verify {output}",
    )


def _read(session: Session, id_: str, digest: str | None, yes: bool) -> str:
    """The digest of what was read: given, or of what is shown now."""
    if digest is not None:
        return digest
    view = session.client().contracts.show(id_)
    if not yes:
        if session.as_json:
            raise click.UsageError("give --digest HEX of the text that was read, or --yes")
        for line in contract_lines(view):
            say(line)
        click.confirm("Sign this text?", abort=True)
    return str(view["digest"])


def _show(session: Session, view: dict[str, Any], *, brief: bool = False) -> None:
    if session.as_json:
        print_json("contract/1", view)
        return
    for line in contract_lines(view, brief=brief):
        say(line)


def _done(session: Session, schema: str, value: dict[str, Any], text: str) -> None:
    if session.as_json:
        print_json(schema, value)
    else:
        say(safe(text))


@contract.command(needs_chief=False)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE")
@pass_session
def verify(session: Session, file: Path) -> int:
    """Check a whole exported contract offline: signatures, hashes, numbers, rules. Needs no chief and no network."""
    from company.errors import INTEGRITY, InvalidError
    from p2p.base.errors import MalformedMessage
    from p2p.contracts.export import MAX_FILE_BYTES, read_export_untrusted, verify_export

    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InvalidError("contract-unreadable", f"{file} has {size} bytes; a contract has {MAX_FILE_BYTES} at most")
    try:
        verdict = verify_export(read_export_untrusted(file.read_bytes()))
    except MalformedMessage as error:
        raise InvalidError("contract-unreadable", f"{file} is not an exported contract: {error.text}") from None
    facts = verdict.facts
    if session.as_json:
        print_json("contract-verdict/1", {"holds": verdict.holds, "faults": verdict.faults, **facts})
        return 0 if verdict.holds else INTEGRITY
    say(f"contract {facts.get('contract', '(none)')[:16]}  borrower {facts.get('borrower')}  lender {facts.get('lender')}")
    for line in facts.get("terms", ()):
        say(f"  {safe(line)}")
    if "accepted" in facts:
        done, claimed = facts["accepted"], facts["claimed"]
        say(
            f"  accepted   {format_count(done['fragments'])} fragments, {done['core_ms'] / 1000:.1f} core-seconds, "
            f"{format_count(done['bytes'])} bytes (claimed: {format_count(claimed['fragments'])} fragments)"
        )
        ended = [f"{who}: {why}" for who, why in facts["causes"].items()]
        ended = ended or (["the time frame was over"] if facts["state"] in OVER else [])
        say("; ".join([f"  state      {facts['state']}", *ended]))
        say(f"  receipt    {facts['receipt']}")
    for fork in facts.get("forks", ()):
        say(f"  proof      {fork['company']} signed {safe(fork['what'])}")
    for fault in verdict.faults:
        say(f"  does not hold: {safe(fault)}")
    say(f"everything holds: {facts['messages']} messages" if verdict.holds else f"{len(verdict.faults)} fault(s): do not rely on this")
    return 0 if verdict.holds else INTEGRITY
