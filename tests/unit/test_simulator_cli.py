"""``python -m simulator``: one JSON object, all mistakes at once, folders that can be taken up again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2p.base.errors import UsageError
from simulator.cli import main
from simulator.parameters import parse_all, read_toml, spread
from simulator.registry import SCENARIOS
from simulator.report import page
from simulator.scenario import Plot, rounded
from simulator.svg import draw
from simulator.sweep import finished, table_of
from simulator.validate import validate


def test_a_run_prints_one_object_with_what_the_issue_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "dht", "--nodes", "500", "--lookups", "200", "--seed", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"scenario", "parameters", "seed", "metrics", "wall_s"}
    assert result["seed"] == 3 and result["parameters"]["nodes"] == 500
    metrics = result["metrics"]
    assert metrics["hops"]["mean"] > 1 and metrics["hops"]["cdf"][-1] == 1
    assert {"p50", "p90", "p99"} <= set(metrics["latency_s"])
    assert {"success", "messages_per_lookup", "recall"} <= set(metrics)


def test_all_mistakes_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "dht", "--nodes", "ten", "--kk", "3", "--dead", "2", "--target", "sky", "--seed", "x"]) == 2
    said = capsys.readouterr().err
    for mistake in ("nodes is a whole number", "no parameter kk", "dead must lie in", "target is one of", "seed is a whole number"):
        assert mistake in said


def test_mistakes_in_a_file_have_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.toml"
    file.write_text('scenario = "dht"\nseed = 2\n\n[parameters]\nnodes = 1\nlost = 0.5\n')
    assert main(["run", str(file)]) == 2
    said = capsys.readouterr().err
    assert "line 5: nodes must lie in" in said and "line 6: there is no parameter lost" in said
    for text in ("scenario = 5", "scenario = [", 'scenario = "dht"\nseed = "a"', 'scenario = "dht"\nparameters = 3'):
        with pytest.raises(UsageError):
            read_toml(text)


def test_a_folder_says_everything_and_its_lock_runs_the_same_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert main(["run", "dht", "--nodes", "300", "--lookups", "100", "--out", str(a)]) == 0
    assert {p.name for p in a.iterdir()} == {"summary.json", "report.html", "scenario.lock.toml"}
    assert main(["run", str(a / "scenario.lock.toml"), "--out", str(b)]) == 0
    first, again = (json.loads((p / "summary.json").read_text()) for p in (a, b))
    assert first["digest"] == again["digest"]
    page = (a / "report.html").read_text()
    assert "uPlot" in page and " src=" not in page and "<link" not in page  # nothing is fetched
    assert main(["run", "dht", "--nodes", "301", "--out", str(a)]) == 2  # another run's folder is left alone
    capsys.readouterr()
    assert main(["compare", str(a), str(b)]) == 0
    assert "no difference" in capsys.readouterr().out


def test_a_sweep_takes_up_where_it_stopped_and_jobs_do_not_change_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def go(folder: str, jobs: str) -> dict[str, object]:
        args = [
            "sweep",
            "votes",
            "--param",
            "m=1,2,3",
            "--param",
            "wrong=0.1:0.3:0.1",
            "--set",
            "jobs=500",
            "--set",
            "workers=100",
            "--set",
        ]
        assert main([*args, "results=5", "--repeat", "2", "--jobs", jobs, "--out", str(tmp_path / folder), "--json"]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    whole = go("a", "1")
    assert len(whole["points"]) == 9  # type: ignore[arg-type]
    assert go("b", "2")["digest"] == whole["digest"]
    points = tmp_path / "a" / "points.ndjson"
    lines = points.read_bytes().splitlines(keepends=True)
    points.write_bytes(b"".join(lines[:7]) + lines[7][:40])  # stopped in the middle of a line
    assert go("a", "1")["digest"] == whole["digest"]
    assert len(finished(points)) == 18


def heeds_ctrl_c() -> None:
    """A shell's background job ignores Ctrl-C and hands that on; a sweep is to be stopped wherever the tests run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def commands_of_children(pid: int) -> str:
    """Command lines of a process's children."""
    found = ""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found += Path(f"/proc/{child}/cmdline").read_text()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_at_the_very_beginning_prints_no_traceback(jobs: str, tmp_path: Path) -> None:
    """While modules are being loaded (click is there, numpy is not), and while the sweep's own processes load theirs."""
    python = [sys.executable, *(["-X", "importtime"] if jobs == "1" else [])]
    command = [*python, "-m", "simulator", "sweep", "votes", "--param", "m=1:40:1", "--jobs", jobs, "--out", str(tmp_path / "s")]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heeds_ctrl_c
    )  # fmt: skip
    assert process.stderr is not None
    deadline = time.monotonic() + 120
    if jobs == "1":
        while not process.stderr.readline().rstrip().endswith(" click"):
            assert process.poll() is None
    else:
        while commands_of_children(process.pid).count("spawn_main") < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said and "stopped" in said


