"""Requests turned away at the door are logged, without secrets and without end."""

from __future__ import annotations

import logging

import pytest

from company.chief.api.refusals import LINES_PER_S, RefusalLog
from p2p.base.clock import Monotonic


def test_a_refusal_is_one_line_with_who_and_what(caplog: pytest.LogCaptureFixture) -> None:
    RefusalLog().note(401, "token-unknown", "GET", "/api/v1/jobs\n\x1b[2J", "192.0.2.1", Monotonic(0.0))
    assert caplog.messages == ["refused 401 token-unknown: GET /api/v1/jobs\\n\\x1b[2J from 192.0.2.1"]


def test_other_errors_are_not_the_doors(caplog: pytest.LogCaptureFixture) -> None:
    RefusalLog().note(404, "job-unknown", "GET", "/", "192.0.2.1", Monotonic(0.0))
    assert not caplog.messages


def test_a_flood_is_counted_instead_of_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    log = RefusalLog()
    for _ in range(1000):
        log.note(401, "token-unknown", "GET", "/", "192.0.2.1", Monotonic(5.2))
    assert len(caplog.messages) == LINES_PER_S
    log.note(401, "token-unknown", "GET", "/", "192.0.2.1", Monotonic(6.0))
    assert caplog.messages[-1].endswith(f"({1000 - LINES_PER_S} more before it were not shown)")
