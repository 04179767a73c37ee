"""A dataset is the same stream of bytes everywhere, from any offset, and its digest is the chief's."""

import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from company.client.source import BLOCK_BYTES, Source, open_source
from company.errors import CompanyError, ConflictError
from p2p.base.errors import UsageError
from tests.support.fake_chief_http import tree_digest


def content(source: Source, start: int = 0) -> bytes:
    return b"".join(bytes(block) for block in source.blocks(start))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    (root / "b" / "empty").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"alpha")
    (root / "b" / "zero").write_bytes(b"")
    (root / "b" / "big.bin").write_bytes(os.urandom(2_500_000))
    (root / ("long" * 40 + "-ü.txt")).write_text("long name")
    return root


def test_a_tree_is_a_tar_of_the_announced_size_that_any_tar_reads(tree: Path) -> None:
    source = open_source(tree)
    data = content(source)
    assert (source.kind, source.name, len(data)) == ("tree", "corpus", source.size)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        big = archive.extractfile("b/big.bin")
        assert big is not None and big.read() == (tree / "b" / "big.bin").read_bytes()
    assert names == sorted(names)
    assert {"a.txt", "b", "b/empty", "b/zero", "long" * 40 + "-ü.txt"} <= set(names)


def test_a_tree_does_not_depend_on_times_modes_or_order(tree: Path, tmp_path: Path) -> None:
    first = content(open_source(tree))
    os.utime(tree / "a.txt", (1, 1))
    (tree / "a.txt").chmod(0o700)
    assert content(open_source(tree)) == first


def test_the_digest_is_the_one_that_the_chief_makes(tree: Path) -> None:
    source = open_source(tree)
    assert source.digest() == tree_digest(content(source))


def test_the_digest_of_an_empty_tree_and_of_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert open_source(tmp_path / "dir").digest() == tree_digest(content(open_source(tmp_path / "dir"))) == empty
    assert open_source(tmp_path / "file").digest() == empty
    assert content(open_source(tmp_path / "file")) == b""


@pytest.mark.parametrize("start", [0, 1, 511, 512, 513, 700_000, 2_400_000])
def test_a_stream_may_begin_anywhere(tree: Path, start: int) -> None:
    source = open_source(tree)
    assert content(source, start) == content(source)[start:]
    file = open_source(tree / "b" / "big.bin")
    assert content(file, start) == content(file)[start:]


def test_the_end_of_a_stream_is_an_empty_rest(tree: Path) -> None:
    source = open_source(tree)
    assert content(source, source.size) == b""
    assert content(source, source.size - 5) == bytes(5)


def test_memory_stays_flat(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    source = open_source(path)
    tracemalloc.start()
    source.digest()
    for block in source.blocks():
        assert len(block) <= BLOCK_BYTES
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 << 20


def test_a_file_that_changes_while_it_is_read_is_not_sent_as_something_else(tree: Path) -> None:
    shorter, longer = open_source(tree), open_source(tree / "a.txt")
    (tree / "b" / "big.bin").write_bytes(b"less")
    with pytest.raises(ConflictError, match=r"big\.bin changed"):
        content(shorter)
    (tree / "a.txt").write_bytes(b"alphabet")
    with pytest.raises(ConflictError, match=r"a\.txt changed"):
        longer.digest()


def test_a_file_that_vanishes_is_named(tree: Path) -> None:
    source = open_source(tree)
    (tree / "a.txt").unlink()
    with pytest.raises(CompanyError, match=r"a\.txt cannot be read"):
        content(source)


def test_links_out_of_the_tree_and_special_files_are_refused(tree: Path) -> None:
    (tree / "inside").symlink_to(tree / "a.txt")
    assert b"inside" in content(open_source(tree))
    (tree / "outside").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="outside is a link"):
        open_source(tree)
    (tree / "outside").unlink()
    os.mkfifo(tree / "pipe")
    with pytest.raises(UsageError, match="pipe is neither"):
        open_source(tree)


def test_what_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a file nor a directory"):
        open_source(tmp_path / "nothing")
