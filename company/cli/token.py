"""company token: let machines, programs and people in (I/O)."""

from __future__ import annotations

import time
from typing import Any

import click

from company.cli.framework import DURATION, LazyGroup, Session, pass_session
from company.cli.output import ago, note, print_json, safe, say, table
from company.client.client import pick
from company.errors import NOTHING_MATCHED, CompanyError, NotFoundError

INSTALLED = "~/.local/share/company/venv/bin/company"  # where the install line puts it
ROLES = ("worker", "viewer", "submitter", "operator", "owner")


@click.group(cls=LazyGroup)
def token() -> None:
    """Let machines, programs and people in, each with a role."""


@token.command()
@click.option("--role", type=click.Choice(ROLES), required=True, help="What its bearer may do.")
@click.option("--ttl", type=DURATION, default="24h", help="How long it is valid.")
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, help="How many machines may join with it (role worker).")
@click.option("--label", default="", help="A note to recognise it by.")
@pass_session
def create(session: Session, role: str, ttl: float, uses: int, label: str) -> None:
    """Make a token. It is shown this once; the chief keeps only its hash."""
    client = session.client()
    made = client.create_token(role, ttl_s=ttl, uses=uses, label=label)
    if session.as_json:
        print_json("token/1", made)
        return
    info = made["info"]
    until = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(info["expires"])) if info.get("expires") else "for ever"
    if role != "worker":
        say(f"Role {role}, valid until {until}:\n\n    {made['token']}\n")
        say(f"Use it: company login {client.transport.address.url} (it asks for the token)")
        say("In scripts: COMPANY_URL=… COMPANY_TOKEN=… company job list")
        return
    times = "once" if info.get("uses_left") == 1 else f"{info.get('uses_left')} times"
    join = made.get("join_line") or f"company worker join {made['token']}"
    if made.get("install_line"):
        say(f"On a machine with nothing but Python: install from this chief, then join (works {times}, until {until}).\n")
        say(f"    {made['install_line']}\n")
        say(f"    {INSTALLED}{join.removeprefix('company')}\n")
        say("Where company is installed already:\n")
    else:
        say(f"Run this on each machine (works {times}, until {until}):\n")
    say(f"    {join}\n")
    say("The token holds this chief's addresses and key; it cannot submit jobs or read data. To survive reboots add: --install-service")
    if made.get("note"):
        note(f"! {made['note']}")


@token.command("list")
@pass_session
def list_tokens(session: Session) -> None:
    """List tokens, without their secrets."""
    found = session.client().tokens()
    if session.as_json:
        print_json("tokens/1", found)
        return
    now = time.time()
    rows = [
        [safe(t["id"]), t["kind"], t["role"], "revoked" if t.get("revoked") else ago(t.get("expires"), now),
         "-" if t.get("uses_left") is None else str(t["uses_left"]), ago(t.get("last_used"), now), safe(t.get("label", ""), 40)]
        for t in found["items"]
    ]  # fmt: skip
    say(table(("ID", "KIND", "ROLE", "EXPIRES", "USES LEFT", "USED", "LABEL"), rows))


@token.command()
@click.argument("ref", metavar="ID")
@pass_session
def revoke(session: Session, ref: str) -> None:
    """End a token now."""
    client = session.client()
    matches = pick(client.tokens()["items"], ref)
    if not matches:
        raise NotFoundError("token-unknown", f"no token {ref!r}", hint="company token list")
    if len(matches) > 1:
        error = CompanyError("token-ambiguous", f"{ref!r} fits {len(matches)} tokens", hint="give more of its id")
        error.exit_code = NOTHING_MATCHED
        raise error
    client.revoke_token(str(matches[0]["id"]))
    if session.as_json:
        print_json("revoked/1", {"id": matches[0]["id"]})
    else:
        say(f"{matches[0]['id']} revoked")


@token.command(needs_chief=False)
@click.argument("text", metavar="TOKEN")
@pass_session
def inspect(session: Session, text: str) -> None:
    """Show what a token says, without contacting anybody; its secret is not shown."""
    facts = describe_token(text)
    if session.as_json:
        print_json("token-inspect/1", facts)
        return
    for key, value in facts.items():
        say(f"{key:<12}{safe(', '.join(map(str, value)) if isinstance(value, list) else value, 200)}")
    expires = facts.get("expires")
    if isinstance(expires, (int, float)):
        say(f"{'':<12}{'expired ' if expires < time.time() else 'expires '}{ago(float(expires), time.time())}")


def describe_token(text: str) -> dict[str, Any]:
    """What a token says. Raises what its parser raises for a malformed one."""
    from company.tokens import describe_token as described

    return described(text)
