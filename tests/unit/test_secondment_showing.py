"""Who works on a job, as it is shown."""

from __future__ import annotations

from company.cli.job_view import borrowed_text


def test_a_borrowed_slot_is_told_with_its_company_and_what_waits_to_be_checked() -> None:
    row = {"company": "co-abc", "contract": "63" * 32, "slots": 2, "results": 40, "provisional": 7}
    assert borrowed_text(row) == "co-abc: 2 slots, 40 results, 7 of them wait to be checked, contract 6363636363636363"
    assert borrowed_text(row | {"provisional": 0, "contract": ""}) == "co-abc: 2 slots, 40 results"
