"""What a function takes along: what opening its pickle imports, no more and no less."""

from __future__ import annotations

import decimal
import enum
import json
import os.path
import pickle
import xml.dom.minidom

import joblib
import pytest

from company.client import calls_entry as entry
from company.client.chunks import packed_calls
from company.client.functions import dumps, module_names, needs_of, portable
from tests.support import call_samples as samples


class Color(enum.Enum):
    RED = 1


def test_a_lambda_by_value_does_not_drag_the_imports_of_its_file_along() -> None:
    factor = 3
    needs = portable(lambda x: x * factor).needs
    assert (needs.requirements, list(needs.files)) == (set(), [])


def test_a_function_by_name_brings_its_own_module_and_nothing_else() -> None:
    needs = portable(samples.square).needs
    assert (needs.requirements, list(needs.files)) == (set(), ["tests/support/call_samples.py"])


def test_modules_that_a_function_by_value_uses_are_found_each_one_and_again() -> None:
    def uses(text: str) -> object:
        return json.loads(text), xml.dom.minidom.parseString(text), os.path.join(text), joblib.hash(text), json.dumps(text)

    assert {"json", "joblib"} <= module_names(dumps(uses))
    assert any(name.startswith("xml") for name in module_names(dumps(uses)))
    assert [r.partition("==")[0] for r in portable(uses).needs.requirements] == ["joblib"]


def test_a_word_that_is_also_a_module_is_no_need() -> None:
    assert portable(lambda: "joblib").needs.requirements == set()


@pytest.mark.parametrize(
    ("calls", "modules"),
    [
        ([1, 2.5, "a", b"\x93", [None]], set()),
        ([samples.Named("a"), samples.Named("b")], {"tests.support.call_samples"}),
        ([(samples.square, 3)], {"tests.support.call_samples"}),
        ([[{"at": Color.RED}]], {__name__}),
        ([decimal.Decimal(1)], {"decimal"}),
    ],
)
def test_the_modules_of_arguments_are_those_of_the_classes_and_functions_that_they_name(calls: list[object], modules: set[str]) -> None:
    body, found = packed_calls(entry.ONE, calls)
    assert found - {"builtins"} == modules  # by which Python 3.11.2 names the members of an enum
    assert len(pickle.loads(body)) == len(calls)


def test_arguments_that_go_by_value_bring_what_they_import() -> None:
    script: dict[str, object] = {"__name__": "__main__", "base": samples.Named}
    exec("class Own(base): ...\ndef own(): ...", script)
    _, found = packed_calls(entry.ONE, [script["Own"]("x")])  # type: ignore[operator]
    assert "tests.support.call_samples" in found and list(needs_of(found).files) == ["tests/support/call_samples.py"]
