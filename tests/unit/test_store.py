"""The database: shared commits, isolated failures, crash and full disk, rows that come back as they were."""

import dataclasses
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from company.chief.artifacts import ArtifactSink
from company.chief.commit import Op
from company.chief.secondment import believed
from company.chief.store import (
    Store,
    artifacts,
    datasets,
    failures,
    jobs,
    leases,
    meta,
    opening,
    outcomes,
    packages,
    schema,
    stories,
    tokens,
    uploads,
    workers,
)  # fmt: skip
from company.messages import Artifact
from p2p.base.errors import InvariantBroken, Unavailable, UsageError
from p2p.base.frames import NO_SIZES, Frame

DIGEST = b"d" * 32
PACKAGE = packages.PackageRow(
    digest=DIGEST, name="p", size=1, processor=b"p" * 32, manifest=b"{}", signer=b"k" * 32, signature=b"s" * 64, uploaded=1.0
)  # fmt: skip
DATASET = datasets.DatasetRow(digest=DIGEST, kind="file", name="d", size=3, uploaded=1.0)
JOB = jobs.JobRow(id="j1", name="n", package=DIGEST, dataset=DIGEST, owner="o", params=b"", options=b"{}", created=1.5)


def outcome(first: int, count: int = 10, job: str = "j1") -> outcomes.OutcomeRow:
    return outcomes.OutcomeRow(job, first, count, 1, 1 << 40, "w", 0, 24 + first, 10, b"i" * 16, b"o" * 16, 5, 6, 2.0)


def seed(conn: Connection) -> None:
    packages.save(conn, PACKAGE)
    datasets.save(conn, DATASET)
    jobs.save(conn, JOB)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "company.sqlite")
    await opened.write(seed)
    yield opened
    await opened.aclose()


async def test_concurrent_writes_share_transactions(store: Store) -> None:
    before = store.transactions
    async with trio.open_nursery() as nursery:
        for i in range(200):
            nursery.start_soon(store.write, lambda conn, i=i: outcomes.insert(conn, [outcome(i * 10)]))
    assert len(await store.read(lambda conn: outcomes.load(conn, "j1"))) == 200
    assert store.transactions - before < 20


