"""What a merge left behind."""

import os
from pathlib import Path

from company.sandbox import take_output


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
