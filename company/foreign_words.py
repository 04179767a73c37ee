"""What a user confirms before other companies may compute a job (pure)."""

from __future__ import annotations

SEEN = "its fragments, its processor (the code that computes one fragment) and its parameters"
NEVER_SEEN = "the dataset as a whole, split and merge, other jobs, results of other fragments, files of this company"


def foreign_words(where: str, companies: tuple[str, ...] = ()) -> list[str]:
    """One sentence a line. ``companies``: those with a contract now."""
    who = {
        "any": "any company with which this one has a contract, also one that it signs later",
        "trusted": "companies with a contract and a trust score of a half or more, also later ones",
    }.get(where, where)
    lines = [f"With --where {where}, others may compute this job: {who}."]
    if companies:
        lines.append(f"With a contract now: {', '.join(companies)}.")
    return [*lines, f"They will be able to see and keep {SEEN}.", f"They never see {NEVER_SEEN}."]
