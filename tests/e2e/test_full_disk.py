"""A home whose disk is full: uploads are told 507, jobs wait with the reason, and once there is room everything goes on."""

from __future__ import annotations

import errno
import http.client
import io
import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from company.errors import CompanyError
from tests.faults.__main__ import small_disk
from tests.faults.rounds import Harmed
from tests.support.company_processes import until, value_of, write_package

pytestmark = pytest.mark.slow
N = 120
PART_MIB = 6


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Harmed]:
    root = tmp_path / "c"
    root.mkdir()
    with small_disk(root / "home") as is_small:
        if not is_small:
            pytest.skip("needs the right to mount a tmpfs")
        with Harmed(root, small_disk=True) as running:
            running.open()
            yield running


def fill(fd: int) -> None:
    """Write until nothing more fits, however little that is."""
    size_bytes = 1 << 20
    while size_bytes:
        try:
            os.write(fd, bytes(size_bytes))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            size_bytes //= 4


def package_zip() -> bytes:
    """A package that is in order, and large enough to need room."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("split.py", "def split(data):\n    yield 1\n")
        archive.writestr("processor/main.py", "def process(fragment):\n    return fragment\n")
        archive.writestr("processor/table.bin", os.urandom(2 << 20))
        archive.writestr("merge.py", "def merge(results, output):\n    return list(results)\n")
    return packed.getvalue()


def upload(company: Harmed, path: str, body: bytes) -> tuple[int, str, dict[str, object]]:
    """What plain HTTP says: status, media type, the problem."""
    host, _, port = company.http.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        kind = "application/octet-stream" if "data" in path else "application/zip"
        headers = {"Authorization": f"Bearer {company.ready['chief']['token']}", "Content-Type": kind}
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, str(answer.headers["Content-Type"]), json.loads(answer.read())
    finally:
        connection.close()


def test_a_full_disk_is_told_waited_for_and_survived(company: Harmed, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        """
        import os, time
        def process(fragment):
            time.sleep(0.03)
            return os.urandom(10000).hex() + str(fragment)
        """,
        merge="def merge(results, output):\n    return [int(r[20000:]) for r in results]\n",
    )
    job = company.client.submit(package, numbers, params={"n": N}, batching="none")
    until(lambda: job.status()["fragments"]["done"] > 5, "results")
    ballast = company.home / "ballast"
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fill(fd)
        reason = until(
            lambda: (job.status()["reason"] or {}).get("code") == "storage-full" and job.view["reason"], "the reason", timeout_s=20
        )
        assert "disk" in reason["text"] and reason["actions"], reason
        at = job.view["fragments"]["done"]
        data = tmp_path / "large.bin"
        data.write_bytes(os.urandom(4 << 20))
        with pytest.raises(CompanyError) as refused:
            company.client.upload_data(data)
        assert refused.value.code == "storage-full", refused.value
        for path in ("/upload/data?name=large.bin", "/upload/module-package?name=p"):
            status, kind, problem = upload(company, path, data.read_bytes() if "data" in path else package_zip())
            assert (status, problem["status"], problem["code"]) == (507, 507, "storage-full"), (path, problem)
            assert kind.startswith("application/problem+json") and "disk" in str(problem["detail"])
        job.status(wait_s=1.0)
        assert job.status()["fragments"]["done"] <= at + 16, "nothing more is handed out"
        assert company.is_running("chief")
    finally:
        os.close(fd)
        ballast.unlink()
    assert job.wait(60).state == "done", job.view
    assert value_of(job, tmp_path / "out") == list(range(N))
    assert company.client.upload_data(data), "what was refused is taken now"
    database = sqlite3.connect(f"file:{company.home}/chief/company.sqlite?mode=ro", uri=True)
    assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    database.close()
    assert not company.violations.exists(), company.violations.read_text()[:3000]


def test_a_result_that_does_not_fit_fails_its_job_and_nothing_else(company: Harmed, numbers: Path, tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "p",
        "def process(fragment):\n    return fragment\n",
        merge="""
        def merge(results, output):
            for name in ("a", "b"):
                (output / name).write_bytes(b"x" * (SIZE << 20))
        """.replace("SIZE", str(PART_MIB)),
    )
    ballast = company.home / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(company.home).free - (3 * PART_MIB << 20)))  # room for the two files, and not for a zip of them
    job = company.client.submit(package, numbers, params={"n": 3}).wait(60)
    assert (job.state, job.view["reason"]["code"]) == ("failed", "storage-full"), job.view
    assert any("job retry" in action.get("cli", "") for action in job.view["reason"]["actions"])
    ballast.unlink()
    assert job.retry().wait(60).state == "done", job.view
    assert [path.stat().st_size for path in job.download(tmp_path / "out")] == [PART_MIB << 20] * 2
