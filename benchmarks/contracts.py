"""``python -m benchmarks.contracts``: CPU time of a contract's first three messages, each side (I/O: reads the CPU clock).

Everything between the wire and the effects is in it: reading, verifying, judging, folding, packing for the journal, signing.
"""

from __future__ import annotations

import statistics
import time

from p2p.base.clock import Monotonic, UnixTime
from p2p.base.keys import Identity
from p2p.contracts import events as e
from p2p.contracts.machine import ContractMachine
from p2p.contracts.signing import Signer
from p2p.contracts.terms import Role, Terms

ROUNDS = 300
NETWORK = b"b" * 16
WALL = UnixTime(1_790_000_000)
TERMS = Terms(
    package=b"p" * 32, processor=b"q" * 32, slots=4, memory_mib=512, disk_mib=64, fragment_s=60, runtime="python-3.11", not_before_s=0,
    time_frame_s=7200, epoch_s=20, lease_s=60, grace_s=60, notice_s=60, network="none", retention="none", check="spot", error_ppm=10_000,
    spot_ppm=100_000, assumed_bad_ppm=200_000, price_milli=1000, endpoints=(("198.51.100.7", 8468),),
)  # fmt: skip


class Side:
    """One machine, and the CPU seconds that it has taken."""

    def __init__(self, role: Role, signer: Signer, peer: bytes, nonce: bytes) -> None:
        self.machine = ContractMachine(role, signer, peer, nonce)
        self.spent_s = 0.0

    def do(self, event: e.Event) -> list[bytes]:
        """Handle one event with its journal on disk at once; what is to be sent."""
        begin = time.process_time()
        effects = self.machine.handle(event, Monotonic(1.0))
        effects += self.machine.handle(e.Persisted(self.machine.a.records), Monotonic(1.0))
        self.spent_s += time.process_time() - begin
        return [f.wire for f in effects if isinstance(f, e.Send)]


def one_contract(borrower: Signer, lender: Signer, nonce: bytes) -> tuple[float, float]:
    """Offer, acceptance, commitment; CPU seconds of borrower and lender."""
    b, other = Side(Role.BORROWER, borrower, lender.public, nonce), Side(Role.LENDER, lender, borrower.public, nonce)
    for side, event, to in (
        (b, e.Propose(TERMS, 60, WALL), other), (other, e.Agreeing(4, 30, WALL), b), (b, e.Committing(WALL), other),
    ):  # fmt: skip
        for wire in side.do(event)[:1]:
            to.do(e.Received(wire, WALL))
    if str(other.machine.state) != "active":
        raise RuntimeError(f"the contract is {other.machine.state}")
    return b.spent_s, other.spent_s


def main() -> None:
    """Print medians."""
    borrower, lender = Signer(Identity(b"b" * 32), NETWORK), Signer(Identity(b"l" * 32), NETWORK)
    spent = [one_contract(borrower, lender, n.to_bytes(32, "big")) for n in range(ROUNDS)]
    for name, values in zip(("borrower", "lender"), zip(*spent, strict=True), strict=True):
        ordered = sorted(values)
        print(f"{name:<9} {statistics.median(values) * 1000:.3f} ms median, {ordered[int(0.95 * ROUNDS)] * 1000:.3f} ms at 95 % of CPU")


if __name__ == "__main__":
    main()
