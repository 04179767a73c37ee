"""Programs that no one here wrote, unmodified: one of those of `python -m tests.foreign`, whose table stands in docs/programs.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.foreign.__main__ import compare
from tests.foreign.programs import PROGRAMS
from tests.support.company_processes import RunningCompany

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["CPython Lib/compileall.py -j 2"])
def test_it_ends_as_it_does_alone(name: str, company: RunningCompany, tmp_path: Path) -> None:
    (program,) = (p for p in PROGRAMS if p.name == name)
    outcome, why = compare(program, tmp_path, company.home)
    if outcome == "left out":
        pytest.skip(f"{name}: {why}")
    assert outcome == "same", why


def test_the_page_has_a_row_for_each_program() -> None:
    page = (ROOT / "docs" / "programs.md").read_text("utf-8")
    assert [p.name for p in PROGRAMS if f"\n| {p.name} | {p.uses} |" not in page] == []
