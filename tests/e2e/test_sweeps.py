"""A sweep of the simulator on a company and on a Dask cluster: taken up half way, it comes to the same bytes as here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.cli import main
from simulator.sweep import finished
from tests.support.clusters import cluster_running
from tests.support.company_processes import RunningCompany

pytestmark = pytest.mark.slow
# look-ups on numpy, and a market of shipped machines: each needs what a sandbox has not
SWEEPS = {
    "dht": ("--param", "k=8,16", "--set", "nodes=300", "--set", "lookups=200"),
    "market": ("--param", "free-riders=0,0.3", "--set", "engine=exact", "--set", "companies=10", "--set", "hours=0.5"),
}


def half_done(name: str, folder: Path) -> tuple[bytes, list[str], Path]:
    """The summary of a sweep that was run here; its command; and a folder of the same, stopped in the middle of a line."""
    words = ["sweep", name, *SWEEPS[name], "--repeat", "2", "--out"]
    assert main([*words, str(folder / "here"), "--jobs", "1"]) == 0
    shutil.copytree(folder / "here", folder / "there")
    points, summary = folder / "there" / "points.ndjson", folder / "there" / "summary.json"
    lines = points.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    points.write_bytes(lines[0] + lines[1][:50])
    summary.unlink()
    return (folder / "here" / "summary.json").read_bytes(), [*words, str(folder / "there"), "--jobs"], summary


def run(words: list[str], environ: dict[str, str] | None = None) -> None:
    """As a user would, in a process of its own."""
    told = subprocess.run(
        [sys.executable, "-m", "simulator", *words], capture_output=True, text=True, env=environ, timeout=300, check=False
    )  # fmt: skip
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("name", SWEEPS)
def test_a_company_comes_to_the_same_bytes(name: str, company: RunningCompany, tmp_path: Path) -> None:
    here, words, summary = half_done(name, tmp_path)
    before = company.client.jobs()["total"]
    run([*words, "company"], company.environ)
    assert summary.read_bytes() == here
    assert len(finished(summary.with_name("points.ndjson"))) == 4
    assert company.client.jobs()["total"] == before + 1


def test_a_dask_cluster_comes_to_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    here, words, summary = half_done("dht", tmp_path)
    with cluster_running("dask", tmp_path) as address:
        run([*words, f"dask:{address}"])
    assert summary.read_bytes() == here
    assert len(finished(summary.with_name("points.ndjson"))) == 4
