"""What a child does with a module package before it runs anything."""

import functools
from pathlib import Path
from typing import Any

import pytest

from company import task
from company.fragment import Fragment
from company.sandbox.inside import package


def test_a_function_gets_the_parameters_it_names() -> None:
    def process(fragment: int, *, factor: int = 1) -> int:
        return fragment * factor

    assert package.bind(process, {"factor": 3, "other": 1}, positional=1)(2) == 6
    assert package.bind(process, {"fragment": 9}, positional=1)(2) == 2  # never overwrites what is given by position


def test_a_function_with_open_keywords_gets_all() -> None:
    def process(fragment: int, **params: Any) -> list[str]:
        return sorted(params)

    assert package.bind(process, {"b": 1, "a": 2}, positional=1)(0) == ["a", "b"]


def test_callables_that_are_no_plain_functions_are_bound_as_well() -> None:
    class Model:
        def __call__(self, fragment: int, factor: int = 1) -> int:
            return fragment * factor

    assert package.bind(Model(), {"factor": 4, "x": 1}, positional=1)(2) == 8
    assert package.bind(functools.partial(pow, 2), {"x": 1}, positional=1)(3) == 8


def test_a_function_without_named_parameters_stays_itself() -> None:
    def process(fragment: int) -> int:
        return fragment

    assert package.bind(process, {"factor": 3}, positional=1) is process


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x"])
def test_files_stay_under_the_packages_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(package.PackageError):
        package.write_files(str(tmp_path / "p"), [name.encode(), b""])


def test_a_preview_is_bounded_and_survives_a_broken_repr() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert len(package.preview("x" * 10_000, 200)) <= 200
    assert package.preview(list(range(1000)), 500).endswith("...]")
    assert "Broken" in package.preview(Broken(), 200) or "no preview" in package.preview(Broken(), 200)


def test_an_exception_with_a_broken_text_is_still_told() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    kind, message, traceback = package.describe(Broken(), "/package")
    assert kind.endswith("Broken") and message and traceback


def test_an_endless_traceback_is_cut_at_its_beginning() -> None:
    try:
        raise ValueError("é" * 50_000)
    except ValueError as error:
        _, message, text = package.describe(error, "/package")
    assert len(text.encode()) <= package.MAX_TRACEBACK_BYTES + 8 and len(message) <= package.MAX_MESSAGE_CHARS


def test_a_fragments_cost_is_a_positive_finite_number() -> None:
    assert Fragment("v", cost=2).cost == 2.0
    for cost in (0, -1, float("inf"), float("nan"), "1"):
        with pytest.raises(ValueError):
            Fragment("v", cost=cost)  # type: ignore[arg-type]


def test_task_is_harmless_outside_a_sandbox_and_names_are_plain() -> None:
    task.status("x", 0.5)
    task.artifact("a.bin", b"")
    assert task.index() is None
    for name in ("", "a/b", "..", "x" * 300):
        with pytest.raises(ValueError):
            task.artifact(name, b"")
    with pytest.raises(ValueError):
        task.progress(1.5)
