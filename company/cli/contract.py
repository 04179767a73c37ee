"""company contract: what was agreed with other companies, and whether it holds (I/O)."""

from __future__ import annotations

from pathlib import Path

import click

from company.cli.framework import LazyGroup, Session, pass_session
from company.cli.output import print_json, safe, say
from company.config import format_count


@click.group(cls=LazyGroup)
def contract() -> None:
    """Contracts with other companies: verify an exported one on any machine."""


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
        ended = "; ".join(f"{who}: {why}" for who, why in facts["causes"].items()) or "the time frame was over"
        say(f"  state      {facts['state']}; {ended}")
        say(f"  receipt    {facts['receipt']}")
    for fork in facts.get("forks", ()):
        say(f"  proof      {fork['company']} signed {safe(fork['what'])}")
    for fault in verdict.faults:
        say(f"  does not hold: {safe(fault)}")
    say(f"everything holds: {facts['messages']} messages" if verdict.holds else f"{len(verdict.faults)} fault(s): do not rely on this")
    return 0 if verdict.holds else INTEGRITY
