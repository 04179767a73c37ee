"""Packages on disk: whole under their digest or not there."""

from pathlib import Path

import pytest

from company.chief.packages import PackageStore
from company.package import files_digest, processor_digest, processor_files_untrusted
from p2p.base.errors import InvariantBroken

FILES = {
    "split.py": b"def split(data): yield 1\n",
    "merge.py": b"def merge(results, output): return 1\n",
    "processor/main.py": b"def process(fragment): return fragment\n",
    "processor/lib/deep.py": b"",
}


def test_a_package_is_kept_once_with_its_archives(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)
    digest = files_digest(FILES)
    assert store.put(digest, FILES) is True
    assert store.put(digest, FILES) is False
    assert store.files(digest) == FILES
    assert store.verify(digest)
    assert store.digests() == [digest]
    processor = processor_files_untrusted(store.processor_path(digest).read_bytes(), processor_digest(FILES))
    assert sorted(processor) == ["processor/lib/deep.py", "processor/main.py"]
    assert len(store.archive_digest(digest)) == 32
    assert store.directory(digest).stat().st_mode & 0o777 == 0o755
    assert (store.directory(digest) / "split.py").stat().st_mode & 0o777 == 0o644


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)
    digest = files_digest(FILES)
    store.put(digest, FILES)
    (store.directory(digest) / "split.py").write_bytes(b"evil")
    assert not store.verify(digest)
    assert not store.verify(b"x" * 32)


def test_files_under_a_wrong_digest_are_our_own_bug(tmp_path: Path) -> None:
    with pytest.raises(InvariantBroken):
        PackageStore(tmp_path).put(b"x" * 32, FILES)
    assert list(tmp_path.iterdir()) == []


def test_deleting_and_sweeping_leave_nothing(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)
    digest = files_digest(FILES)
    store.put(digest, FILES)
    store.delete(digest)
    store.delete(digest)
    (tmp_path / ".new-abc" / "files").mkdir(parents=True)
    store.sweep()
    assert list(tmp_path.iterdir()) == []
