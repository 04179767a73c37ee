"""company doctor: what is wrong and how to mend it (I/O)."""

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
    """Check this machine and the chief: each finding with a verdict and what mends it. Exit code 78 when something fails."""
    findings = local_checks()
    try:
        findings += session.client().doctor()
    except ChiefUnreachable as error:
        findings.append({"id": "chief", "verdict": "fail", "text": error.text, "fix": error.hint, "link": ""})
    if session.as_json:
        print_json("doctor/1", {"items": findings, "total": len(findings), "returned": len(findings), "truncated": False})
    else:
        for finding in findings:
            say(f"{state_word(finding['verdict'], 5)} {safe(finding['id']):<18} {safe(finding['text'])}")
            if finding["verdict"] != "ok" and finding.get("fix"):
                say(f"      → {safe(finding['fix'])}" + (f"   {safe(finding['link'])}" if finding.get("link") else ""))
    return CONFIGURATION if any(f["verdict"] == "fail" for f in findings) else None


def local_checks() -> list[dict[str, Any]]:
    """What can be said of this machine without a chief."""
    version = sys.version.split()[0]
    is_new = sys.version_info >= (3, 11)
    fix = "" if is_new else "install Python 3.11 or newer"
    text = f"this command runs on Python {version}"
    return [{"id": "client-python", "verdict": "ok" if is_new else "fail", "text": text, "fix": fix, "link": ""}]
