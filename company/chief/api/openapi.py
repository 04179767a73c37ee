"""The OpenAPI document, made of the types that the server decodes and of the routes themselves (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from company.chief.api.gate import Endpoint

_REF: Final = "#/components/schemas/{name}"
_NAMED = re.compile(r"\{(\w+)(?::[^{}]*)?\}")


def openapi_document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """OpenAPI 3.1 of all endpoints."""
    shown = [e for e in endpoints if not e.is_hidden]
    structs = sorted({t for e in shown for t in (e.body, e.answer) if isinstance(t, type)}, key=lambda t: t.__name__)
    schemas, components = msgspec.json.schema_components(structs, ref_template=_REF)
    refs = dict(zip(structs, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in shown:
        path = _NAMED.sub(r"{\1}", endpoint.pattern)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, path, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Company",
            "version": version,
            "description": "A chief and its workers compute together.",
            "license": {"name": "BSD-3-Clause"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components | {"Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, path: str, refs: dict[type, dict[str, Any]]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _NAMED.findall(endpoint.pattern)
    ] + [{"name": name, "in": "query", "schema": {"type": "string"}} for name in endpoint.query]
    if endpoint.repeatable:
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}})
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{path}").strip("_"),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "x-role": endpoint.need,
        "parameters": parameters,
        "security": [] if endpoint.need == "open" else [{"bearer": []}],
        "responses": {str(endpoint.status): _answer(endpoint, refs), "default": _REFUSAL},
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"content": _content(endpoint.body, refs)}
    return operation


def _answer(endpoint: Endpoint, refs: dict[type, dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": endpoint.summary}
    if endpoint.answer is None:
        return answer
    content = _content(endpoint.answer, refs)
    if endpoint.is_list:
        item = content["application/json"]["schema"]
        count = {"type": "integer", "minimum": 0}
        content["application/json"] = {
            "schema": {
                "type": "object",
                "required": ["items", "total", "returned", "truncated"],
                "properties": {
                    "items": {"type": "array", "items": item},
                    "total": count,
                    "returned": count,
                    "truncated": {"type": "boolean"},
                },
            }
        }
    return answer | {"content": content}


def _content(kind: Any, refs: dict[type, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(kind, str):
        return {kind: {"schema": {} if kind == "application/json" else {"type": "string"}}}
    return {"application/json": {"schema": refs[kind]}}


_TEXT: Final = {"type": "string"}
_PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "type": "object",
    "description": "RFC 9457; further members are facts of the code.",
    "required": ["type", "title", "status", "detail", "code", "retryable"],
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "instance": _TEXT,
        "code": _TEXT,
        "hint": _TEXT,
        "retryable": {"type": "boolean"},
    },
}
_REFUSAL: Final = {
    "description": "A problem, RFC 9457",
    "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}},
}
