"""What a package requires: shipped by the chief, where the worker's owner allows it; else the job waits and says why."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from company.errors import InvalidError
from company.wheelhouse import installed_distributions, pack_again
from tests.support.company_processes import COMPANY, RunningCompany, until, value_of, write_package
from tests.support.tiny_dists import install_tiny

MANIFEST = 'name = "needy"\nrequirements = ["tinyreq>=1", "packaging", "numpy"]\n'
SPLIT = "from packaging.version import Version\ndef split(data, n=10):\n    assert Version('2') > Version('1')\n    yield from range(n)\n"
PROCESS = "import tinyreq\nimport packaging\ndef process(fragment):\n    return tinyreq.double(fragment)\n"
MERGE = "import tinyreq\ndef merge(results, output):\n    return [tinyreq.double(r) for r in results]\n"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RunningCompany]:
    """A chief without any worker, whose owner has put a wheel into its folder."""
    root = tmp_path / "company"
    root.mkdir()
    with RunningCompany(root) as running:
        site = tmp_path / "site"
        install_tiny(site, "tinyreq", files={"tinyreq/__init__.py": "def double(x):\n    return 2 * x\n"})
        wheels = running.home / "chief" / "wheels"
        wheels.mkdir(parents=True)
        pack_again(installed_distributions([str(site)])["tinyreq"], wheels)
        running.start_chief()
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.txt"
    path.write_text("nothing\n")
    return path


def start_worker(company: RunningCompany, name: str, *arguments: str) -> None:
    token = str(company.client.create_token("worker")["token"])
    command = [*COMPANY, "worker", "join", "--slots", "1", "--name", name, "--json", "--token-file", "-", *arguments]
    with open(company.log_of(name), "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=company.environ, start_new_session=True
        )
    company.processes[name] = process
    assert process.stdin is not None
    process.stdin.write(token.encode() + b"\n")
    process.stdin.close()
    company.wait_ready(name)


def test_a_job_waits_with_a_reason_until_a_worker_takes_what_it_requires(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    start_worker(alone, "strict")
    job = alone.client.submit(write_package(tmp_path / "p", PROCESS, split=SPLIT, merge=MERGE, manifest=MANIFEST), data)

    def reason() -> dict[str, object]:
        return alone.client.job(job.id).view.get("reason") or {}

    until(lambda: reason().get("code") == "requirements-not-allowed", "the job says why it waits")
    assert "tinyreq>=1" in str(reason()["text"]) and "--allow-requirements" in str(reason()["text"])
    assert "numpy" not in str(reason()["text"])  # every sandbox has it
    start_worker(alone, "open", "--allow-requirements")
    job.wait(90)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [4 * i for i in range(10)]
    made = alone.home / "workers" / "open" / "cache" / "environments"
    (site,) = made.iterdir()
    assert (site / "tinyreq" / "__init__.py").stat().st_mode & 0o222 == 0
    assert not list((alone.home / "workers" / "strict" / "cache" / "environments").glob("*"))
    # the next job of the same needs finds it made
    again = alone.run(write_package(tmp_path / "q", PROCESS + "\n# other\n", split=SPLIT, merge=MERGE, manifest=MANIFEST), data)
    assert again.state == "done", again.view
    assert [path.name for path in made.iterdir()] == [site.name]


def test_requirements_reach_a_worker_by_rest_too(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    start_worker(alone, "r", "--allow-requirements", "--transport", "rest", "--chief-http", str(alone.ready["chief"]["http"]))
    job = alone.run(write_package(tmp_path / "p", PROCESS, split=SPLIT, merge=MERGE, manifest=MANIFEST), data)
    assert job.state == "done", job.view
    assert value_of(job, tmp_path / "out") == [4 * i for i in range(10)]


def test_a_requirement_that_the_chief_cannot_ship_is_refused_at_once(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    manifest = 'name = "needy"\nrequirements = ["no-such-distribution-anywhere"]\n'
    with pytest.raises(InvalidError) as caught:
        alone.client.submit(write_package(tmp_path / "p", "def process(fragment):\n    return 1\n", manifest=manifest), data)
    assert caught.value.code == "requirement-missing"
    assert "no-such-distribution-anywhere" in caught.value.text


def test_a_requirement_that_cannot_be_imported_blocks_the_job(alone: RunningCompany, data: Path, tmp_path: Path) -> None:
    site = tmp_path / "broken"
    install_tiny(site, "brokenreq", files={"brokenreq/__init__.py": "raise RuntimeError('built for another machine')\n"})
    pack_again(installed_distributions([str(site)])["brokenreq"], alone.home / "chief" / "wheels")
    start_worker(alone, "open", "--allow-requirements")
    manifest = 'name = "needy"\nrequirements = ["brokenreq"]\n'
    job = alone.client.submit(write_package(tmp_path / "p", "def process(fragment):\n    return 1\n", manifest=manifest), data)
    until(lambda: (alone.client.job(job.id).view.get("reason") or {}).get("code") == "requirement-broken", "the job says what is broken")
    assert "built for another machine" in alone.client.job(job.id).view["reason"]["text"]
