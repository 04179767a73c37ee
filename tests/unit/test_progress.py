"""Bars where somebody looks and nowhere else; a job in a notebook, kept true until it ends."""

from __future__ import annotations

import io
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from company.client import notebook, progress
from company.client.client import Client
from company.client.job import Job

VIEW = {
    "id": "j-1",
    "name": "<b>me</b>",
    "state": "running",
    "fragments": {"done": 25, "failed": 1, "total": 100},
    "reason": {"text": "a<b"},
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress.bar_of("f", 3) is None
    assert progress.bar_of("f", 3, True) is not None
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert progress.bar_of("f", 3) is not None
    assert progress.bar_of("f", 3, False) is None
    monkeypatch.setenv("COMPANY_PROGRESS", "0")
    assert progress.bar_of("f", 3) is None


def test_a_terminal_sees_a_bar_once_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Terminal()
    monkeypatch.setattr(sys, "stderr", seen)
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 1000.0)
    bar = progress.bar_of("squares", 5)
    assert bar is not None
    bar.advance(2)
    bar.close()
    assert seen.getvalue() == ""  # it ended before anybody would have looked
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 0.0)
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    bar = progress.bar_of("squares", None)
    assert bar is not None
    bar.advance(2)
    bar.reach(4, 5)
    bar.close()
    assert "squares" in seen.getvalue() and "4/5" in seen.getvalue()


def test_what_people_have_written_is_no_markup() -> None:
    page = notebook.page_of(VIEW)
    assert "<b>me</b>" not in page and "&lt;b&gt;me" in page and "a&lt;b" in page
    assert "width:26%" in page and "25 of 100 done" in page and "1 failed" in page
    assert "width:100%" in notebook.page_of({"id": "j", "state": "done", "fragments": {}})


def test_a_notebook_follows_a_job_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    fake: Any = ModuleType("IPython.display")
    fake.HTML = str
    fake.display = lambda page, display_id: shown.append(page) or SimpleNamespace(update=shown.append)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    coming = [VIEW | {"fragments": {"done": 60, "total": 100}}, VIEW | {"fragments": {"done": 60, "total": 100}}, VIEW | {"state": "done"}]

    def status(self: Job, *, wait_s: float = 0.0) -> dict[str, Any]:
        self.view = coming.pop(0)
        return self.view

    monkeypatch.setattr(Job, "status", status)
    job = Job(Client(SimpleNamespace(url="http://x", host="x", port=1, token=None, pid=None)), VIEW)  # type: ignore[arg-type]
    notebook.follow(job).join(30)
    assert [("25 of" in page, "60 of" in page, "done</b>" in page) for page in shown] == [
        (True, False, False), (False, True, False), (True, False, True),
    ]  # fmt: skip
    assert job._repr_html_() == notebook.page_of(VIEW)
