"""Requests drawn from the OpenAPI document of a running chief: whatever comes, an answer as documented and never a 5xx of ours."""

from __future__ import annotations

import os
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup

from tests.support.company_processes import RunningCompany

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "4"))  # of each operation; more by hand
# these end the chief, wait by design, or write where the request says
LEFT_OUT = ("/api/v1/admin/stop", "/api/v1/admin/backup", "/api/v1/events", "/workers/next", "/next")


schemathesis.serializer.alias(["application/offset+octet-stream"], "application/octet-stream")


def test_no_request_of_the_documented_form_brings_the_chief_into_trouble(company: RunningCompany) -> None:
    url = str(company.ready["chief"]["http"])
    token = str(company.ready["chief"]["token"])
    headers = {"Authorization": f"Bearer {token}"}
    schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json", headers=headers)
    troubles: list[str] = []
    tried = 0

    for found in schema.get_all_operations():
        operation = found.ok()
        if any(part in operation.path for part in LEFT_OUT):
            continue
        tried += 1

        @hypothesis.given(case=operation.as_strategy())
        @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def attempt(case: Any) -> None:
            answer = case.call(headers=headers, timeout=20, base_url=url)
            is_problem = answer.status_code >= 400
            kind = " ".join(answer.headers.get("content-type", []))
            assert not is_problem or "application/problem+json" in kind, (case.method, case.path, answer.status_code, kind)
            case.validate_response(answer, checks=(not_a_server_error,))

        try:
            attempt()
        except (AssertionError, FailureGroup, ExceptionGroup) as error:
            troubles.append(f"{operation.method.upper()} {operation.path}: {str(error)[:800]}")
    assert tried > 20
    assert company.client.company()["id"], "it lives"
    assert not troubles, "\n\n".join(troubles)
