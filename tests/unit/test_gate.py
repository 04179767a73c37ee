"""Tokens, logins and workers at the chief's gate, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from company import messages as m
from company import views
from company.chief.facade import Principal, Refused
from company.chief.gate import Gate
from company.chief.store.store import Store
from company.chief.tokens import TokenRefused
from company.tokens import parse_token_untrusted
from p2p.base.errors import PeerError
from p2p.base.keys import Identity

OWNER = Principal("local-owner", "owner", "owner")
MACHINE = m.Machine("lab-1", 2, 2, 1 << 30, "3.11.7", "Linux x86_64", "bubblewrap", False, None, None, "0.1.0")
CHIEF = Identity(b"c" * 32)


@asynccontextmanager
async def opened(path: Path, identity: Identity = CHIEF) -> AsyncIterator[Gate]:
    store = Store.open(path / "company.sqlite")
    try:
        gate = Gate(store, identity, lambda: ["127.0.0.1:8468"])
        await gate.load()
        yield gate
    finally:
        await store.aclose()


async def make_join(gate: Gate, *, uses: int = 1, ttl_s: float = 60.0) -> m.Join:
    text, _ = await gate.create_token(views.TokenRequest(role="worker", uses=uses, ttl_s=ttl_s), OWNER)
    token = parse_token_untrusted(text)
    return m.Join(token.id, token.secret, None)


async def test_a_join_token_admits_as_many_machines_as_it_says(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        join = await make_join(gate, uses=2)
        first = await gate.join(join, MACHINE, b"a" * 32, "10.0.0.1:1")
        second = await gate.join(join, MACHINE, b"b" * 32, "10.0.0.2:1")
        assert first.worker != second.worker
        with pytest.raises(TokenRefused) as refused:
            await gate.join(join, MACHINE, b"d" * 32, "10.0.0.3:1")
        assert refused.value.code == "token-used-up"
        assert len(gate.workers) == 2


async def test_a_known_key_gets_its_id_back_and_uses_nothing_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        join = await make_join(gate)
        first = await gate.join(join, MACHINE, b"a" * 32, "10.0.0.1:1")
        again = await gate.join(join, MACHINE, b"a" * 32, "10.0.0.1:2")
        assert again.worker == first.worker
        assert again.supervisor == first.supervisor


async def test_a_worker_resumes_after_the_chief_restarted_but_only_with_its_own_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        worker = (await gate.join(await make_join(gate), MACHINE, b"a" * 32, "10.0.0.1:1")).worker
    async with opened(tmp_path) as gate:
        here = await gate.resume(worker, b"a" * 32, MACHINE, "10.0.0.1:9")
        assert here.spec.id == worker
        assert here.spec.slots == 2
        with pytest.raises(PeerError) as refused:
            await gate.resume(worker, b"x" * 32, MACHINE, "10.0.0.1:9")
        assert refused.value.code == "worker-unknown"


async def test_a_wrong_secret_and_an_unknown_token_are_told_alike(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        join = await make_join(gate)
        for wrong in (m.Join(join.token_id, b"w" * 16, None), m.Join("nobody", join.secret, None)):
            with pytest.raises(TokenRefused) as refused:
                await gate.join(wrong, MACHINE, b"a" * 32, "10.0.0.1:1")
            assert refused.value.code == "token-unknown"
        assert not gate.workers


async def test_a_revoked_token_admits_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        join = await make_join(gate)
        await gate.revoke_token(join.token_id)
        with pytest.raises(TokenRefused) as refused:
            await gate.join(join, MACHINE, b"a" * 32, "10.0.0.1:1")
        assert refused.value.code == "token-revoked"


async def test_a_clients_token_is_no_join_token(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        text, _ = await gate.create_token(views.TokenRequest(role="submitter"), OWNER)
        token = parse_token_untrusted(text)
        with pytest.raises(PeerError) as refused:
            await gate.join(m.Join(token.id, token.secret, None), MACHINE, b"a" * 32, "10.0.0.1:1")
        assert refused.value.code == "token-wrong-role"


async def test_each_fault_of_an_access_token_has_its_own_code(tmp_path: Path) -> None:
    async with opened(tmp_path / "other", Identity(b"o" * 32)) as other:
        foreign, _ = await other.create_token(views.TokenRequest(role="viewer"), OWNER)
    async with opened(tmp_path) as gate:
        text, info = await gate.create_token(views.TokenRequest(role="viewer", label="dash"), OWNER)
        assert (await gate.authenticate(text)) == Principal(info.id, "viewer", "dash")
        codes = {}
        for name, token in (("malformed", "cmpv1.nonsense"), ("foreign", foreign)):
            with pytest.raises(Refused) as refused:
                await gate.authenticate(token)
            codes[name] = refused.value.code
        await gate.revoke_token(info.id)
        with pytest.raises(Refused) as refused:
            await gate.authenticate(text)
        codes["revoked"] = refused.value.code
        assert codes == {"malformed": "token-malformed", "foreign": "wrong-chief", "revoked": "token-revoked"}


async def test_a_login_opens_exactly_one_session(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        secret = await gate.create_login(OWNER)
        session, who = await gate.use_login(secret)
        assert who.role == "owner"
        assert (await gate.authenticate(session)).role == "owner"
        with pytest.raises(Refused) as refused:
            await gate.use_login(secret)
        assert refused.value.code == "token-used-up"
        with pytest.raises(Refused):
            await gate.authenticate("cmpx1." + secret)  # a login is not a session


async def test_a_session_that_was_ended_is_worthless_and_an_access_token_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        session, _ = await gate.use_login(await gate.create_login(OWNER))
        await gate.end_session(session)
        with pytest.raises(Refused) as refused:
            await gate.authenticate(session)
        assert refused.value.code == "token-revoked"
        access, _ = await gate.create_token(views.TokenRequest(role="viewer"), OWNER)
        await gate.end_session(access)
        assert (await gate.authenticate(access)).role == "viewer"


async def test_secrets_are_not_in_the_database(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        text, _ = await gate.create_token(views.TokenRequest(role="owner"), OWNER)
        secret = parse_token_untrusted(text).secret
        login = (await gate.create_login(OWNER)).partition(".")[2].encode()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("company.sqlite*"))
    assert secret not in stored
    assert login not in stored


async def test_the_local_tokens_of_an_earlier_start_stop_working(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        old = await gate.local_token("owner")
    async with opened(tmp_path) as gate:
        new = await gate.local_token("owner")
        assert (await gate.authenticate(new)).role == "owner"
        with pytest.raises(Refused):
            await gate.authenticate(old)
        assert await gate.list_tokens() == []  # not shown among the user's own
