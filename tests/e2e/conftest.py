"""One company for all end-to-end tests that do not harm it: a chief and two workers with one slot each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.company_processes import RunningCompany


@pytest.fixture(scope="session")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCompany]:
    with RunningCompany(tmp_path_factory.mktemp("company")) as running:
        running.start_chief()
        running.start_workers("w1", "w2")
        yield running


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset for packages that make their fragments of parameters."""
    path = tmp_path_factory.mktemp("data") / "data.txt"
    path.write_text("one\ntwo\nthree\n")
    return path
