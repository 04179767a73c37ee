"""Jobs against maps: tiny fragments, calibrated fragments, large fragments; contenders take turns within every round (I/O)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.company import BenchCompany, PeakMemory
from benchmarks.peer_process import Peer, PeerLost
from benchmarks.rows import Row
from benchmarks.work import MIB, calibrate

BURN_S = 0.010
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    rounds: int
    tiny: int
    burns: int
    large: int

    @classmethod
    def of(cls, *, quick: bool) -> Scale:
        return cls(rounds=1, tiny=20_000, burns=60, large=10) if quick else cls(rounds=3, tiny=500_000, burns=1000, large=200)


def tiny_row(tls: BenchCompany, peers: list[Peer], scale: Scale, slots: int, say: Say) -> Row:
    """Identity over many small ints: by slots of the chief's own, as `company start` has them, and by workers that joined."""
    row = Row(
        f"identity over {scale.tiny:,} small ints",
        "submission of an uploaded package to the merged result in the client's hands, children started once before; "
        "company: slots of the chief's own, over TLS: worker processes that joined; the others: one map call to the list of results, "
        "processes warm. Ours is sandboxed and durable, theirs is not",
        "fragments/s", "more", goal=700_000, beside={"company": {"joblib": 3.0}},
    )  # fmt: skip
    with BenchCompany() as own, TemporaryDirectory() as folder:
        own.start_own(slots)
        own.upload()
        ours = {"company": own, "company over TLS": tls}
        for company in ours.values():
            company.finish(company.submit("identity", n=scale.tiny))
        for _ in range(scale.rounds):
            for name, company in ours.items():
                began = time.perf_counter()
                check(company.finish(company.submit("identity", n=scale.tiny)) == scale.tiny, name)
                row.add(name, scale.tiny / (time.perf_counter() - began))
            row.add("company run (no daemon)", scale.tiny / _local_s(tls.folder, Path(folder), scale.tiny))
            for peer, seconds, count in answers_of(row, peers, "tiny", n=scale.tiny):
                check(count > 0, peer.name)
                row.add(peer.name, count / seconds)
                row.notes[peer.name] = f"{peer.how}, {count:,} items"
            say(f"  {row.samples}")
    row.notes["company run (no daemon)"] = "includes opening the sandbox and starting children"
    return row


def _local_s(packages: Path, folder: Path, n: int) -> float:
    from company.local_engine import run_local

    began = time.perf_counter()
    run_local(packages / "identity", packages / "data.txt", params={"n": n}, out=folder / "out")
    return time.perf_counter() - began


def burn_row(company: BenchCompany, peers: list[Peer], scale: Scale, slots: int, say: Say) -> Row:
    """Fragments of ten calibrated milliseconds."""
    row = Row(
        f"{scale.burns:,} fragments of 10 ms",
        f"begin of the first to end of the last fragment, by clocks inside them; 1 = the sum of their own times over {slots} slots",
        "of ideal", "more", goal=0.97,
    )  # fmt: skip
    for _ in range(scale.rounds):
        turns = calibrate(BURN_S)
        company_span: Any = company.finish(company.submit("burn", n=scale.burns, turns=turns))
        row.add("company", of_ideal(company_span, slots))
        for peer, _, span in answers_of(row, peers, "calibrated", n=scale.burns, turns=turns):
            row.add(peer.name, of_ideal(span, slots))
            row.notes[peer.name] = peer.how
        say(f"  {row.samples}")
    return row


def of_ideal(span: Sequence[float], slots: int) -> float:
    began, ended, work = span
    return work / slots / max(1e-9, ended - began)


def large_rows(tls: BenchCompany, peers: list[Peer], scale: Scale, slots: int, say: Say) -> list[Row]:
    """A mebibyte in, a mebibyte out: by slots of the chief's own, and by workers that joined."""
    row = Row(
        f"{scale.large} × 1 MiB in and out",
        "submission of an uploaded package (its split makes the blocks) to the merged result, results on disk before; company: slots of "
        "the chief's own, over TLS: worker processes that joined; the others: one map call over blocks in memory",
        "fragments/s", "more", beside={"company": {"multiprocessing": 0.7}, "company over TLS": {"multiprocessing": 0.4, "ray": 1.5}},
    )  # fmt: skip
    memory = Row(f"chief memory during {scale.large} × 1 MiB", "most resident memory of the chief's process", "MiB", "less", goal=150)
    with BenchCompany() as own:
        own.start_own(slots)
        own.upload()
        ours = {"company": own, "company over TLS": tls}
        for company in ours.values():
            company.finish(company.submit("echo", n=2, size=MIB))
        for _ in range(scale.rounds):
            for name, company in ours.items():
                with PeakMemory(company.process_of("chief")) as peak:
                    began = time.perf_counter()
                    check(company.finish(company.submit("echo", n=scale.large, size=MIB)) == scale.large * MIB, name)
                    row.add(name, scale.large / (time.perf_counter() - began))
                memory.add(name, peak.peak_bytes / MIB)
            for peer, seconds, count in answers_of(row, peers, "large", n=scale.large, size=MIB):
                check(count > 0, peer.name)
                row.add(peer.name, count / seconds)
                row.notes[peer.name] = peer.how
            say(f"  {row.samples}")
    return [row, memory]


def answers_of(row: Row, peers: list[Peer], case: str, **arguments: Any) -> Iterator[tuple[Peer, float, Any]]:
    """Each peer's seconds and value; one that is lost is noted in the row and asked no more."""
    for peer in peers:
        if case in peer.cases and not peer.lost:
            try:
                yield peer, *peer.ask(case, **arguments)
            except PeerLost as error:
                row.notes[peer.name] = f"lost: {error}"


def check(is_right: bool, who: str) -> None:
    if not is_right:
        raise RuntimeError(f"{who} gave a wrong result")
