"""A contract in plain words, beside the exact text that is signed (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from p2p.contracts.terms import PPM, Cause, Role, Terms

CAUSE_WORDS: Mapping[Cause, str] = {
    Cause.NONE: "the time frame was over",
    Cause.PEER_SILENT: "the other side was silent for longer than the lease",
    Cause.OVERRUN: "guests took more than was agreed",
    Cause.BAD_RESULT: "results were wrong",
    Cause.REFUSED_WORK: "work was refused without a reason",
    Cause.EQUIVOCATION: "two different messages were signed with one number",
    Cause.OWNER_RECLAIM: "the owner wanted the slots back",
    Cause.SHUTDOWN: "the company was shut down",
    Cause.DONE: "the work was done",
    Cause.POLICY: "a rule of the company",
    Cause.NEVER_STARTED: "nothing was ever exchanged",
    Cause.SELF_AWAY: "it had itself been away for longer than the lease",
    Cause.UNACKED: "work was not acknowledged",
}


def causes_in_words(causes: Mapping[Role, Cause]) -> dict[str, str]:
    """Who ended it and why; where one side did, the other one's having no cause is not told."""
    has_one = any(cause is not Cause.NONE for cause in causes.values())
    return {role.name.lower(): CAUSE_WORDS[cause] for role, cause in sorted(causes.items()) if cause is not Cause.NONE or not has_one}


def terms_in_words(terms: Terms) -> list[str]:
    """What a person reads before signing, one sentence each."""
    begin = f", beginning {_span(terms.not_before_s)} after the acceptance" if terms.not_before_s else ""
    lines = [
        f"The lender gives {terms.slots} {'slot' if terms.slots == 1 else 'slots'} for {_span(terms.time_frame_s)}{begin}.",
        f"Guests run processor {terms.processor.hex()[:12]} of package {terms.package.hex()[:12]} under {terms.runtime} and nothing else: "
        f"{terms.memory_mib} MiB of memory, {terms.disk_mib} MiB of scratch and {_span(terms.fragment_s)} for each fragment, no network; "
        "nothing is kept afterwards.",
        f"Work is stated and acknowledged at least every {_span(terms.epoch_s)}; that much work is the most either side can lose.",
        f"Silence of {_span(terms.lease_s)} ends it; results are then kept for {_span(terms.grace_s)}.",
        f"Either side may end it at any time; what runs has up to {_span(terms.notice_s)} to finish.",
        _check_words(terms),
    ]
    price = "It costs no favours." if not terms.price_milli else f"It costs {terms.price_milli / 1000:g} favours per core-second."
    return [*lines, price]


def _check_words(terms: Terms) -> str:
    if terms.check == "none":
        return "Results are not checked: whatever the lender returns is taken as true."
    how = f"{terms.spot_ppm / PPM:.2%} of fragments are checks" if terms.check == "spot" else "fragments are computed by several companies"
    bad = f"{terms.assumed_bad_ppm / PPM:.0%}"
    return f"{how}; with {bad} of companies bad, at most {terms.error_ppm / PPM:.2%} of accepted results are wrong."


def _span(seconds: int) -> str:
    """A duration in its largest whole unit."""
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {name}"
    return f"{seconds} s"
