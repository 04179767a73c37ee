"""Backup and restore: what comes out is what went in, or nothing does."""

import io
import tarfile
from pathlib import Path

import pytest

from company.chief.backup import MANIFEST, backup, restore_backup, write_backup
from company.chief.datasets import DatasetStore
from company.chief.segments import SegmentStore
from company.chief.store import Store, meta, outcomes, tokens, uploads
from company.paths import ChiefHome
from p2p.base.errors import UsageError
from tests.unit.test_datasets_disk import SHARE, stream
from tests.unit.test_segments import JOB, items_at, put
from tests.unit.test_store import outcome, seed


async def make_home(root: Path) -> ChiefHome:
    home = ChiefHome(root).create()
    store = Store.open(home.database)
    await store.next_boot()
    await store.write(seed, lambda conn: outcomes.insert(conn, [outcome(0)]))
    await store.write(
        lambda conn: tokens.save(conn, tokens.TokenRow(id="s", kind="session", secret_hash=b"h", role="owner", created=1.0)),
        lambda conn: uploads.save(conn, uploads.UploadRow(id="u", principal="p", meta=b"{}", length=1, created=1.0, expires=2.0)),
    )
    await store.aclose()
    (home.identity / "chief.key").write_bytes(b"secret")
    await DatasetStore(home.datasets, home.uploads).receive(stream(b"data"), kind="file", share=SHARE)
    return home


async def test_a_restored_home_has_the_rows_files_and_keys_and_new_boot_numbers(tmp_path: Path) -> None:
    home = await make_home(tmp_path / "old")
    dirs = home.job("j1").create()
    segments = SegmentStore(dirs.results, JOB)
    place = put(segments, 0, [b"result"])
    segments.sync()
    put(segments, 1, [b"never synced"])
    written = write_backup(home, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    assert written.as_dict()["files"] == 4
    new = ChiefHome(tmp_path / "new" / "chief")
    assert restore_backup(tmp_path / "b.tar", new).digest == written.digest
    assert new.root.stat().st_mode & 0o777 == 0o700
    assert (new.identity / "chief.key").read_bytes() == b"secret"
    assert (new.identity / "chief.key").stat().st_mode & 0o777 == 0o600
    store = Store.open(new.database)
    assert await store.read(lambda conn: outcomes.load(conn, "j1")) == (outcome(0),)
    assert await store.read(uploads.load_all) == ()
    assert await store.read(tokens.load_all) == ()
    assert await store.next_boot() == 1 + meta.RESTORE_SKIPS_BOOTS + 1
    await store.aclose()
    restored = SegmentStore(new.job("j1").results, JOB)
    assert restored.recover({0: place.offset + place.length}).damaged == ()
    assert items_at(restored, place) == [b"result"]
    assert [p.name for p in tmp_path.glob("**/*.part")] + [p.name for p in tmp_path.glob("**/.restoring*")] == []


async def test_a_backup_beside_a_writing_chief_is_one_moment(tmp_path: Path) -> None:
    home = await make_home(tmp_path / "old")
    store = Store.open(home.database)
    store.write_soon(lambda conn: outcomes.insert(conn, [outcome(10)]))  # queued, then in the WAL only
    assert (await backup(home, store, tmp_path / "b.tar"))["files"] == 3
    await store.write(lambda conn: outcomes.insert(conn, [outcome(20)]))
    await store.aclose()
    restore_backup(tmp_path / "b.tar", ChiefHome(tmp_path / "new"))
    store = Store.open(tmp_path / "new" / "company.sqlite")
    assert [row.first for row in await store.read(lambda conn: outcomes.load(conn, "j1"))] == [0, 10]
    await store.aclose()


async def test_neither_a_home_nor_a_backup_is_ever_overwritten(tmp_path: Path) -> None:
    home = await make_home(tmp_path / "old")
    write_backup(home, tmp_path / "b.tar")
    with pytest.raises(UsageError, match="exists already"):
        write_backup(home, tmp_path / "b.tar")
    with pytest.raises(UsageError, match="not empty"):
        restore_backup(tmp_path / "b.tar", home)
    with pytest.raises(UsageError, match="holds no company"):
        write_backup(ChiefHome(tmp_path / "none"), tmp_path / "c.tar")
    empty = ChiefHome(tmp_path / "locked")
    empty.root.mkdir()
    (empty.root / "lock").touch()  # whoever restores holds the home's lock
    restore_backup(tmp_path / "b.tar", empty)


def rewritten(path: Path, *, without: str = "", change: str = "", extra: str = "") -> None:
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            members.append((member, file.read()))
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            if member.name == without:
                continue
            if member.name == change:
                data = data[:-1] + bytes([data[-1] ^ 1])
            archive.addfile(member, io.BytesIO(data))
        if extra:
            archive.addfile(tarfile.TarInfo(extra), io.BytesIO())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"without": MANIFEST}, "cut off"),
        ({"without": "identity/chief.key"}, "chief.key is missing"),
        ({"change": "identity/chief.key"}, "chief.key is not what was backed up"),
        ({"change": "company.sqlite"}, "company.sqlite is not what"),
        ({"extra": "identity/planted"}, "planted is not what"),
        ({"extra": "../../planted"}, r"'\.\.'"),
    ],
)
async def test_a_damaged_backup_restores_nothing(tmp_path: Path, damage: dict[str, str], said: str) -> None:
    home = await make_home(tmp_path / "old")
    write_backup(home, tmp_path / "b.tar")
    rewritten(tmp_path / "b.tar", **damage)
    with pytest.raises(UsageError, match=said) as caught:
        restore_backup(tmp_path / "b.tar", ChiefHome(tmp_path / "new"))
    assert caught.value.code == "backup-damaged"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar", "old"]
