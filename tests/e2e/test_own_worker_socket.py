"""A chief's own worker comes by the socket in its home, others by TLS; they compute the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from p2p.net.local import ADDRESS
from tests.support.company_processes import RunningCompany, until, value_of, write_package

pytestmark = pytest.mark.slow
LOOPBACK = ("--workers", "1", "--http", "127.0.0.1:0", "--dht", "off", "--json")
SIZES = [100, 1 << 20, 3 << 20, 5 << 20, 1 << 20, 64 << 10]  # the fourth goes by a channel of its own
SPLIT = "def split(data, sizes):\n    for i, n in enumerate(sizes):\n        yield (i, bytes([i]) * n)\n"
PROCESS = "def process(fragment):\n    i, data = fragment\n    return data[:-1] + bytes([i + 100])\n"
MERGE = "import hashlib\ndef merge(results, output):\n    return [hashlib.sha256(r).hexdigest() for r in results]\n"
EXPECTED = [hashlib.sha256(bytes([i]) * (n - 1) + bytes([i + 100])).hexdigest() for i, n in enumerate(SIZES)]


def worker_of(company: RunningCompany, name: str) -> dict[str, Any]:
    return next(dict(w) for w in company.client.workers()["items"] if w["name"] == name)


def test_results_of_mebibytes_are_the_same_by_the_socket_and_by_tls(tmp_path: Path) -> None:
    package = write_package(tmp_path / "p", PROCESS, split=SPLIT, merge=MERGE)
    (tmp_path / "data.txt").write_text("x")
    with RunningCompany(tmp_path) as company:
        company._spawn("chief", "start", "--rpc", "127.0.0.1:0", *LOOPBACK)
        company.wait_ready("chief")
        until(lambda: company.client.company()["slots"] == 1, "its own worker")
        until(lambda: worker_of(company, "local")["address"] == ADDRESS, "it came by the socket")
        job = company.run(package, tmp_path / "data.txt", params={"sizes": SIZES})
        assert value_of(job, tmp_path / "one") == EXPECTED
        company.start_workers("far")
        until(lambda: company.client.company()["slots"] == 2, "the other worker")
        assert worker_of(company, "far")["address"] != ADDRESS
        company.client.change_worker("local", "pause")
        job = company.run(package, tmp_path / "data.txt", params={"sizes": SIZES})
        assert value_of(job, tmp_path / "two") == EXPECTED
        company.stop("far")
        company.stop("chief")
        assert not (tmp_path / "home/chief/run/rpc.sock").exists()
