"""Who may call what, and what they are told when they may not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from company.chief.api import Auth, api_routes
from company.chief.api.auth import has_role
from company.chief.api.throttle import MAX_ADDRESSES, FailureLimit
from p2p.base.clock import Monotonic
from tests.support.fake_chief import TOKENS, FakeChief
from tests.support.fake_request import FakeServer

COOKIE = "company_session_c0ffee"


class World:
    """A fake chief behind the real routes, with a clock that tests move."""

    def __init__(self, directory: Path, **auth: Any) -> None:
        self.now = 0.0
        self.chief = FakeChief(directory)
        self.auth = Auth(self.chief, monotonic=lambda: Monotonic(self.now), csrf_key=b"k" * 32, cookie_id="c0ffee", **auth)
        self.routes = api_routes(self.chief, auth=self.auth)
        self.server = FakeServer(self.routes)

    def bearer(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKENS[role]}"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_no_token_is_401_with_challenge_and_hint(world: World) -> None:
    answer = await world.server.call("GET", "/api/v1/jobs")
    assert (answer.status, answer.code, answer.media_type) == (401, "token-missing", "application/problem+json")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert set(answer.json()) >= {"type", "title", "status", "detail", "instance", "code", "hint", "retryable"}


async def test_wrong_token_is_401_with_the_chiefs_own_code(world: World) -> None:
    for token, code in (("nonsense", "token-unknown"), ("expired-1", "token-expired")):
        answer = await world.server.call("GET", "/api/v1/jobs", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status, answer.code) == (401, code)
    answer = await world.server.call("GET", "/api/v1/jobs", headers={"Authorization": "Basic eA=="})
    assert (answer.status, answer.code) == (401, "auth-scheme-unknown")


async def test_every_route_refuses_every_role_that_is_too_small(world: World) -> None:
    for route in world.routes:
        need = route.meta["endpoint"].need
        for role in TOKENS:
            if not has_role(role, need):
                url = re.sub(r"\{[^}]+\}", "x", route.pattern.replace("{n}", "1"))
                answer = await world.server.call(route.method, url, headers=world.bearer(role))
                assert (answer.status, answer.code) == (403, "role-missing"), (route.method, route.pattern, role)


def test_roles_are_ordered_and_workers_stand_aside() -> None:
    assert has_role("owner", "viewer") and has_role("submitter", "submitter") and not has_role("viewer", "submitter")
    assert not has_role("owner", "worker") and not has_role("worker", "viewer") and has_role("worker", "worker")


async def test_foreign_host_is_421_and_the_hint_names_the_option(world: World) -> None:
    answer = await world.server.call("GET", "/api/v1/health/live", headers={"Host": "evil.example:8470"})
    assert (answer.status, answer.code) == (421, "host-not-allowed")
    assert "--allow-host evil.example" in answer.json()["hint"]


@pytest.mark.parametrize("host", ["127.0.0.1:8470", "localhost:9999", "LOCALHOST", "[::1]:8470", "localhost.:1"])
async def test_own_names_are_answered_on_any_port(world: World, host: str) -> None:
    assert (await world.server.call("GET", "/api/v1/health/live", headers={"Host": host})).status == 200


async def test_added_host_is_answered(tmp_path: Path) -> None:
    world = World(tmp_path, hosts=["chief.lab"])
    assert (await world.server.call("GET", "/api/v1/health/live", headers={"Host": "chief.lab:8470"})).status == 200
    assert (await world.server.call("GET", "/api/v1/health/live", headers={"Host": "localhost"})).status == 421


async def test_foreign_origin_may_not_change_anything(world: World) -> None:
    world.chief.add_job("j-1", owner="owner")
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:9"},
    ):
        answer = await world.server.call("POST", "/api/v1/jobs/j-1/pause", headers=world.bearer("owner") | headers)
        assert (answer.status, answer.code) == (403, "origin-not-allowed"), headers
        assert "--allow-origin" in answer.json()["hint"]
    assert not world.chief.jobs["j-1"].paused


async def test_own_and_added_origins_may_change_things(tmp_path: Path) -> None:
    world = World(tmp_path, origins=["https://front.lab"])
    world.chief.add_job("j-1", owner="owner")
    for origin in ("http://127.0.0.1:8470", "https://front.lab"):
        answer = await world.server.call("POST", "/api/v1/jobs/j-1/pause", headers=world.bearer("owner") | {"Origin": origin})
        assert answer.status == 202


async def test_cookie_reads_but_changes_nothing_without_the_csrf_token(world: World) -> None:
    world.chief.add_job("j-1", owner="owner")
    session, _ = await world.chief.use_login(await world.chief.create_login(await world.chief.authenticate(TOKENS["owner"])))
    cookies = {COOKIE: session}
    assert (await world.server.call("GET", "/api/v1/jobs", cookies=cookies)).status == 200
    for given in ({}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": "ü"}):
        answer = await world.server.call("POST", "/api/v1/jobs/j-1/pause", cookies=cookies, headers=given)
        assert (answer.status, answer.code) == (403, "csrf-token-wrong")
    assert not world.chief.jobs["j-1"].paused


async def test_cookie_with_its_csrf_token_changes_things(world: World) -> None:
    from tests.support.fake_request import FakeRequest

    world.chief.add_job("j-1", owner="owner")
    session, _ = await world.chief.use_login(await world.chief.create_login(await world.chief.authenticate(TOKENS["owner"])))
    cookies = {COOKIE: session}
    token = world.auth.csrf_token(FakeRequest("GET", "/", cookies=cookies))
    other = world.auth.csrf_token(FakeRequest("GET", "/", cookies={COOKIE: "another"}))
    assert (await world.server.call("POST", "/api/v1/jobs/j-1/pause", cookies=cookies, headers={"X-CSRF-Token": other})).status == 403
    assert (await world.server.call("POST", "/api/v1/jobs/j-1/pause", cookies=cookies, headers={"X-CSRF-Token": token})).status == 202


def test_session_cookie_is_strict_http_only_and_secure_over_tls(world: World) -> None:
    plain, tls = world.auth.session_cookie("s", is_tls=False), world.auth.session_cookie("s", is_tls=True)
    for cookie in (plain, tls):
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    assert tls.startswith("__Host-") and tls.endswith("; Secure") and "Secure" not in plain
    assert "Max-Age=0" in world.auth.end_cookie(is_tls=False)


async def test_failed_logins_are_limited_and_a_right_token_is_not(world: World) -> None:
    bad = {"Authorization": "Bearer wrong"}
    statuses = [(await world.server.call("GET", "/api/v1/jobs", headers=bad)).status for _ in range(25)]
    assert statuses[:20] == [401] * 20 and statuses[20:] == [429] * 5
    assert (await world.server.call("GET", "/api/v1/jobs", headers=world.bearer("viewer"))).status == 200
    assert (await world.server.call("GET", "/api/v1/jobs", headers=bad, remote="10.0.0.9")).status == 401
    world.now += 100
    answer = await world.server.call("GET", "/api/v1/jobs", headers=bad)
    assert answer.status == 401


def test_failure_table_is_bounded() -> None:
    limit = FailureLimit()
    for index in range(MAX_ADDRESSES + 50):
        limit.failed(f"10.0.{index >> 8}.{index & 255}", Monotonic(0.0))
    assert len(limit._levels) == MAX_ADDRESSES


async def test_every_answer_has_the_security_headers(world: World) -> None:
    for answer in (await world.server.call("GET", "/api/v1/health/live"), await world.server.call("GET", "/api/v1/jobs")):
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["X-Frame-Options"] == "DENY"


async def test_nobody_makes_or_revokes_a_token_mightier_than_its_own(world: World) -> None:
    body = b'{"role": "owner"}'
    answer = await world.server.call("POST", "/api/v1/tokens", headers=world.bearer("operator"), data=body)
    assert (answer.status, answer.code) == (403, "role-missing") and not world.chief.tokens
    made = await world.server.call("POST", "/api/v1/tokens", headers=world.bearer("owner"), data=body)
    assert made.status == 201 and made.json()["token"].startswith("secret-")
    token_id = made.json()["info"]["id"]
    assert (await world.server.call("DELETE", f"/api/v1/tokens/{token_id}", headers=world.bearer("operator"))).status == 403
    assert (await world.server.call("DELETE", f"/api/v1/tokens/{token_id}", headers=world.bearer("owner"))).status == 204
    assert world.chief.tokens[token_id].revoked
    assert (await world.server.call("DELETE", "/api/v1/tokens/t-99", headers=world.bearer("owner"))).status == 404


async def test_operator_makes_worker_tokens_with_the_lines_to_copy(world: World) -> None:
    answer = await world.server.call("POST", "/api/v1/tokens", headers=world.bearer("operator"), data=b'{"role":"worker","uses":5}')
    assert answer.status == 201 and answer.json()["join_line"] and answer.json()["install_line"]


async def test_login_link_is_made_for_whoever_asks(world: World) -> None:
    answer = await world.server.call("POST", "/api/v1/login-links", headers=world.bearer("viewer"))
    assert answer.status == 201 and answer.json()["url"] == "http://127.0.0.1:8470/login?secret=login%200"
    assert world.chief.logins["login 0"].role == "viewer"
