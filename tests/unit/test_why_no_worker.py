"""What can be known before anything is sent: no worker has this Python, or none takes the distributions that calls need."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest

from company.client.client import Client
from company.client.session import why_no_worker

HERE = ".".join(map(str, sys.version_info[:3]))


class Workers:
    """A client that knows these workers."""

    def __init__(self, *workers: dict[str, Any]) -> None:
        self._workers = [{"state": "idle", "python": HERE} | worker for worker in workers]

    def workers(self) -> dict[str, Any]:
        return {"items": self._workers}


def why(*workers: dict[str, Any], needs: tuple[str, ...] = ()) -> str:
    error = why_no_worker(cast("Client", Workers(*workers)), needs)
    return "" if error is None else error.code


@pytest.mark.parametrize(
    ("workers", "needs", "code"),
    [
        ((), ("joblib==1.0",), ""),
        (({},), (), ""),
        (({"python": "2.7.18"},), (), "python-differs"),
        (({"python": "2.7.18"}, {}), (), ""),
        (({"python": "2.7.18", "state": "offline"},), (), ""),
        (({"requirements_allowed": False},), ("joblib==1.0",), "requirements-not-allowed"),
        (({"requirements_allowed": False}, {"requirements_allowed": True}), ("joblib==1.0",), ""),
        (
            ({"requirements_allowed": False}, {"requirements_allowed": True, "state": "offline"}),
            ("joblib==1.0",),
            "requirements-not-allowed",
        ),
        (
            ({"requirements_allowed": False}, {"requirements_allowed": True, "python": "2.7.18"}),
            ("joblib==1.0",),
            "requirements-not-allowed",
        ),
        (({"requirements_allowed": False},), ("numpy",), ""),
        (({},), ("joblib==1.0",), ""),
    ],
)
def test_what_no_worker_can_run_is_said_before_it_is_sent(workers: tuple[dict[str, Any], ...], needs: tuple[str, ...], code: str) -> None:
    assert why(*workers, needs=needs) == code
