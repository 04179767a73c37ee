"""What the benchmark table says of its measurements."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import __main__ as program
from benchmarks.__main__ import BOUND_S, run_bounded, run_sections
from benchmarks.bulk import turns_a_second
from benchmarks.dht import dht_rows
from benchmarks.rows import Row, number, table
from benchmarks.work import PACKAGES, blocks, burn, calibrate
from company.package import check_package


def row(goal: float | None, better: str, *ours: float) -> Row:
    made = Row("a thing", "what is counted", "s", better, goal)  # type: ignore[arg-type]
    for value in ours:
        made.add("company", value)
    return made


def test_a_goal_is_judged_by_the_median_and_its_direction() -> None:
    assert row(1.5, "less", 9.0, 1.0, 1.2).is_reached is True
    assert row(1.5, "less", 9.0, 1.6, 1.2).is_reached is False
    assert row(700_000, "more", 700_000).is_reached is True
    assert row(700_000, "more", 699_999).is_reached is False
    assert row(None, "more", 1).is_reached is None
    assert row(1.0, "more").is_reached is None


def test_the_table_names_what_is_counted_the_others_and_who_is_missing() -> None:
    made = row(1.5, "less", 3.0)
    made.add("joblib", 6.0)
    text = table([made], {"ray": "not installed"})
    assert "what is counted" in text
    assert "NOT REACHED" in text
    assert "ours is 0.5 ×" in text
    assert "not here: ray (not installed)" in text
    assert json.loads(json.dumps(made.as_dict()))["against"] == {"joblib": 0.5}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("dht",), ["dht"]),  # as the issue writes it
        (("--only", "dht"), ["dht"]),
        (("waits", "start", "--only", "dht"), ["start", "waits", "dht"]),
        ((), list(BOUND_S)),
    ],
)
def test_sections_are_named_as_words_or_by_option(arguments: tuple[str, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def note(names: list[str], *, quick: bool) -> tuple[list[Row], dict[str, str]]:
        ran.append(names)
        return [], {}

    monkeypatch.setattr(program, "run_sections", note)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    assert program.main() == 0 and ran == [expected]


def test_a_section_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "dth"])
    with pytest.raises(SystemExit):
        program.main()
    assert "no section 'dth'" in capsys.readouterr().err


def test_numbers_are_short() -> None:
    assert [number(v) for v in (None, 1234567.8, 0.94321, 12.345)] == ["-", "1,234,568", "0.943", "12.3"]


def test_the_packages_of_the_benchmarks_pass_the_check() -> None:
    for name, files in PACKAGES.items():
        info = check_package({path: source.encode() for path, source in files.items()}, default_name=name)
        assert {"split", "process", "merge"} <= set(info.functions)


def test_work_is_calibrated_to_the_time_that_was_asked_for() -> None:
    assert calibrate(0.02) > calibrate(0.0002) * 10
    began, ended = burn(10)
    assert began <= ended
    assert [len(b) for b in blocks(3, 64)] == [64, 64, 64]
    assert len(set(blocks(3, 64))) == 3


def test_everything_stored_among_the_nodes_of_the_benchmark_is_found_again() -> None:
    store, get = dht_rows(quick=True)
    for row in (store, get):
        assert set(row.samples) == {"company", "company, 3 in flight"}
        assert all(row.notes[name].endswith("20 of 20 succeeded") for name in row.samples)
    packets = [float(row.notes["company"].split(" packets")[0].rpartition(" ")[2]) for row in (store, get)]
    assert 0 < packets[1] < packets[0], "to store is to look up and then to send; by the clock a busy machine may say otherwise"
    assert store.ours is not None and get.ours is not None and min(store.ours, get.ours) > 0


def test_a_goal_beside_a_peer_is_a_ratio_of_medians_in_the_same_run() -> None:
    made = Row("a thing", "what is counted", "fragments/s", "more", goal=100, beside={"company": {"joblib": 3.0, "absent": 9.0}})
    made.add("company", 310)
    made.add("joblib", 100)
    assert made.is_reached is True
    made.add("joblib", 200)
    made.add("joblib", 200)
    assert made.ratios() == [("company", "joblib", 1.55, 3.0)]
    assert made.is_reached is False
    assert "company is 1.55 × joblib, goal 3 ×" in table([made], {})
    assert Row(**made.as_fields()) == made


def test_a_section_that_does_not_end_is_stopped_and_named(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); open(sys.argv[1], 'w').write(str(p.pid)); time.sleep(600)"
    )
    began = time.monotonic()
    assert run_bounded([sys.executable, "-c", program, str(tmp_path / "pid")], 2.0) == "not done within 2 s"
    assert time.monotonic() - began < 30
    left = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE


def test_a_section_hands_over_its_rows_or_says_how_it_ended() -> None:
    rows, missing = run_sections(["import"], quick=True)
    assert [row.name for row in rows] == ["import company"]
    assert missing == {}
    assert run_bounded([sys.executable, "-c", "raise SystemExit(3)"], 30) == "ended with 3"


def test_the_turns_of_a_worker_whose_child_was_replaced_are_those_of_both_of_its_children() -> None:
    fast, slow = turns_a_second([[600.0, 6.0], [40.0, 2.0], [400.0, 4.0], [90.0, 4.5], [10.0, 0.5], [0.0, 0.0]])
    assert (fast, slow) == (100.0, 20.0)