async def test_an_op_that_raises_fails_only_its_own_caller(store: Store) -> None:
    failed: list[int] = []

    async def write(i: int) -> None:
        def op(conn: Connection) -> None:
            outcomes.insert(conn, [outcome(i * 10)])
            if i % 3 == 0:
                raise ValueError(i)

        try:
            await store.write(op)
        except ValueError as error:
            failed.append(error.args[0])

    async with trio.open_nursery() as nursery:
        for i in range(30):
            nursery.start_soon(write, i)
    assert sorted(failed) == list(range(0, 30, 3))
    rows = await store.read(lambda conn: outcomes.load(conn, "j1"))
    assert [row.first // 10 for row in rows] == [i for i in range(30) if i % 3]


async def test_all_ops_of_one_call_are_one_unit(store: Store) -> None:
    with pytest.raises(IntegrityError):
        await store.write(lambda conn: outcomes.insert(conn, [outcome(0)]), lambda conn: outcomes.insert(conn, [outcome(0)]))
    assert await store.read(lambda conn: outcomes.load(conn, "j1")) == ()
    await store.write(lambda conn: outcomes.insert(conn, [outcome(0)]))


async def test_write_soon_tells_in_order_and_only_after_the_commit(store: Store, tmp_path: Path) -> None:
    told: list[int] = []
    done = trio.Event()

    def committed(i: int) -> None:
        with sqlite3.connect(tmp_path / "company.sqlite") as other:  # another connection sees committed rows only
            assert other.execute("SELECT count(*) FROM outcome WHERE first = ?", (i * 10,)).fetchone() == (1,)
        told.append(i)
        if i == 49:
            done.set()

    for i in range(50):
        store.write_soon(lambda conn, i=i: outcomes.insert(conn, [outcome(i * 10)]), on_committed=lambda i=i: committed(i))
    await done.wait()
    assert told == list(range(50))


async def test_an_error_that_nobody_hears_stops_every_later_write(store: Store) -> None:
    def op(conn: Connection) -> None:
        raise ValueError("lost")

    heard: list[BaseException] = []
    store.write_soon(op, on_failed=heard.append)
    await store.write(lambda conn: None)
    assert [str(e) for e in heard] == ["lost"]
    store.write_soon(op)
    await store.write(lambda conn: None)
    with pytest.raises(ValueError, match="lost"):
        await store.write(lambda conn: None)


async def test_what_was_queued_before_closing_is_written(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "company.sqlite")
    await store.write(seed)
    store.write_soon(lambda conn: outcomes.insert(conn, [outcome(0)]))
    await store.aclose()
    await store.aclose()
    with pytest.raises(UsageError, match="closed"):
        await store.write(lambda conn: None)
    store = Store.open(tmp_path / "company.sqlite")
    assert await store.read(lambda conn: outcomes.load(conn, "j1")) == (outcome(0),)
    await store.aclose()


async def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(Exception, match="readonly"):
        await store.read(lambda conn: jobs.delete(conn, "j1"))
    assert await store.read(lambda conn: jobs.load(conn, "j1")) == JOB


async def test_every_pragma_is_set(store: Store) -> None:
    found: list[object] = []
    names = ("journal_mode", "synchronous", "foreign_keys")
    await store.write(lambda conn: found.extend(conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names))
    assert found == ["wal", 2, 1]
    assert store.path.stat().st_mode & 0o777 == 0o600


async def test_committed_rows_survive_a_killed_process_and_open_ones_do_not(tmp_path: Path) -> None:
    code = f"""
import os, trio
from pathlib import Path
from company.chief.store import Store, outcomes
from tests.unit.test_store import seed, outcome
async def main():
    store = Store.open(Path({str(tmp_path / "company.sqlite")!r}))
    await store.write(seed)
    await store.write(lambda conn: outcomes.insert(conn, [outcome(0)]))
    def die(conn):
        outcomes.insert(conn, [outcome(10)])
        os._exit(9)
    await store.write(die)
trio.run(main)
"""
    done = await trio.run_process([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 9
    store = Store.open(tmp_path / "company.sqlite")
    assert await store.read(lambda conn: outcomes.load(conn, "j1")) == (outcome(0),)
    await store.aclose()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


async def test_a_full_disk_is_said_and_leaves_the_database_whole(small_disk: Path) -> None:
    store = Store.open(small_disk / "company.sqlite")
    await store.write(seed)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (1 << 20))
    kept = 0
    with pytest.raises(Unavailable) as caught:
        for kept in range(1000):
            row = failures.FailureRow(job="j1", fragment=kept, tries=1, cause="c", traceback="t" * 50_000, at=1.0)
            await store.write(lambda conn, row=row: failures.save(conn, [row]))
    assert caught.value.code == "storage-full"
    assert await store.read(lambda conn: failures.count(conn, "j1")) == kept
    ballast.unlink()
    await store.write(lambda conn: outcomes.insert(conn, [outcome(0)]))
    assert await store.read(lambda conn: conn.exec_driver_sql("PRAGMA integrity_check").scalar()) == "ok"
    assert await store.read(lambda conn: outcomes.load(conn, "j1")) == (outcome(0),)
    await store.aclose()


# ---- schema and migration
async def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    await Store.open(tmp_path / "company.sqlite").aclose()
    with sqlite3.connect(tmp_path / "company.sqlite") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UsageError, match="schema 9999") as caught:
        Store.open(tmp_path / "company.sqlite")
    assert caught.value.code == "schema-newer"


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "company.sqlite").write_bytes(b"not a database, surely" * 100)
    with pytest.raises(UsageError, match="cannot be opened"):
        Store.open(tmp_path / "company.sqlite")


