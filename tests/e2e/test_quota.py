"""A submitter fills what it may keep, by REST alone and over a restart, and gets room again by removing what it sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from company.errors import LimitError
from tests.support.company_processes import RunningCompany

LIMIT = 1_000_000
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}


def test_what_a_submitter_may_keep_is_held_to_in_every_way_to_send_and_over_a_restart(tmp_path: Path) -> None:
    with RunningCompany(tmp_path) as company:
        company.start_chief("--quota", "1MB")
        token = str(company.client.create_token("submitter", label="ann")["token"])
        ann = company.client_with(token).transport

        def refused(size: int, *, resumable: bool) -> LimitError:
            with pytest.raises(LimitError) as caught:
                if resumable:
                    ann.request("POST", "/api/v1/uploads", body=b"", headers=TUS | {"Upload-Length": str(size), "Content-Length": "0"})
                else:
                    ann.request("POST", "/upload/data", body=b"z" * size, query={"name": "z"})
            assert caught.value.code == "quota-exceeded", caught.value
            return caught.value

        first = ann.request("POST", "/upload/data", body=b"a" * 500_000, query={"name": "first"}).json()
        begun = ann.request("POST", "/api/v1/uploads", body=b"", headers=TUS | {"Upload-Length": "400000", "Content-Length": "0"})
        place = begun.headers["location"]
        ann.request("PATCH", place, body=b"b" * 100_000, headers=PIECE | {"Upload-Offset": "0"})
        for resumable in (False, True):  # what has begun is counted whole
            said = refused(100_001, resumable=resumable).facts
            assert (said["limit_bytes"], said["used_bytes"], said["needed_bytes"]) == (LIMIT, 900_000, 100_001)
            assert said["largest"][0] == {"kind": "dataset", "id": first["digest"], "size_bytes": 500_000}
        company.client.transport.request("POST", "/upload/data", body=b"o" * 2 * LIMIT, query={"name": "owners"})  # its own disk

        company.stop("chief")
        company.start_chief("--quota", "1MB")
        ann = company.client_with(token).transport
        refused(100_001, resumable=True)
        ann.request("PATCH", place, body=b"b" * 300_000, headers=PIECE | {"Upload-Offset": "100000"})  # what has begun can end
        own = ann.request("GET", "/api/v1/limits").json()
        assert (own["quota_bytes"], own["quota_used_bytes"], own["quota_left_bytes"]) == (LIMIT, 900_000, 100_000)
        status = json.loads(company.command("status", "--json").stdout)
        assert (status["quota_bytes"], status["kept_bytes"]) == (LIMIT, {"owner": 2 * LIMIT, "ann": 900_000})
        ann.request("DELETE", f"/api/v1/datasets/{first['digest']}")
        ann.request("POST", "/upload/data", body=b"c" * 600_000, query={"name": "again"})
        refused(1, resumable=False)
