"""Every template works as it stands: it passes the check without a warning and gives a result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from company.package import check_package, read_package_dir
from company.package_init import TEMPLATES, init_package
from p2p.base.errors import UsageError
from tests.support.in_process import run_in_process

SAMPLES = {"map": "sample.txt", "csv": "sample.csv", "montecarlo": "sample.json"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_package_passes_the_check_without_a_warning(template: str, tmp_path: Path) -> None:
    written = init_package(tmp_path / "my pkg!", template)
    read = read_package_dir(tmp_path / "my pkg!")
    assert sorted(read.files) == sorted(path.relative_to(tmp_path / "my pkg!").as_posix() for path in written)
    info = check_package(read.files, warnings=read.warnings)
    assert (info.name, info.warnings) == ("my pkg-", ())
    assert b"@" not in read.files["README.md"]
    assert b"@NAME@" not in read.files["package.toml"]


def test_map_gives_every_line(tmp_path: Path) -> None:
    init_package(tmp_path / "p", "map", name="shout")
    assert run_in_process(tmp_path / "p", tmp_path / "p/sample.txt", tmp_path / "out", {"lines": 7}) == {"lines": 1000}
    sample = (tmp_path / "p/sample.txt").read_text()
    assert (tmp_path / "out/result.txt").read_text() == sample.upper()
    assert check_package(read_package_dir(tmp_path / "p").files).name == "shout"


def test_csv_sums_by_group_whatever_the_fragments(tmp_path: Path) -> None:
    init_package(tmp_path / "p", "csv")
    for rows in (13, 5000):
        assert run_in_process(tmp_path / "p", tmp_path / "p/sample.csv", tmp_path / str(rows), {"rows": rows}) == {"groups": 6}
    table = (tmp_path / "13/summary.csv").read_text()
    assert table == (tmp_path / "5000/summary.csv").read_text()
    assert table.splitlines()[0] == "city,rows,sum of amount,mean of amount"
    assert sum(int(line.split(",")[1]) for line in table.splitlines()[1:]) == 5000


def test_montecarlo_comes_near_pi(tmp_path: Path) -> None:
    init_package(tmp_path / "p", "montecarlo")
    result = run_in_process(tmp_path / "p", tmp_path / "p/sample.json", tmp_path / "out", {"runs": 20, "points": 5000})
    assert abs(result["pi"] - 3.14159265) < 4 * result["standard_error"]
    assert json.loads((tmp_path / "out/estimate.json").read_text()) == result


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError) as caught:
        init_package(tmp_path, "map")
    assert caught.value.code == "not-empty"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UsageError) as unknown:
        init_package(tmp_path / "new", "nap")
    assert (unknown.value.code, (tmp_path / "new").exists()) == ("unknown-template", False)