def test_a_fresh_database_needs_no_alembic(tmp_path: Path) -> None:
    code = f"""
import sys, pathlib
from company.chief.store import Store
for _ in range(2):
    Store.open(pathlib.Path({str(tmp_path / "a.sqlite")!r}))
print("alembic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "False"


def test_an_older_schema_is_migrated_in_one_transaction(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(opening.MIGRATIONS, folder)
    step = 'revision = "{0}"\ndown_revision = "{1}"\nfrom alembic import op\ndef upgrade():\n    op.execute("{2}")\n'
    last = schema.REVISIONS[-1]
    (folder / "versions" / "0998_more.py").write_text(step.format("0998", last, "CREATE TABLE more (a INTEGER)"))
    (folder / "versions" / "0999_bad.py").write_text(step.format("0999", "0998", "CREATE TABLE nonsense ("))
    engine = opening.make_engine(tmp_path / "a.sqlite", is_writer=True)
    with engine.connect() as conn:
        opening.bring_up_to_date(conn)
        with pytest.raises(Exception, match="incomplete input"):
            opening.bring_up_to_date(conn, revisions=(last, "0998", "0999"), folder=folder)
        tables = "SELECT name FROM sqlite_master WHERE name = 'more'"
        assert conn.exec_driver_sql(tables).all() == []
        (folder / "versions" / "0999_bad.py").unlink()
        opening.bring_up_to_date(conn, revisions=(last, "0998"), folder=folder)
        assert conn.exec_driver_sql(tables).all() == [("more",)]
        assert conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0998"
    engine.dispose()


def test_revisions_and_migration_files_are_the_same_list() -> None:
    files = sorted(p.name.split("_")[0] for p in (opening.MIGRATIONS / "versions").glob("[0-9]*.py"))
    assert files == list(schema.REVISIONS)


# ---- rows
async def test_boot_numbers_grow_and_so_do_tokens(tmp_path: Path) -> None:
    seen: list[int] = []
    for _ in range(3):
        store = Store.open(tmp_path / "company.sqlite")
        seen.append(await store.next_boot())
        await store.aclose()
    assert seen == [1, 2, 3]
    assert meta.first_token(2) > meta.first_token(1) + (1 << 40) - 2
    with pytest.raises(InvariantBroken):
        meta.first_token(meta.MAX_BOOT + 1)


async def test_rows_come_back_as_they_were_saved(store: Store) -> None:
    job = dataclasses.replace(JOB, state="running", paused=True, reason=b"{}", fragments_total=1 << 40, split_digest=b"s", result_size=5)
    failure = failures.FailureRow(job="j1", fragment=7, tries=3, final=True, cause="crashed", log_tail=b"\xff", at=3.0)
    worker = workers.WorkerRow(id="w", pubkey=b"k" * 32, name="n", state="idle", machine=b"m", joined=1.0, last_seen=2.0)
    token = tokens.TokenRow(id="t", kind="join", secret_hash=b"h", role="worker", created=1.0, uses_left=2, expires=9.0)
    upload = uploads.UploadRow(id="u", principal="p", meta=b"{}", length=None, offset=4, created=1.0, expires=2.0)
    lease = leases.LeaseRow(token=(1 << 60) + 1, job="j1", first=0, count=5, attempt=1, worker="w", slot=0, at=1.0)
    artifact = artifacts.ArtifactRow("j1", 7, "plot.png", 3, DIGEST)
    principal = tokens.PrincipalRow(id="p", kind="person", role="owner", name="me", created=1.0)

    def write(conn: Connection) -> None:
        jobs.save(conn, job)
        failures.save(conn, [failure])
        failures.save_input(conn, "j1", 7, b"input")
        failures.save(conn, [failure])  # a later try does not lose the input
        workers.save(conn, [worker])
        tokens.save(conn, token)
        tokens.save_principal(conn, principal)
        uploads.save(conn, upload)
        leases.save(conn, [lease])
        artifacts.save(conn, [artifact])
        meta.put(conn, meta.COMPANY, b"id")

    await store.write(write)

    def check(conn: Connection) -> None:
        assert jobs.load_all(conn) == (job,)
        assert failures.load(conn, "j1") == (failure,)
        assert failures.load_input(conn, "j1", 7) == b"input"
        assert failures.with_input(conn, "j1") == {7}
        assert workers.load_all(conn) == (worker,)
        assert workers.load_by_key(conn, b"k" * 32) == worker
        assert tokens.load(conn, "t") == token
        assert tokens.load_principals(conn) == (principal,)
        assert uploads.load_all(conn) == (upload,)
        assert leases.load_all(conn) == (lease,)
        assert artifacts.load_one(conn, "j1", 7, "plot.png") == artifact
        assert packages.load(conn, DIGEST) == PACKAGE
        assert datasets.load_all(conn) == (DATASET,)
        assert datasets.references(conn) == {DIGEST: 1}
        assert meta.get(conn, meta.COMPANY) == b"id"

    await store.read(check)


async def test_deleting_a_job_deletes_all_that_belongs_to_it_and_frees_its_dataset(store: Store) -> None:
    with pytest.raises(IntegrityError):
        await store.write(lambda conn: datasets.delete(conn, DIGEST))

    def fill(conn: Connection) -> None:
        outcomes.insert(conn, [outcome(i * 10) for i in range(300)])
        stories.append(conn, [stories.StoryRow("j1", 1, 1.0, "k", None, b"")])
        leases.save(conn, [leases.LeaseRow(token=1, job="j1", first=0, count=5, attempt=1, worker="w", slot=0, at=1.0)])

    await store.write(fill)
    await store.write(lambda conn: jobs.delete(conn, "j1"))
    for table in ("outcome", "story", "lease"):
        assert await store.read(lambda conn, t=table: conn.exec_driver_sql(f"SELECT count(*) FROM {t}").scalar()) == 0
    await store.write(lambda conn: datasets.delete(conn, DIGEST), lambda conn: packages.delete(conn, DIGEST))


async def test_outcomes_say_what_is_done_and_where_segments_end(store: Store) -> None:
    rows = [dataclasses.replace(outcome(i * 10), segment=i // 200, offset=24 + i, log_offset=i * 5, log_len=i % 2) for i in range(300)]
    await store.write(lambda conn: outcomes.insert(conn, rows))

    def check(conn: Connection) -> None:
        assert outcomes.load(conn, "j1") == tuple(rows)
        assert outcomes.load(conn, "j1", start=2905) == tuple(rows[290:])
        assert outcomes.holding(conn, "j1", 25) == rows[2]
        assert outcomes.holding(conn, "j1", 3000) is None
        assert outcomes.committed_ends(conn, "j1") == {0: 24 + 199 + 10, 1: 24 + 299 + 10}
        assert outcomes.log_end(conn, "j1") == 299 * 5 + 1
        assert len(outcomes.with_logs(conn, "j1")) == 150

    await store.read(check)


async def test_a_line_of_a_job_that_was_removed_goes_with_it_and_its_neighbours_stay(store: Store) -> None:
    """One that failed ended the chief: a job was removed before its last line was written."""
    rows = [stories.StoryRow(job, seq, 1.0, "k", None, b"") for seq, job in enumerate(("j1", "j-gone", "j1"))]
    await store.write(lambda conn: stories.append(conn, rows))
    assert [r.seq for r in await store.read(lambda conn: stories.load(conn, "j1"))] == [0, 2]
    assert await store.read(lambda conn: stories.load(conn, "j-gone")) == ()


async def test_who_is_believed_in_a_job_is_forgotten_with_it_and_not_written_after_it(store: Store) -> None:
    await store.write(lambda conn: believed.mark(conn, "j1", "co-a"), lambda conn: believed.mark(conn, "j1", "co-b"))
    assert await store.read(lambda conn: believed.believed_in(conn, "j1")) == {"co-a", "co-b"}
    await store.write(lambda conn: jobs.delete(conn, "j1"))
    # a check that came out while the job was being removed
    await store.write(lambda conn: believed.mark(conn, "j1", "co-a"), lambda conn: believed.unmark(conn, "j1", {"co-b"}))
    assert await store.read(lambda conn: meta.get(conn, meta.BELIEVED + "j1")) is None, "nothing is left of it for ever"


async def test_an_artifact_of_a_job_that_was_removed_while_it_came_is_dropped(store: Store, tmp_path: Path) -> None:
    queued: list[Op] = []
    sink = ArtifactSink(lambda job: tmp_path / job, queued.extend)
    for job in ("j-gone", "j1"):
        await sink.take(Artifact(1, job, 0, "plot.png", 0, True), Frame([], NO_SIZES, memoryview(b"png")))
    await store.write(*queued)
    assert [r.name for r in await store.read(lambda conn: artifacts.load(conn, "j1"))] == ["plot.png"]
    assert await store.read(lambda conn: artifacts.load(conn, "j-gone")) == ()


async def test_a_story_keeps_its_newest_events(store: Store) -> None:
    def row(seq: int) -> stories.StoryRow:
        return stories.StoryRow("j1", seq, 1.0, "k", seq - 1, b"b")

    await store.write(lambda conn: stories.append(conn, [row(i * 3) for i in range(1, 8)], keep=5))
    await store.write(lambda conn: stories.append(conn, [row(30)], keep=5))
    assert [r.seq for r in await store.read(lambda conn: stories.load(conn, "j1"))] == [12, 15, 18, 21, 30]
    assert [r.seq for r in await store.read(lambda conn: stories.load(conn, "j1", limit=2))] == [21, 30]
    assert [r.seq for r in await store.read(lambda conn: stories.load(conn, "j1", after_seq=18))] == [21, 30]
    assert await store.read(stories.last_seq) == 30


async def test_a_token_is_used_as_often_as_it_says_and_not_after_its_time(store: Store) -> None:
    row = tokens.TokenRow(id="t", kind="join", secret_hash=b"h", role="worker", created=1.0, uses_left=2, expires=9.0)
    await store.write(lambda conn: tokens.save(conn, row), lambda conn: tokens.save(conn, dataclasses.replace(row, id="r", revoked=2.0)))
    used: list[bool] = []
    for token, at in (("t", 9.5), ("r", 3.0), ("t", 3.0), ("t", 4.0), ("t", 5.0), ("x", 1.0)):
        await store.write(lambda conn, token=token, at=at: used.append(tokens.use_one(conn, token, at=at)))
    assert used == [False, False, True, True, False, False]
    after = await store.read(lambda conn: tokens.load(conn, "t"))
    assert after is not None
    assert (after.uses_left, after.last_used) == (0, 4.0)