@pytest.mark.slow
def test_ctrl_c_leaves_a_sweep_that_can_be_taken_up(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simulator", "sweep", "votes", "--param", "m=1:40:1", "--jobs", "1", "--out", str(tmp_path / "s")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heeds_ctrl_c)
    points = tmp_path / "s" / "points.ndjson"
    deadline = time.monotonic() + 60
    while not (points.exists() and points.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "the folder keeps what is done" in said
    assert 1 <= len(finished(points)) < 40


def test_spreads_are_lists_and_ranges() -> None:
    assert spread("k=8,16,20") == ("k", ["8", "16", "20"])
    assert spread("dead=0:0.3:0.1") == ("dead", ["0", "0.1", "0.2", "0.3"])
    for text in ("k", "k=", "k=3:1:1", "k=0:1:0"):
        with pytest.raises(UsageError):
            spread(text)


def test_a_table_shows_what_some_point_has_and_is_no_wider_than_its_page() -> None:
    points = [
        {"parameters": {"saboteurs": share}, "runs": runs, "metrics": {"error_rate": {"mean": 0.25, "error": 0.01}}}
        for share, runs in ((0.1, 1), (0.2, 3))
    ]
    rows = table_of(SCENARIOS["market"], {"sweep": ["saboteurs"], "points": points})
    # what only the exact engine has is left out; of one run there is no interval, of three it is Student's
    assert rows == [["saboteurs", "error_rate"], ["0.1", "0.25"], ["0.2", "0.25 ±0.043"]]
    written = page("t", "x", {"points": [[f"long_name_{n}" for n in range(12)], ["1.2345 ±0.1"] * 12], "few": rows}, [])
    assert written.count("<table") == written.count('<div class="table') == 2  # each scrolls by itself
    assert "long_<wbr>name_<wbr>3" in written


def test_a_sweep_names_all_mistakes_of_all_points(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "dht", "--param", "k=0,8,x", "--param", "dead=0,3"]) == 2
    said = capsys.readouterr().err
    assert "k must lie in" in said and "k is a whole number, got 'x'" in said and "dead must lie in" in said


def test_every_scenario_is_listed_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    said = " ".join(capsys.readouterr().out.split())  # lines are as wide as the terminal
    assert all(name in said for name in ("dht", "company", "market", "--batching", "adaptive, sqrt-window, none"))
    assert main(["run", "nothing"]) == 2


def test_floats_are_written_with_nine_digits_and_no_nan() -> None:
    assert rounded({"a": 1 / 3, "b": float("nan"), "c": [1e-20 / 3]}) == {"a": 0.333333333, "b": None, "c": [3.33333333e-21]}


def test_the_same_plot_gives_the_same_picture() -> None:
    plot = Plot("t <x>", "x", "y", [1, 10, 100], {"a": [1, None, 3], "b": [0.1, 0.2, 0.3]}, log_x=True)
    assert draw(plot) == draw(plot)
    assert "t &lt;x&gt;" in draw(plot) and draw(plot).count("<polyline") == 2


@pytest.mark.slow
def test_the_quick_validation_holds_in_every_row() -> None:
    rows = validate(quick=True, progress=lambda _: None)
    assert len(rows) > 70
    assert [f"{r.what}: {r.published} {r.ours}" for r in rows if not r.passed] == []


def test_commands_of_the_page_have_options_and_values_that_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text("utf-8")
    lines = [line.partition("#")[0] for line in page.splitlines() if line.startswith("python -m simulator run")]
    checked = 0
    for words in (line.split()[4:] for line in lines):
        if words[0].endswith(".toml"):
            continue
        scenario = SCENARIOS[words[0]]
        pairs = iter(word for word in words[1:] if word != "--json" and not word.endswith(".toml"))
        given = {name.removeprefix("--"): value for name, value in zip(pairs, pairs, strict=True)}
        given.pop("out", None)
        parse_all(scenario.parameters, given)  # raises for anything unknown
        checked += 1
    assert checked >= 6
