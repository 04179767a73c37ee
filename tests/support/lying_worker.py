"""A lent worker that answers wrongly: ``python -m tests.support.lying_worker SHARE worker join …``, else like `company worker join …`.

SHARE is how many of a guest's answers are wrong; own work is done honestly.
"""

from __future__ import annotations

import random
import sys

import numpy as np

from company import messages as m
from company.worker.guest_core import GuestCore
from company.worker.results import Part


def corrupt(part: Part, share: float, rng: random.Random) -> Part:
    """Change the last byte of some results, which stays a value."""
    message = part.message
    if not isinstance(message, m.Outcome):
        return part
    body = bytearray(part.body)
    ends = np.cumsum(part.sizes, dtype=np.int64)
    for k in range(message.count):
        if part.sizes[3 + k] and rng.random() < share:
            body[int(ends[3 + k]) - 1] ^= 1
    return Part(part.token, part.message, part.sizes, bytes(body), part.blobs)


def main() -> None:
    """Run the command line with a guest that lies."""
    share, rng = float(sys.argv.pop(1)), random.Random(7)
    honest = GuestCore.part_made

    def part_made(self: GuestCore, part: Part, *, last: bool) -> None:
        honest(self, corrupt(part, share, rng), last=last)

    GuestCore.part_made = part_made  # type: ignore[method-assign]
    from company.cli import main as company_main

    sys.argv[0] = "company"
    company_main()


if __name__ == "__main__":
    main()
