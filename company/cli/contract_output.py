"""Contracts as lines of text (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from company.cli.output import reason_lines, safe, table
from company.config import format_count, format_duration


def contract_table(items: Sequence[Mapping[str, Any]]) -> str:
    """One line each."""
    rows = [
        [
            c["id"], c["section"], c["state"], c["role"], f"{c['company']} {safe(c['name'], 20)}".strip(), str(c["slots"]),
            format_duration(c["time_frame_s"]), _left(c),
        ]
        for c in items
    ]  # fmt: skip
    return table(("ID", "WHERE", "STATE", "AS", "WITH", "SLOTS", "TIME FRAME", "LEFT"), rows)


def _left(c: Mapping[str, Any]) -> str:
    put_off = ", put off" if c.get("later") else ""
    for name, what in (("answer_in_s", "to answer"), ("ends_in_s", "")):
        if c.get(name) is not None:
            return f"{format_duration(c[name])} {what}".strip() + put_off
    return "-"


def contract_lines(c: Mapping[str, Any], *, brief: bool = False) -> list[str]:
    """The whole of one: plain language first, then the exact text."""
    lines = [f"{c['id']}  {c['state']}  as {c['role']} with {c['company']} {safe(c['name'], 40)}".rstrip()]
    lines += reason_lines(c.get("reason"))
    if c["contract"]:
        lines.append(f"  contract  {c['contract']}")
    if c.get("ends_in_s") is not None:
        lines.append(f"  left      {format_duration(c['ends_in_s'])}; silence ends it in {format_duration(c['lease_left_s'] or 0)}")
    if c.get("answer_in_s") is not None:
        put_off = "; put off, so that nothing asks for it" if c.get("later") else ""
        lines.append(f"  answer    within {format_duration(c['answer_in_s'])}{put_off}")
    if c["accepted"]["fragments"] or c["claimed"]["fragments"]:
        done, claimed = c["accepted"], c["claimed"]
        lines.append(
            f"  accepted  {format_count(done['fragments'])} fragments, {done['core_ms'] / 1000:.1f} core-seconds "
            f"(claimed: {format_count(claimed['fragments'])})"
        )
    lines += [f"  {who:<9} {safe(why)}" for who, why in c["causes"].items()]
    for change in c["differences"]:
        lines.append(f"  changed   {change['field']}: {safe(change['was'], 60)} → {safe(change['becomes'], 60)}")
    if not brief:
        lines += ["", *(f"  {safe(word)}" for word in c["words"]), f"  {safe(c['checks'])}", "", "The exact text:"]
        lines += [f"  {name:<16} {safe(value)}" for name, value in c["text"]]
    if c["digest"]:
        lines.append(f"  digest    {c['digest']}")
    if c["actions"]:
        lines.append(f"  you may   {', '.join(c['actions'])}")
    return lines


def receipt_lines(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each half."""
    if not items:
        return ["no receipt yet: the contract is not settled"]
    lines = []
    for half in items:
        done = half["accepted"]
        lines.append(
            f"{half['role']:<9} {half['author']}  half {half['chain_sequence']} of its chain  "
            f"{format_count(done['fragments'])} fragments, {done['core_ms'] / 1000:.1f} core-seconds accepted, "
            f"checks {half['checks_passed']} passed {half['checks_failed']} failed"
        )
        lines += [f"          {who}: {safe(why)}" for who, why in half["causes"].items()]
        lines.append(f"          {half['hash']}")
    return lines
