"""merge begins while the last fragment runs, and gets the same results in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.company_processes import RunningCompany, value_of, write_package

SLOW_S = 3.0  # of the last fragment: a blank child for merge needs some 0.1 s of it to begin
SPLIT = "def split(data):\n    yield from range(12)\ndef count(data):\n    return 12\n"
PROCESS = f"import time\ndef process(fragment):\n    time.sleep({SLOW_S} if fragment == 11 else 0.02)\n    return [fragment, time.time()]\n"
MERGE = (
    "import time\ndef merge(results, output):\n    results = iter(results)\n    found = [next(results)]\n    began = time.time()\n"
    "    found += results\n    return [began, found]\n"
)


@pytest.mark.slow
def test_what_is_on_disk_is_merged_while_the_last_fragment_runs(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    job = company.run(write_package(tmp_path / "p", PROCESS, split=SPLIT, merge=MERGE), numbers)
    assert job.state == "done", job.view
    began, found = value_of(job, tmp_path / "out")
    assert [index for index, _ in found] == list(range(12))
    assert began < found[11][1], "merge waited for the last fragment"
