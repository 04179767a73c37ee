"""Who works on a job, and who worked for one that is over, as it is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import to_builtins
from sqlalchemy import Connection

from company import views
from company.chief.ended_jobs import load_jobs
from company.chief.secondment import worked
from company.chief.secondment.believed import mark, unmark
from company.chief.secondment.foreign import Worked
from company.chief.secondment.showing import show_shares
from company.chief.store import Store, datasets, jobs, meta, outcomes, packages
from company.cli.job_view import borrowed_text, details

DIGEST = b"d" * 32
LENDER, OTHER = "co-aaaaaaaaaaaaaaaa", "co-bbbbbbbbbbbbbbbb"
GUEST, SECOND, THIRD = "g-aaaaaaaaaaaaaaaa-1", "g-aaaaaaaaaaaaaaaa-2", "g-bbbbbbbbbbbbbbbb-1"
JOB = jobs.JobRow(
    id="j-1", name="n", package=DIGEST, dataset=DIGEST, owner="o", params=b"", options=b"{}", created=1.5, state="done", finished=9.0
)  # fmt: skip


def result(first: int, count: int, worker: str) -> outcomes.OutcomeRow:
    return outcomes.OutcomeRow("j-1", first, count, 1, 1 << 40, worker, 0, 24 + first, 10, b"i" * 16, b"o" * 16, 2_000_000, 6, 2.0)


def seed(conn: Connection) -> None:
    packages.save(
        conn, packages.PackageRow(
            digest=DIGEST, name="p", size=1, processor=b"p" * 32, manifest=b"{}", signer=b"k" * 32, signature=b"s" * 64, uploaded=1.0
        )
    )  # fmt: skip
    datasets.save(conn, datasets.DatasetRow(digest=DIGEST, kind="file", name="d", size=3, uploaded=1.0))
    jobs.save(conn, JOB)
    for guest, contract in ((GUEST, "c1"), (SECOND, "c2"), (THIRD, "c3"), (GUEST, "c9")):  # named once: the first word counts
        worked.note(conn, "j-1", guest, contract)
    outcomes.insert(
        conn, [result(0, 5, "w-own"), result(5, 20, GUEST), result(25, 10, GUEST), result(35, 5, SECOND), result(40, 10, THIRD)]
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "company.sqlite")
    await opened.write(seed)
    yield opened
    await opened.aclose()


def test_a_borrowed_slot_is_told_with_its_company_and_what_waits_to_be_checked() -> None:
    row = {"company": "co-abc", "contract": "63" * 32, "slots": 2, "results": 40, "provisional": 7}
    assert borrowed_text(row) == "co-abc: 2 slots, 40 results, 7 of them wait to be checked, contract 6363636363636363"
    assert borrowed_text(row | {"provisional": 0, "contract": ""}) == "co-abc: 2 slots, 40 results"


async def test_who_worked_for_a_job_that_is_over_is_read_from_its_rows_after_a_restart(store: Store) -> None:
    (ended,), live = await store.read(load_jobs)
    assert not live and (ended.done, ended.failed) == (50, 0)
    assert ended.worked == (Worked(LENDER, "c1", 30, 4_000_000), Worked(LENDER, "c2", 5, 2_000_000), Worked(OTHER, "c3", 10, 2_000_000))
    assert await store.read(lambda conn: worked.load(conn, "j-1")) == ended.worked


async def test_a_company_whose_results_were_taken_back_is_shown_with_nothing(store: Store) -> None:
    await store.write(lambda conn: mark(conn, "j-1", OTHER), lambda conn: unmark(conn, "j-1", {LENDER}))
    found = await store.read(lambda conn: worked.load(conn, "j-1"))
    assert found == (Worked(LENDER, "c1", 0, 0), Worked(LENDER, "c2", 0, 0), Worked(OTHER, "c3", 10, 2_000_000))


async def test_what_is_noted_of_a_job_goes_with_it_and_has_a_bound(store: Store) -> None:
    def many(conn: Connection) -> None:
        for number in range(3, worked.MAX_NOTED + 10):
            worked.note(conn, "j-1", f"g-cccccccccccccccc-{number}", "c4")

    await store.write(many)
    assert len(await store.read(lambda conn: worked.guests_of(conn, "j-1"))) == worked.MAX_NOTED
    await store.write(lambda conn: jobs.delete(conn, "j-1"), lambda conn: worked.note(conn, "j-1", GUEST, "c1"))
    assert await store.read(lambda conn: meta.get(conn, meta.WORKED + "j-1")) is None


def test_own_and_borrowed_shares_of_a_job_that_is_over_are_told() -> None:
    view = views.JobView(
        id="j-1", name="n", state="done", package="p", dataset="d", fragments=views.CountsView(total=50, done=50), results_own=50
    )
    show_shares(view, [Worked(LENDER, "63" * 32, 35, 6_000_000), Worked(OTHER, "", 0, 0)])
    assert view.results_own == 15
    text = details(to_builtins(view), 100.0)
    assert "own slots 15 results (30 %)" in text
    assert f"borrowed  {LENDER}: 35 results (70 %), 6.0 s of run time, contract 6363636363636363" in text
    assert f"borrowed  {OTHER}: no result of it counts" in text
    show_shares(view, [])
    assert view.results_own == 50 and "borrowed" not in details(to_builtins(view), 100.0)
