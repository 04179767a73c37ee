"""What is synced leaves the page cache where it is large and the disk fast, and only there."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from company.chief.page_cache import LET_GO_BYTES, is_worth_it, let_go, sync_and_let_go


def test_only_large_pieces_on_a_fast_disk_leave() -> None:
    assert is_worth_it(LET_GO_BYTES, 0.005)
    assert not is_worth_it(LET_GO_BYTES - 1, 0.0)
    assert not is_worth_it(LET_GO_BYTES, 0.01)  # 105 MB/s: reading it once more would cost more than it saves
    assert is_worth_it(100 * LET_GO_BYTES, 0.5)


def test_what_was_let_go_is_on_the_disk_and_not_in_memory(tmp_path: Path) -> None:
    if subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True).stdout.strip() == "tmpfs":
        pytest.skip("what lies in a tmpfs is nowhere but in memory")
    whole = os.urandom(LET_GO_BYTES)
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, whole, 0)
        sync_and_let_go(fd, 0, 1)  # too small to leave, whatever the disk is
        try:
            assert os.preadv(fd, [bytearray(4096)], 0, os.RWF_NOWAIT) == 4096
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                pytest.skip("this file system does not say what it has in memory")
            raise
        let_go(fd, 0, LET_GO_BYTES)
        with pytest.raises(BlockingIOError):
            os.preadv(fd, [bytearray(4096)], 0, os.RWF_NOWAIT)
        assert os.pread(fd, LET_GO_BYTES, 0) == whole
    finally:
        os.close(fd)
