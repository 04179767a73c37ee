"""kill -9 of the chief at every point of its way to the disk: the job goes on, and its merged bytes are the same."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from company.client import Job
from company.errors import CompanyError
from tests.faults.crashing import POINTS, unkept
from tests.support.company_processes import RunningCompany, until, write_package

pytestmark = pytest.mark.slow

N = 40
LARGE = 17  # its result is too large for a segment: more than 4 MiB
LARGE_TIMES = 80_000
PROCESS = f"""
    import hashlib, time
    def process(fragment):
        time.sleep(0.005)
        return hashlib.sha256(str(fragment).encode()).hexdigest() * ({LARGE_TIMES} if fragment == {LARGE} else 1)
"""
MERGE = """
    def merge(results, output):
        with (output / "digests.txt").open("w") as file:
            for number, result in enumerate(results):
                file.write(f"{number} {result}\\n")
"""
TIMES = {"rows-before-begin": 4, "rows-before-commit": 4, "rows-after-commit": 4, "split-before-window": 1, "split-after-window": 1}

# one of each stage in every run of the tests; all of them with $FAULTS_FULL, as `make chaos` does
ALWAYS = (
    "job-after-row", "split-after-window", "segment-half-written", "blob-after-rename", "rows-before-commit", "ack-before-send",
    "merge-after-result", "job-before-last-row",
)  # fmt: skip
CHOSEN = tuple(POINTS) if os.environ.get("FAULTS_FULL") else ALWAYS


def expected() -> bytes:
    digests = [hashlib.sha256(str(i).encode()).hexdigest() * (LARGE_TIMES if i == LARGE else 1) for i in range(N)]
    return "".join(f"{i} {d}\n" for i, d in enumerate(digests)).encode()


class Mine(RunningCompany):
    """A company whose chief can be made to die at a point."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.programs["chief"] = (sys.executable, "-m", "tests.faults.crashing")
        self.fuse = root / "fuse"
        self.violations, self.acks = root / "violations", root / "acks"
        self.environ |= {"FAULT_FILE": str(self.fuse), "FAULT_VIOLATIONS": str(self.violations), "FAULT_ACKS": str(self.acks)}

    def arm(self, point: str, times: int = 1) -> None:
        self.fuse.with_suffix(".new").write_text(f"{point} {times}")
        self.fuse.with_suffix(".new").rename(self.fuse)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory, package: Path, numbers: Path) -> Iterator[Mine]:
    with Mine(tmp_path_factory.mktemp("crashes")) as company:
        company.start_chief()
        company.start_workers("w1", "w2")
        company.client.submit(package, numbers, params={"n": 1}).wait(60)  # package and dataset are there
        yield company


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("p") / "digests", PROCESS, merge=MERGE)


def job_of(mine: Mine, package: Path, data: Path, name: str) -> Job | None:
    """The submitted job, or None where the chief died before it answered."""
    try:
        return mine.client.submit(package, data, params={"n": N}, name=name, batching="none")
    except CompanyError:
        return None


@pytest.mark.parametrize("point", CHOSEN)
def test_a_chief_killed_there_goes_on(mine: Mine, package: Path, numbers: Path, tmp_path: Path, point: str) -> None:
    if not mine.is_running("chief"):  # the test before this one failed while it was dead
        mine.start_chief()
    mine.acks.unlink(missing_ok=True)
    mine.arm(point, TIMES.get(point, 1))
    job = job_of(mine, package, numbers, point)
    until(lambda: not mine.is_running("chief"), f"the chief dead at {point}: {POINTS[point]}", timeout_s=60)
    mine.kill("chief")  # reap it
    lost = unkept(mine.acks, mine.home / "chief" / "company.sqlite")
    assert not lost, f"a worker was told to forget what is not on disk: {lost[:5]}"
    mine.start_chief()
    listed = [view["id"] for view in mine.client.jobs()["items"] if view["name"] == point]
    if point == "job-before-row":
        assert job is None and not listed
        job = job_of(mine, package, numbers, point)
    else:
        assert len(listed) == 1, "a job whose row was written is there, once"
        job = mine.client.job(listed[0])
    assert job is not None
    assert job.wait(60).state == "done", job.view
    (path,) = job.download(tmp_path / "out")
    assert path.read_bytes() == expected()
    assert [r.index for r in job.results()] == list(range(N)), "every fragment exactly once"
    assert job.view["fragments"]["failed"] == 0
    until(lambda: all(w["slots_busy"] == 0 for w in mine.client.workers()["items"]), "no slot locked by nobody")
    assert not mine.violations.exists(), mine.violations.read_text()[:4000]
