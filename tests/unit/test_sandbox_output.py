"""What a merge left behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from company.sandbox import take_output
from company.sandbox.output import descendants, mount_id, tmp_entries


def test_only_plain_files_stay(tmp_path: Path) -> None:
    out, secret = tmp_path / "out", tmp_path / "secret"
    (out / "sub").mkdir(parents=True)
    secret.write_text("x")
    (out / "a.txt").write_text("abc")
    (out / "sub" / "b").write_text("")
    (out / "sub" / "b").chmod(0o4777)
    (out / "link").symlink_to(secret)
    (out / "sub" / "folder").symlink_to(tmp_path)
    os.mkfifo(out / "pipe")
    os.link(secret, out / "hard")
    assert take_output(out) == [("a.txt", 3), ("sub/b", 0)]
    assert sorted(p.name for p in out.rglob("*")) == ["a.txt", "b", "sub"]
    assert (out / "sub" / "b").stat().st_mode & 0o7777 == 0o755
    assert secret.read_text() == "x" and secret.stat().st_nlink == 1


def test_a_file_that_nobody_may_read_becomes_readable(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0)
    take_output(tmp_path)
    assert (tmp_path / "a").stat().st_mode & 0o600 == 0o600


MOUNTINFO = rb"""21 1 0:35 / / ro - tmpfs tmpfs ro
30 21 8:1 /jobs/7/output /output rw - ext4 /dev/a rw
31 21 8:1 /x /a\040b rw - ext4 /dev/a rw
32 21 0:36 / /output2 rw - tmpfs tmpfs rw
33 21 0:37 / /output/over rw - tmpfs tmpfs rw
34 21 0:38 / /a\040b rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "number"), [("/output", 30), ("/output/d", 30), ("/output/over/f", 33), ("/tmp", 21), ("/a b/c", 34), ("/output22", 21)]
)
def test_mount_of_a_path_is_the_one_nearest_above_it_and_laid_last(path: str, number: int) -> None:
    assert mount_id(MOUNTINFO, path.encode()) == number


def test_a_child_that_has_no_mounts_of_its_own_yet_is_not_charged_with_the_machines_files() -> None:
    """Seen: a child that was still starting, ended for the 600,000 files of the machine's own /tmp."""
    with subprocess.Popen(["/bin/sh", "-c", "sleep 60; true"]) as process:
        try:
            deadline = time.monotonic() + 30
            while not (below := descendants(process.pid)):
                assert time.monotonic() < deadline
            assert os.path.samestat(os.stat(f"/proc/{below[0]}/root/"), os.stat("/"))
            assert tmp_entries(process.pid) == 0
        finally:
            for pid in (*below, process.pid):
                os.kill(pid, signal.SIGKILL)
