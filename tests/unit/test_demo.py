"""The parts of the demo that decide whether it may say that it worked."""

from __future__ import annotations

from pathlib import Path

import pytest

from company.demo import copy_library, find_examples, report_table, speed_words
from p2p.base.errors import UsageError


def test_the_library_is_copied_without_links_caches_and_what_others_installed(tmp_path: Path) -> None:
    library = tmp_path / "lib"
    for name in ("a.py", "json/b.py", "site-packages/c.py", "dist-packages/d.py", "__pycache__/e.py", "notes.txt"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text("x = 1\n")
    (library / "sitecustomize.py").symlink_to("/etc/hostname")
    assert copy_library(library, tmp_path / "out") == (2, 12)
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.py")) == ["a.py", "json/b.py"]


def test_a_python_without_library_files_is_an_error_and_not_an_empty_job(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    with pytest.raises(UsageError) as caught:
        copy_library(tmp_path / "lib", tmp_path / "out")
    assert caught.value.code == "no-library"


@pytest.mark.parametrize(
    ("plain_s", "company_s", "words"),
    [(8.0, 4.0, "2.0 times as fast"), (4.0, 4.1, "about as fast"), (1.0, 3.0, "3.0 times slower")],
)
def test_speed_is_said_as_it_is_also_when_the_company_was_slower(plain_s: float, company_s: float, words: str) -> None:
    text = speed_words(plain_s, company_s, 2)
    assert words in text
    assert ("does not pay" in text) == (company_s > 2 * plain_s)


def test_the_table_puts_the_most_frequent_side_by_side() -> None:
    report = {
        "files": 1, "lines": 2, "bytes": 3, "different_identifiers": 1, "different_words": 1,
        "identifiers": [["self", 1234]], "words": [["the", 99]],
    }  # fmt: skip
    assert report_table(report).splitlines()[-1].split() == ["1", "self", "1,234", "the", "99"]


def test_the_examples_are_found() -> None:
    assert (find_examples() / "wordcount/reference.py").is_file()
