"""What `company doctor` says of the network of companies (pure)."""

from __future__ import annotations

from typing import Any

from company import network_views as nv
from company.chief.network.words import SKEW_FAIL_S

SKEW_WARN_S = 60.0


def network_findings(view: nv.NetworkView) -> list[dict[str, Any]]:
    """Reachability, each closed port, and this machine's clock against the peers'."""
    if view.state == "off":
        return []
    found = [_finding("network", "ok" if view.reason is None else "warn", _sentence(view), _fix(view))]
    for port in view.ports:
        if port.verdict == "closed":
            found.append(
                _finding("network-port", "warn", f"{port.address} ({port.port}) is closed to others. {port.consequence}", port.fix)
            )
    if view.skew_s is not None:
        ahead = "behind" if view.skew_s > 0 else "ahead of"
        text = f"This machine's clock is {abs(view.skew_s):.0f} s {ahead} the other companies'."
        verdict = "fail" if abs(view.skew_s) > SKEW_FAIL_S else "warn" if abs(view.skew_s) > SKEW_WARN_S else "ok"
        found.append(_finding("network-clock", verdict, text, "timedatectl set-ntp true" if verdict != "ok" else ""))
    return found


def _sentence(view: nv.NetworkView) -> str:
    about = f"{view.peers} nodes and {view.companies} other companies are known"
    return f"{view.reason.text} {about}." if view.reason is not None else f"Other companies reach this chief; {about}."


def _fix(view: nv.NetworkView) -> str:
    actions = view.reason.actions if view.reason is not None else []
    return next((action["cli"] for action in actions if action.get("cli")), "")


def _finding(check: str, verdict: str, text: str, fix: str) -> dict[str, Any]:
    return {"id": check, "verdict": verdict, "text": text, "fix": fix, "link": f"docs/doctor.md#{check}"}
