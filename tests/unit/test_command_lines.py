"""Commands made of a template and a line: every mark, quoting that nothing gets through, the log and what it says is done."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from company.client.command_lines import (
    CommandResult,
    command_of,
    done_before,
    exit_code_of,
    fill,
    log_line,
    relative_path,
    split_arguments,
)  # fmt: skip
from p2p.base.errors import UsageError

LINE = "some dir/a.b/file.tar.gz"


@pytest.mark.parametrize(
    ("mark", "value"),
    [
        ("{}", LINE), ("{.}", "some dir/a.b/file.tar"), ("{/}", "file.tar.gz"), ("{//}", "some dir/a.b"), ("{/.}", "file.tar"),
        ("{#}", "7"),
    ],
)  # fmt: skip
def test_each_mark_is_one_word(mark: str, value: str) -> None:
    assert shlex.split(command_of(f"x {mark} y", LINE, 7)) == ["x", value, "y"]


def test_names_without_extension_or_folder() -> None:
    assert fill("{.} {/.} {//} {/}", "plain", 1) == "plain plain . plain"
    assert fill("{.} {/.}", ".hidden", 1) == ".hidden .hidden"
    assert fill("{.}", "a.b/c", 1) == "a.b/c"
    assert fill("{unknown} {1} ${x}", "v", 1) == "{unknown} {1} ${x}"


def test_without_a_mark_the_line_comes_last_and_without_a_command_it_is_one() -> None:
    assert command_of("gzip -9", "a b", 1) == "gzip -9 'a b'"
    assert command_of("", "echo a; echo b", 1) == "echo a; echo b"
    assert split_arguments(["echo", "{}", ":::", "a", "b"]) == ("echo {}", ["a", "b"])
    assert split_arguments(["echo"]) == ("echo", None)
    with pytest.raises(UsageError, match="may stand once"):
        split_arguments(["echo", ":::", "a", ":::", "b"])


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_no_line_is_more_than_one_word_to_a_shell(line: str) -> None:
    assert shlex.split(command_of("x {} {.}", line, 1))[:2] == ["x", line]


def test_a_real_shell_agrees() -> None:
    line = "$(touch /tmp/never) `id` 'q' \"d\" \\ ;&|\n*"
    done = subprocess.run(["/bin/sh", "-c", command_of("printf %s {}", line, 1)], capture_output=True, text=True, check=True)
    assert done.stdout == line


@pytest.mark.parametrize("line", ["/etc/passwd", "../x", "a/../../x", ".", "a/.."])
def test_a_file_outside_the_folder_is_refused(line: str) -> None:
    with pytest.raises(UsageError) as found:
        relative_path("{}", line, 3)
    assert found.value.code == "file-outside" and "line 3" in found.value.text


def test_files_below_the_folder_keep_their_path() -> None:
    assert relative_path("{.}.out", "a/./b/../c.txt", 1) == "a/c.out"


def test_the_log_says_what_is_done_and_the_last_word_counts() -> None:
    good, bad = CommandResult(0, stdout=b"abc", started=1.5, seconds=0.25, worker="w-1"), CommandResult(3)
    killed = CommandResult(0, signal=9)
    lines = ["Seq\t…\n", *(log_line(n, "x\ty\nz", r, sent_bytes=5) for n, r in ((1, good), (2, bad), (3, killed), (4, bad), (4, good)))]
    assert lines[1] == "1\tw-1\t1.500\t     0.250\t5\t3\t0\t0\tx\\ty\\nz\n"
    assert done_before("".join(lines) + "torn line") == {1, 4}


def test_the_exit_code_counts_failures_up_to_a_hundred() -> None:
    assert [exit_code_of(n) for n in (0, 1, 100, 101, 5000)] == [0, 1, 100, 101, 101]
