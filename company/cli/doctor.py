"""company doctor: what is wrong and how to mend it, with a chief or without (I/O)."""

from __future__ import annotations

import sys
from typing import Any

import click

from company.cli.framework import Command, Session, pass_session
from company.cli.output import print_json, safe, say, state_word
from company.errors import CONFIGURATION, ChiefUnreachable


@click.command(cls=Command)
@pass_session
def doctor(session: Session) -> int | None:
    """Check this machine and the chief: each finding with a verdict and what mends it. Exit code 78 when something fails.

    Without a chief it says whether one, or a worker, could run here.
    """
    findings = [client_python(), *all_findings(session)]
    if session.as_json:
        print_json("doctor/1", {"items": findings, "total": len(findings), "returned": len(findings), "truncated": False})
    else:
        for finding in findings:
            say(f"{state_word(finding['verdict'], 5)} {safe(finding['id']):<18} {safe(finding['text'])}")
            if finding["verdict"] != "ok" and finding.get("fix"):
                say(f"      → {safe(finding['fix'])}" + (f"   {safe(finding['link'])}" if finding.get("link") else ""))
    return CONFIGURATION if any(f["verdict"] == "fail" for f in findings) else None


def all_findings(session: Session) -> list[dict[str, Any]]:
    """The chief's findings, which are of this machine when it runs here; else this machine's, and why the chief says none."""
    try:
        client = session.client()
        is_here = client.transport.address.pid is not None
        found = client.doctor()
    except ChiefUnreachable as error:
        verdict = "warn" if error.code == "no-chief" else "fail"
        link = "docs/doctor.md#chief"
        return [*local_checks(session), {"id": "chief", "verdict": verdict, "text": error.text, "fix": error.hint, "link": link}]
    return found if is_here else [*local_checks(session), *({**f, "text": f"chief: {f['text']}"} for f in found)]


def local_checks(session: Session) -> list[dict[str, Any]]:
    """What can be said of this machine without a chief."""
    import trio

    from company.chief.checkup import local_checkup
    from company.paths import Home

    return trio.run(local_checkup, Home.locate(session.given_home))


def client_python() -> dict[str, Any]:
    """The Python that this command runs on."""
    version = sys.version.split()[0]
    is_new = sys.version_info >= (3, 11)
    fix = "" if is_new else "install Python 3.11 or newer"
    link = "docs/doctor.md#client-python"
    text = f"this command runs on Python {version}"
    return {"id": "client-python", "verdict": "ok" if is_new else "fail", "text": text, "fix": fix, "link": link}
