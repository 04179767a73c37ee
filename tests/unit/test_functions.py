"""What a function takes along: what opening its pickle imports, no more and no less."""

from __future__ import annotations

import json
import os.path
import xml.dom.minidom

import joblib

from company.client.functions import dumps, module_names, portable
from tests.support import call_samples as samples


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
