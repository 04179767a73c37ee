"""What the sandbox costs a warm child: the same child with and without it, interleaved, medians (I/O).

``python -m benchmarks.sandbox_cost`` prints one JSON object. Round trips: a RUN of one small int and its OUTCOME, over blocking pipes,
parent and child on one core, since waking another core costs more than everything that is measured here. Ratios are
time sandboxed / time bare, so 1.05 means 5 % slower.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trio

from company.sandbox import Child, Profile, ladder, wire
from company.sandbox.rung import Rung
from company.sandbox.site import build_site
from p2p.base.codec import encode_value
from p2p.base.errors import UsageError
from p2p.base.frames import FrameParser, encode_frame

ROUNDS = 80
TRIPS = 200  # short turns: what else runs on the machine hits both alike
BULK = 20_000
SOURCE = b"def process(x):\n    return x\n"


class Warm:
    """A loaded child spoken to over its bare pipes. Made by `start`."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._write = child._to_child.fileno()
        self._read = child._from_child.fileno()
        self._parser = FrameParser()
        for fd in (self._write, self._read):
            os.set_blocking(fd, True)

    @classmethod
    async def start(cls, rung: Rung) -> tuple[Warm, float]:
        """Start and load one; returns it and the seconds that took."""
        begun = time.perf_counter()
        child = rung.start(Profile(role="process"))
        await child.load(role="process", files={"processor/main.py": SOURCE}, options={})
        return cls(child), time.perf_counter() - begun

    def ask(self, frame: bytes) -> None:
        """One batch there and back."""
        view = memoryview(frame)
        while view:
            view = view[os.write(self._write, view) :]
        while True:
            for got in self._parser.feed_untrusted(os.read(self._read, 1 << 20)):
                if got.header[0] == wire.OUTCOME and got.header[4]:
                    return


def frame_of(count: int) -> bytes:
    """A RUN of ``count`` small ints."""
    items = [encode_value(number) for number in range(count)]
    sizes = np.fromiter(map(len, items), dtype="<u4", count=count)
    return b"".join(bytes(part) for part in encode_frame([wire.RUN, 1, 0, []], sizes, b"".join(items)))


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


async def compare(bare: Rung, sandboxed: Rung) -> dict[str, float]:
    """Both rungs in turn."""
    one, many = frame_of(1), frame_of(BULK)
    pairs = [(name, *await Warm.start(rung)) for name, rung in (("bare", bare), ("sandboxed", sandboxed))]
    trips: dict[str, list[float]] = {name: [] for name, _, _ in pairs}
    bulk: dict[str, list[float]] = {name: [] for name, _, _ in pairs}
    for number in range(ROUNDS + 1):
        for name, warm, _ in pairs if number % 2 else pairs[::-1]:
            trip = timed(lambda warm=warm: [warm.ask(one) for _ in range(TRIPS)])  # type: ignore[misc]
            batch = timed(lambda warm=warm: warm.ask(many))  # type: ignore[misc]
            if number:  # the first round warms up
                trips[name].append(trip / TRIPS)
                bulk[name].append(batch / BULK)
    starts: dict[str, list[float]] = {"bare": [], "sandboxed": []}
    for _ in range(5):
        for name, rung in (("bare", bare), ("sandboxed", sandboxed)):
            warm, seconds = await Warm.start(rung)
            starts[name].append(seconds)
            await warm.child.aclose()
    for _, warm, _ in pairs:
        await warm.child.aclose()
    middle = {
        (kind, name): statistics.median(found[name])
        for kind, found in (("trip", trips), ("bulk", bulk), ("start", starts))
        for name in found
    }
    return {
        "bare_round_trips_per_s": round(1 / middle["trip", "bare"]),
        "sandboxed_round_trips_per_s": round(1 / middle["trip", "sandboxed"]),
        "round_trip_ratio": round(statistics.median(s / b for b, s in zip(trips["bare"], trips["sandboxed"], strict=True)), 3),
        "bare_bulk_fragments_per_s": round(1 / middle["bulk", "bare"]),
        "sandboxed_bulk_fragments_per_s": round(1 / middle["bulk", "sandboxed"]),
        "bulk_ratio": round(statistics.median(s / b for b, s in zip(bulk["bare"], bulk["sandboxed"], strict=True)), 3),
        "bare_start_ms": round(middle["start", "bare"] * 1000, 1),
        "sandboxed_start_ms": round(middle["start", "sandboxed"] * 1000, 1),
    }  # fmt: skip


async def measure() -> dict[str, float | str]:
    """Raises `UsageError` where bubblewrap does not work."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        candidates = list(ladder.rungs(home=home, site=build_site(home / "cache"), stage=[], allow_none=True))
        sandboxed, bare = candidates[0].climb(), candidates[-1].climb()
        try:
            return {"rung": sandboxed.name, "must_reach": 1.05, **await compare(bare, sandboxed)}
        finally:
            sandboxed.close()
            bare.close()


if __name__ == "__main__":
    try:
        print(json.dumps(trio.run(measure), indent=1))
    except UsageError as error:
        print(json.dumps({"rung": "none", "why": str(error)}))
