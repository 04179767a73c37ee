"""The local engine: the company's results without a company, and what goes wrong told as well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from company.errors import FragmentsFailed, JobFailed
from company.local_engine import run_local
from company.one_fragment import run_fragment, try_fragment
from company.package import DEFAULT_MEMORY_BYTES, DEFAULT_TIME_LIMIT_S
from p2p.base.codec import encode_value
from p2p.base.errors import Unavailable, UsageError
from tests.support.company_processes import COMPANY, RunningCompany, is_alive, until, write_package

SQUARES = "def process(fragment):\n    return fragment * fragment\n"
FILES = """
    def merge(results, output):
        for number, result in enumerate(results):
            (output / f"{number % 3}").mkdir(exist_ok=True)
            (output / f"{number % 3}" / f"{number}.txt").write_text(str(result))
        return {"n": number, "é": (1, 2)}
"""
ONE_FILE = "def merge(results, output):\n    (output / 'sum.txt').write_text(str(sum(results)))\n"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("merge", ["def merge(results, output):\n    return [len([*results]), {1: b'x'}]\n", FILES, ONE_FILE])
def test_the_result_has_the_same_bytes_as_the_companys(company: RunningCompany, numbers: Path, tmp_path: Path, merge: str) -> None:
    package = write_package(tmp_path / "p", SQUARES, merge=merge)
    facts = run_local(package, numbers, params={"n": 300}, out=tmp_path / "local")
    assert (facts["fragments"], facts["done"], facts["failed"], facts["failures"]) == (300, 300, 0, [])
    job = company.run(package, numbers, params={"n": 300})
    job.download(tmp_path / "company")
    assert tree(tmp_path / "local") == tree(tmp_path / "company")
    assert sorted(facts["files"]) == sorted(str(p) for p in (tmp_path / "local").rglob("*") if p.is_file())


def test_a_directory_of_data_is_read_as_a_company_would(numbers: Path, tmp_path: Path) -> None:
    data = tmp_path / "tree"
    (data / "deep").mkdir(parents=True, mode=0o700)
    (data / "a.txt").write_text("one")
    (data / "deep" / "b.txt").write_text("two")
    (data / "deep" / "b.txt").chmod(0o600)
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    return fragment\n",
        split="""
        def split(data):
            for path in sorted(data.rglob("*.txt")):
                yield [str(path.relative_to(data)), path.read_text(), data.name]
        """,
    )
    run_local(package, data, out=tmp_path / "out")
    assert json.loads((tmp_path / "out/result.json").read_bytes()) == [["a.txt", "one", "tree"], ["deep/b.txt", "two", "tree"]]


def test_large_fragments_and_results_go_through_files(numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    return fragment * 2\n",
        split="def split(data):\n    for i in range(5):\n        yield bytes([65 + i]) * (6 << 20)\n        yield b'.'\n",
        merge="def merge(results, output):\n    return [[len(r), r[:1].decode()] for r in results]\n",
    )
    run_local(package, numbers, out=tmp_path / "out", slots=2)
    wanted = [x for i in range(5) for x in ([12 << 20, chr(65 + i)], [2, "."])]
    assert json.loads((tmp_path / "out/result.json").read_bytes()) == wanted


def test_one_bad_fragment_of_each_kind_fails_alone_and_is_told(numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        """
        import ctypes, os
        def process(fragment):
            print("begin", fragment)
            if fragment == 3: raise KeyError("three")
            if fragment == 5: os._exit(9)
            if fragment == 7: ctypes.string_at(0)
            if fragment == 9:
                while True: pass
            if fragment == 11: return object()
            return fragment
        """,
    )
    facts = run_local(package, numbers, params={"n": 30}, out=tmp_path / "out", max_fails="5", time_limit_s=0.5, tries=2)
    told = {f["fragment"]: f for f in facts["failures"]}
    assert {i: (f["cause"], f["tries"], f["final"]) for i, f in told.items()} == {
        3: ("raised", 2, True), 5: ("exited", 2, True), 7: ("crashed", 2, True), 9: ("time-limit", 2, True), 11: ("raised", 2, True),
    }  # fmt: skip
    assert told[3]["exc_type"] == "KeyError"
    assert "processor/main.py" in told[3]["traceback"]
    assert (told[3]["log_tail"], told[5]["log_tail"]) == ("begin 3\n", "begin 5\n")
    assert told[7]["preview"] == "7"
    assert json.loads((tmp_path / "out/result.json").read_bytes()) == [i for i in range(30) if i not in told]
    assert "[4] begin 4\n" in (tmp_path / "out.log").read_text()


@pytest.mark.parametrize(
    ("changed", "cause", "words"),
    [
        ({"process": "import nothing_like_it\ndef process(fragment):\n    return 1\n"}, "load-failed", "nothing_like_it"),
        ({"split": "def split(data):\n    yield 1\n    raise OSError('half way')\n"}, "split-failed", "half way"),
        ({"merge": "def merge(results, output):\n    raise OSError(f'of {len([*results])}')\n"}, "merge-failed", "of 10"),
        ({"process": "def process(fragment):\n    raise OSError('never')\n"}, "too-many-failed", "allowed are 0"),
    ],
)
def test_a_run_without_a_result_says_why(numbers: Path, tmp_path: Path, changed: dict[str, str], cause: str, words: str) -> None:
    sources: dict[str, Any] = {"process": SQUARES} | changed
    package = write_package(tmp_path / "p", sources.pop("process"), **sources)
    with pytest.raises(JobFailed) as caught:
        run_local(package, numbers, out=tmp_path / "out", tries=1)
    assert caught.value.facts["cause"] == cause
    assert words in caught.value.text + caught.value.facts["traceback"]
    assert not (tmp_path / "out").exists()


def test_artifacts_lie_beside_the_result(numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p", "from company import task\ndef process(fragment):\n    task.artifact('n.txt', str(fragment))\n    return 1\n"
    )
    facts = run_local(package, numbers, params={"n": 3}, out=tmp_path / "out")
    assert tree(Path(facts["artifacts"])) == {"0/n.txt": b"0", "1/n.txt": b"1", "2/n.txt": b"2"}


def test_progress_ends_at_the_total(numbers: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None, int]] = []
    package = write_package(tmp_path / "p", "def process(fragment):\n    return 1 // fragment\n")

    def note(done: int, total: int | None, failed: int) -> None:
        seen.append((done, total, failed))

    run_local(package, numbers, params={"n": 50}, out=tmp_path / "out", max_fails="2%", progress=note)
    assert seen[-1] == (49, 50, 1)
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)


def test_an_unknown_parameter_is_refused_before_anything_runs(numbers: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="m"):
        run_local(write_package(tmp_path / "p", SQUARES), numbers, params={"m": 3}, out=tmp_path / "out")


def test_another_entry_and_requirements_of_this_machine_are_there(numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    return 0\n",
        manifest='entry = "other.py"\nrequirements = ["packaging"]\n',
    )
    source = "import packaging.version\ndef process(fragment):\n    return str(packaging.version.Version('1.0.0rc1'))\n"
    (package / "processor" / "other.py").write_text(source)
    run_local(package, numbers, params={"n": 2}, out=tmp_path / "out")
    assert json.loads((tmp_path / "out/result.json").read_bytes()) == ["1.0.0rc1"] * 2
    assert run_fragment(package, encode_value(1), {}) == "1.0.0rc1"
    (package / "package.toml").write_text('requirements = ["no-such-distribution-anywhere"]\n')
    with pytest.raises(Unavailable, match="no-such-distribution-anywhere"):
        run_local(package, numbers, out=tmp_path / "out")


# ---- the command -------------------------------------------------------------------------------------------------------------
def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMPANY, *arguments], capture_output=True, text=True, timeout=60, check=False, env=_environ(cwd))


def _environ(cwd: Path) -> dict[str, str]:
    return dict(os.environ) | {"TMPDIR": str(cwd), "COMPANY_HOME": str(cwd / "home")}


def test_the_commands_exit_code_and_report_tell_how_it_went(numbers: Path, tmp_path: Path) -> None:
    package = str(write_package(tmp_path / "p", "def process(fragment):\n    return 1 // fragment\n"))
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    run = ("run", package, str(numbers), "-p", "n=4", "--out", str(tmp_path / "out"))
    failed = command(*run, cwd=scratch)
    assert failed.returncode == 4
    assert "ZeroDivisionError" in failed.stderr
    assert "processor/main.py" in failed.stderr
    assert "its input: 0" in failed.stderr
    partial = command(*run, "--max-fails", "1", "--json", cwd=scratch)
    assert partial.returncode == 3, partial.stderr
    view = json.loads(partial.stdout)
    assert (view["schema"], view["state"], view["done"], view["failed"]) == ("company.run/1", "done", 3, 1)
    assert [f["fragment"] for f in view["failures"]] == [0]
    whole = command("run", str(write_package(tmp_path / "q", SQUARES)), str(numbers), "--out", str(tmp_path / "out"), cwd=scratch)
    assert whole.returncode == 0, whole.stderr
    assert "10 of 10 fragments done" in whole.stdout
    assert list(scratch.iterdir()) == [], "nothing is left behind"


def test_ctrl_c_ends_it_with_no_child_and_no_file_left(numbers: Path, tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "import time\ndef process(fragment):\n    time.sleep(600)\n")
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    process = subprocess.Popen(
        [*COMPANY, "run", str(package), str(numbers), "--out", str(tmp_path / "out")], env=_environ(scratch), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    below = until(lambda: [c.pid for c in psutil.Process(process.pid).children(recursive=True) if _is_user_code(c)], "children")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert not [pid for pid in below if is_alive(pid)]
    assert list(scratch.iterdir()) == []


def _is_user_code(child: psutil.Process) -> bool:
    try:
        return "python" in child.name() and child.status() == psutil.STATUS_SLEEPING
    except psutil.NoSuchProcess:
        return False


# ---- one fragment ------------------------------------------------------------------------------------------------------------
def test_one_fragment_runs_in_the_sandbox_with_its_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = write_package(tmp_path / "p", "def process(fragment, by):\n    print('dividing', fragment)\n    return (fragment // by,)\n")
    assert run_fragment(package, encode_value(9), {"by": 2}, 17) == (4,)
    assert "dividing 9" in capsys.readouterr().err
    failed = try_fragment(package, encode_value(9), {"by": 0}, 17)
    assert (failed.cause, failed.exc_type) == ("raised", "ZeroDivisionError")
    assert "processor/main.py" in failed.traceback
    assert failed.logs == ((1, b"dividing 9\n"),)
    with pytest.raises(FragmentsFailed) as caught:
        _ = failed.value
    assert caught.value.facts["fragment"] == 17


def test_one_fragment_that_dies_says_why(tmp_path: Path) -> None:
    process = "import os, time\ndef process(fragment):\n    print('x')\n    os._exit(5) if fragment else time.sleep(9)\n"
    package = write_package(tmp_path / "p", process)
    died = try_fragment(package, encode_value(1), {})
    assert (died.cause, died.logs) == ("exited", ((2, b"x\n"),))
    assert "exit code 5" in died.message
    assert try_fragment(package, encode_value(0), {}, time_limit_s=0.3).cause == "time-limit"


def test_one_large_fragment_comes_back_whole(tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", "def process(fragment):\n    return fragment[::-1]\n")
    data = bytes(range(256)) * (6 << 12)
    assert run_fragment(package, encode_value(data), {}) == data[::-1]


def test_a_failed_fragment_of_a_job_is_reproduced_here(company: RunningCompany, numbers: Path, tmp_path: Path) -> None:
    process = "def process(fragment, word='w'):\n    print('doing', fragment)\n    return [word, 1 // fragment]\n"
    package = write_package(tmp_path / "p", process)
    job = company.run(package, numbers, params={"n": 4, "word": "v"}, max_fails="1")
    done = company.command("job", "reproduce", f"{job.id}/0")
    assert done.returncode == 3, done.stderr
    assert "ZeroDivisionError" in done.stdout
    assert "doing 0" in done.stderr
    limits = job.status()  # a job that is over still says its limits: the package's, as it gave none itself
    assert (limits["memory_bytes"], limits["time_limit_s"]) == (DEFAULT_MEMORY_BYTES, DEFAULT_TIME_LIMIT_S)
    beyond = company.command("job", "reproduce", f"{job.id}/99")
    assert "has 4 fragments" in beyond.stderr, beyond.stderr
    plain = company.command("job", "reproduce", f"{job.id}/0", "--pdb")
    assert plain.returncode == 3
    assert "WARNING" in plain.stderr
    assert "ZeroDivisionError" in plain.stderr
