"""Contract path 3/8 - a request becomes terms (pure)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from company import contract_views as cv
from p2p.base.errors import MalformedMessage, UsageError
from p2p.contracts.terms import Terms

GRACE_S = 60
ERROR_PPM, ASSUMED_BAD_PPM, SPOT_PPM = 10_000, 200_000, 100_000  # the design's defaults: 1 % wrong at 20 % bad companies, a tenth checks
MIB = 1 << 20


def terms_of(
    request: cv.ContractRequest, *, package: bytes, processor: bytes, memory_bytes: int, time_limit_s: float, python: str, price_milli: int,
    endpoints: tuple[tuple[str, int], ...],
) -> Terms:  # fmt: skip
    """The text of an offer. Raises `UsageError` where a number cannot be meant."""
    fragment_s = request.fragment_s if request.fragment_s is not None else min(86_400, max(1, math.ceil(time_limit_s)))
    memory_mib = request.memory_mib if request.memory_mib is not None else max(16, math.ceil((memory_bytes or 512 * MIB) / MIB))
    return checked(
        Terms(
            package=package, processor=processor, slots=request.slots, memory_mib=memory_mib, disk_mib=request.disk_mib,
            fragment_s=fragment_s, runtime=f"python-{python}", not_before_s=0, time_frame_s=request.time_frame_s,
            epoch_s=max(1, min(request.lease_s // 3, 20)), lease_s=request.lease_s, grace_s=GRACE_S, notice_s=min(fragment_s, 3600),
            network="none", retention="none", check=request.check, error_ppm=0 if request.check == "none" else ERROR_PPM,
            spot_ppm=SPOT_PPM if request.check == "spot" else 0, assumed_bad_ppm=ASSUMED_BAD_PPM,
            price_milli=request.price_milli if request.price_milli is not None else price_milli, endpoints=endpoints[:8],
        )
    )  # fmt: skip


def countered(terms: Terms, request: cv.ContractCounter) -> Terms:
    """The same text with other numbers. Raises `UsageError` where nothing differs, or a number cannot be meant."""
    wanted: dict[str, Any] = {
        "slots": request.slots, "time_frame_s": request.time_frame_s, "memory_mib": request.memory_mib, "disk_mib": request.disk_mib,
        "fragment_s": request.fragment_s, "price_milli": request.price_milli,
    }  # fmt: skip
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None and value != getattr(terms, name)}
    if not changes:
        raise UsageError("nothing-changed", "these are the same terms", hint="give at least one other number, such as --slots")
    if "fragment_s" in changes:
        changes["notice_s"] = min(changes["fragment_s"], 3600)
    return checked(replace(terms, **changes))


def checked(terms: Terms) -> Terms:
    """The terms themselves, as the other side will read them. Raises `UsageError`."""
    try:
        return Terms.unpack_untrusted(terms.pack())
    except MalformedMessage as error:
        raise UsageError("bad-terms", error.text, hint="company contract terms are bounded: docs/contracts.md") from None
