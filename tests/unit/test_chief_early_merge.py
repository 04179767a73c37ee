"""When the machine says that merge may begin: near the end, and where there is much to merge as soon as that takes longer than the rest."""

from __future__ import annotations

import pytest

from company.chief.jobrun import MERGE_BYTES_PER_S, MUCH_BYTES, NEARLY_S, JobRun
from company.chief.specs import JobSpec

SLOTS = 2
SPEC = JobSpec(id="j-1", owner="ann", package=b"p", processor=b"q", dataset=b"d", name="j-1")


def job_with(*, done: int, each_s: float, result_bytes: int = 0, total: int | None = None) -> JobRun:
    job = JobRun(SPEC, total=total, produced=done + 10)
    job.done.add(0, done)
    job.estimator.observe(done, each_s * done * 1e6)
    job.result_bytes = result_bytes
    return job


@pytest.mark.parametrize(("left", "may"), [(1, True), (19, True), (21, False)])
def test_small_results_are_merged_when_a_second_of_work_is_left(left: int, may: bool) -> None:
    job = job_with(done=100, each_s=NEARLY_S / 10, total=100 + left)  # two slots: 20 fragments a second
    assert job.may_begin_merge(SLOTS) is may


def test_small_results_of_a_job_of_unknown_length_wait_for_it() -> None:
    assert not job_with(done=100, each_s=1e-6, result_bytes=MUCH_BYTES - 1).may_begin_merge(SLOTS)
    assert job_with(done=100, each_s=1e-6, result_bytes=MUCH_BYTES).may_begin_merge(SLOTS), "120 more are expected, in 60 us"


@pytest.mark.parametrize(("merge_s", "may"), [(9.0, False), (11.0, True)])
def test_large_results_are_merged_as_soon_as_that_takes_longer_than_what_is_left(merge_s: float, may: bool) -> None:
    job = job_with(done=100, each_s=1.0, total=120, result_bytes=int(merge_s * MERGE_BYTES_PER_S))  # ten seconds are left
    assert job.may_begin_merge(SLOTS) is may


def test_much_of_which_something_has_to_be_believed_yet_is_not_merged_early() -> None:
    job = job_with(done=100, each_s=1e-6, result_bytes=MUCH_BYTES)
    job.foreign.came("c-1", [(0, 1)])
    assert not job.may_begin_merge(SLOTS)


def test_a_job_that_starts_over_has_merged_nothing() -> None:
    job = job_with(done=100, each_s=1e-6, result_bytes=MUCH_BYTES)
    job.merge_prepared = True
    job.start_over(0)
    assert (job.result_bytes, job.merge_prepared, job.may_begin_merge(SLOTS)) == (0, False, False)
