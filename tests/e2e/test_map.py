"""`company map`: a command per line on a real company, as GNU parallel would run them here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from company.cli.app import run
from tests.support.company_processes import COMPANY, RunningCompany, until

LIMIT_S = 120


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Mapper:
    """`company map` in this process, in a folder: what starting Python costs is tested elsewhere."""

    def __init__(self, home: Path, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self._home, self._folder, self._captured = home, folder, captured

    def __call__(self, *arguments: str, lines: str = "") -> Done:
        source = self._folder / ".lines"
        source.write_text(lines)
        self._captured.readouterr()
        code = run(["map", "--home", str(self._home), "-a", str(source), *arguments])
        return Done(code, *self._captured.readouterr())


@pytest.fixture
def run_map(company: RunningCompany, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Mapper:
    for name in [name for name in os.environ if name.startswith("COMPANY_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Mapper(company.home, tmp_path, capsys)


def test_outputs_come_apart_and_in_order_and_the_exit_code_counts_failures(run_map: Mapper, tmp_path: Path) -> None:
    script = "test {#} = 1 && sleep 0.5; echo out {}; echo err {} >&2; test {#} != 2 -a {#} != 4"
    done = run_map("--joblog", "log", script, lines="a b\n$(id)\nc;d\n'e\nf\n")
    assert done.stdout.splitlines() == ["out a b", "out $(id)", "out c;d", "out 'e", "out f"]
    assert [line for line in done.stderr.splitlines() if line.startswith("err")] == ["err a b", "err $(id)", "err c;d", "err 'e", "err f"]
    assert done.returncode == 2
    head, *rest = (line.split("\t") for line in (tmp_path / "log").read_text().splitlines())
    assert head == ["Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command"]
    by_number = {int(cells[0]): cells for cells in rest}
    assert [by_number[n][6] for n in range(1, 6)] == ["0", "1", "0", "1", "0"]
    assert by_number[1][1].startswith("w-") and float(by_number[1][3]) >= 0.5


def test_lines_are_streamed_and_a_pipe_that_stays_open_holds_nothing_up(company: RunningCompany, tmp_path: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COMPANY_")}
    command = [*COMPANY, "map", "--home", str(company.home), "echo {#}:{}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, bufsize=1, env=environ, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdin is not None and process.stdout is not None
        for number, word in enumerate(("one", "two"), 1):
            process.stdin.write(word + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{number}:{word}\n"  # though more may come
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0


def test_files_go_along_and_come_back_and_nothing_else_is_there(run_map: Mapper, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b c"):
        (tmp_path / "in" / f"{name}.txt").write_text(name * 3)
    (tmp_path / "common").write_text("-common")
    (tmp_path / "secret").write_text("no")
    files = ["--transferfile", "{}", "--basefile", "common", "--return", "out/{/.}.up"]
    done = run_map(
        *files, "cat {} common | tr a-z A-Z > out/{/.}.up; ls; cat secret 2>/dev/null",
        "-",  # a word of the command as it is
        ":::", "in/a.txt", "in/b c.txt",
    )  # fmt: skip
    assert (tmp_path / "out" / "a.up").read_text() == "AAA-COMMON"
    assert (tmp_path / "out" / "b c.up").read_text() == "B CB CB C-COMMON"
    assert "no" not in done.stdout and done.stdout.split() == ["common", "in", "out"] * 2
    refused = run_map("--transferfile", "{}", "cat", ":::", "/etc/hostname")
    assert refused.returncode == 2 and "[file-outside]" in refused.stderr
    missing = run_map("--return", "never", "true", ":::", "x")
    assert missing.returncode == 1 and "it made no file never" in missing.stderr


def test_what_fails_is_tried_again_and_a_log_is_resumed(run_map: Mapper, tmp_path: Path) -> None:
    luck = "test $(($(date +%s%N) / 1000 % 2)) = 0  # {}"  # half of the tries
    assert run_map("--retries", "60", luck, lines="a\nb\n").returncode == 0
    first = run_map("--joblog", "log", "test {} != b; echo {}; test {} != b", lines="a\nb\nc\n")
    assert (first.returncode, first.stdout) == (1, "a\nb\nc\n")
    again = run_map("--joblog", "log", "--resume", "echo again {}", lines="a\nb\nc\n")
    assert (again.returncode, again.stdout) == (0, "again b\n")
    third = run_map("--joblog", "log", "--resume", "echo again {}", lines="a\nb\nc\n")
    assert (third.returncode, third.stdout) == (0, "")


def test_a_command_that_hangs_is_ended_with_all_that_it_started(run_map: Mapper) -> None:
    done = run_map("--timeout", "1s", "--json", "sleep 300 & echo begun; test {} = quick || sleep 300", lines="quick\nslow\n")
    quick, slow = (json.loads(line) for line in done.stdout.splitlines())
    assert (quick["exit"], quick["stdout"]) == (0, "begun\n")
    assert (slow["exit"], slow["stdout"], slow["trouble"]) == (-1, "begun\n", "it took longer than 1 s")
    assert done.returncode == 1

    def sleepers() -> list[str]:
        return [p for p in Path("/proc").glob("[0-9]*/cmdline") if _reads(p) == b"sleep\x00300\x00"]  # type: ignore[misc]

    until(lambda: not sleepers(), "nothing of it is left")


@pytest.mark.parametrize("arguments", [("--resume", "true"), ("--slots", "3", "true"), ("true", ":::", "a", ":::", "b")])
def test_what_makes_no_sense_is_said(run_map: Mapper, arguments: tuple[str, ...]) -> None:
    assert run_map(*arguments).returncode == 2


def test_a_dry_run_prints_and_runs_nothing(run_map: Mapper) -> None:
    assert run_map("--dry-run", "--null", "echo {} {#}", lines="a b\0c\0").stdout == "echo 'a b' 1\necho c 2\n"


def _reads(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
