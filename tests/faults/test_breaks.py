"""The list of breaks fits the tree: every text occurs once, every test is there. Running them is `python -m tests.faults.breaks`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.break_list import BREAKS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: f"{one.promise}: {one.what}"[:80])
def test_a_break_still_fits_the_tree(one) -> None:  # type: ignore[no-untyped-def]
    assert (ROOT / one.file).read_text().count(one.old) == 1, one.file
    assert one.old != one.new
    for test in one.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text()
        for word in name.partition("[")[0].split("::"):
            assert not word or re.search(rf"(def|class) {word}\b|^{word} = ", text, re.MULTILINE), test


def test_the_page_names_every_break() -> None:
    text = (ROOT / "docs" / "testing.md").read_text()
    assert [b.what for b in BREAKS if f"| {b.what} |" not in text] == []
