"""No parser takes memory for what a stranger's bytes only announce: the peak of each is bounded by the size of its input.

The cases are those of `test_untrusted`; the inputs are its samples with lengths in them that lie, deep nesting, and archives that swell.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator

import pytest

from company.package import MAX_BYTES
from tests.properties.test_untrusted import CASES, Case, check, mutated

BASE_BYTES = 3 << 20  # archives here may unpack to 1 MiB, and are held with their pieces; the interpreter's own caches
PER_BYTE = 64  # a byte of input may become a small object of the interpreter
POSITIONS = int(os.environ.get("MEMORY_POSITIONS", "8"))
UNPACKS = {"company/package/digests.py:processor_files_untrusted": 2 * MAX_BYTES}  # a chief's; a processor may have 100 MiB, joined once
LIES = (  # what msgpack and our frames read as a length, the largest there is
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\xff\xff\xff\x7f",
)  # fmt: skip


def liars(sample: bytes) -> Iterator[bytes]:
    """The sample with a lie written over it, and pushed into it, here and there."""
    step = max(1, len(sample) // POSITIONS)
    for at in range(0, len(sample) + 1, step):
        for lie in LIES:
            yield sample[:at] + lie + sample[at + len(lie) :]
            yield sample[:at] + lie + sample[at:]


def swelling() -> Iterator[bytes]:
    """24 MiB of nothing in a few kilobytes, several ways; and what nests."""
    zeros = bytes(24 << 20)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("processor/main.py", zeros)
    yield packed.getvalue()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("a")
        info.size = 1 << 40
        tar.addfile(info, None)
    yield out.getvalue()[:2048]
    yield gzip.compress(zeros, 1)
    yield b"\x91" * 20_000
    yield b"[" * 20_000
    yield b"\xdc\xff\xff" + b"\xc0" * 65_535
    yield b"(" * 20_000


BOMBS = tuple(swelling())


def peak_of(case: Case, data: bytes) -> int:
    tracemalloc.clear_traces()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    check(case, data)
    return tracemalloc.get_traced_memory()[1] - before


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.covers)
def test_memory_is_bounded_by_the_input_and_not_by_what_it_says(case: Case) -> None:
    for sample in case.samples:
        check(case, sample)  # what is imported and cached at the first call
    inputs = [data for sample in case.samples for data in (*liars(sample), *(mutated(sample, seed) for seed in range(20)))]
    for data in (*inputs, *BOMBS):
        peak = peak_of(case, data)
        assert peak <= UNPACKS.get(case.covers, BASE_BYTES) + PER_BYTE * len(data), f"{peak} bytes for {len(data)}: {data[:80]!r}"
