"""A run on another engine: what it refuses, what it says when its process dies, and that it ends with whoever holds it."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from company.client import Client
from company.client.address import ChiefAddress
from company.errors import JobCancelled, JobFailed, NotReadyError
from p2p.base.errors import Unavailable, UsageError
from tests.support.company_processes import until, write_package


@pytest.fixture
def client() -> Client:
    return Client(ChiefAddress(False, "127.0.0.1", 9, "none"))


@pytest.fixture
def slow(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "data").write_text("x\n")
    process = "import time\ndef process(fragment):\n    time.sleep(600)\n"
    made = write_package(tmp_path / "p", process, split="def split(data):\n    yield 1\n", merge="def merge(results, output): ...\n")
    return made, tmp_path / "data"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"engine": "slurm"}, "engine-unknown"),
        ({"engine": "dask"}, "engine-address"),
        ({"engine": "local", "address": "tcp://127.0.0.1:9"}, "engine-address"),
        ({"engine": "company", "address": "tcp://127.0.0.1:9"}, "engine-address"),
        ({"engine": "local", "where": "any"}, "engine-option"),
        ({"engine": "local", "params": {"m": 1}}, "unknown-parameter"),
    ],
)
def test_what_an_engine_does_not_take_is_refused_before_anything_starts(
    client: Client, slow: tuple[Path, Path], options: dict[str, Any], code: str
) -> None:
    with pytest.raises(UsageError) as raised:
        client.submit(*slow, **options)
    assert raised.value.code == code


def test_a_name_at_the_chief_is_no_path_of_this_machine(client: Client, slow: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="is not there"):
        client.submit("words", slow[1], engine="local")


def test_what_the_engine_refuses_is_raised_by_submit(client: Client, slow: tuple[Path, Path]) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(Unavailable, match="no Dask scheduler answers") as raised:
        client.submit(*slow, engine="dask", address="carrier-pigeon://127.0.0.1:9")
    assert raised.value.code == "cluster-unreachable"


def test_a_run_is_cancelled_with_all_that_it_started(client: Client, slow: tuple[Path, Path]) -> None:
    with client.submit(*slow, engine="local") as run:
        assert (run.state, run.is_over) == ("running", False)
        with pytest.raises(NotReadyError):
            run.download()
        assert run.cancel().state == "cancelled"
        with pytest.raises(JobCancelled):
            run.raise_for_state()
    assert not run.folder.exists()


def test_a_process_that_dies_is_a_run_that_failed(client: Client, slow: tuple[Path, Path]) -> None:
    with client.submit(*slow, engine="local") as run:
        os.kill(run._process.pid, signal.SIGKILL)
        with pytest.raises(JobFailed, match="ended with -9 and no word of the run"):
            run.wait(60, check=True, progress=False)


def test_a_run_that_nobody_holds_ends(client: Client, slow: tuple[Path, Path]) -> None:
    run = client.submit(*slow, engine="local")
    process, folder = run._process, run.folder
    del run
    gc.collect()
    until(lambda: process.poll() is not None and not folder.exists(), "it has ended", timeout_s=60)
