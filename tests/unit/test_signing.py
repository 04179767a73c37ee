"""Who may vouch for a package."""

from __future__ import annotations

from dataclasses import replace

import pytest

from company.package import PackageClaim, check_package, claim_of, sign_package, verify_package
from p2p.base.envelope import BadSignature, seal
from p2p.base.errors import MalformedMessage, PeerError
from p2p.base.keys import Identity

CHIEF, CLIENT, STRANGER = Identity(b"1" * 32), Identity(b"2" * 32), Identity(b"3" * 32)
CLAIM = PackageClaim(package=b"p" * 32, processor=b"q" * 32, name="wordcount", version="1.0", signed_for="")


def test_a_clients_own_signature_holds() -> None:
    verify_package(CLAIM, signer=CLIENT.public, signature=sign_package(CLIENT, CLAIM), chief=CHIEF.public)


@pytest.mark.parametrize("change", [{"package": b"x" * 32}, {"processor": b"x" * 32}, {"name": "x"}, {"version": "2"}, {"signed_for": "x"}])
def test_no_field_can_be_changed_after_signing(change: dict[str, object]) -> None:
    with pytest.raises(BadSignature):
        verify_package(replace(CLAIM, **change), signer=CLIENT.public, signature=sign_package(CLIENT, CLAIM), chief=CHIEF.public)  # type: ignore[arg-type]


def test_another_key_or_another_purpose_does_not_hold() -> None:
    with pytest.raises(BadSignature):
        verify_package(CLAIM, signer=STRANGER.public, signature=sign_package(CLIENT, CLAIM), chief=CHIEF.public)
    _, other_purpose = seal(CLIENT, "offer", bytes(16), CLAIM.as_array())
    with pytest.raises(BadSignature):
        verify_package(CLAIM, signer=CLIENT.public, signature=other_purpose, chief=CHIEF.public)


def test_only_the_chief_may_sign_for_a_user() -> None:
    for_ada = replace(CLAIM, signed_for="ada")
    verify_package(for_ada, signer=CHIEF.public, signature=sign_package(CHIEF, for_ada), chief=CHIEF.public)
    with pytest.raises(PeerError) as caught:
        verify_package(for_ada, signer=CLIENT.public, signature=sign_package(CLIENT, for_ada), chief=CHIEF.public)
    assert caught.value.code == "signed-for-other"


def test_an_owner_may_insist_on_a_clients_own_key() -> None:
    for_ada = replace(CLAIM, signed_for="ada")
    with pytest.raises(PeerError) as caught:
        verify_package(for_ada, signer=CHIEF.public, signature=sign_package(CHIEF, for_ada), chief=CHIEF.public, trusted={CLIENT.public})
    assert caught.value.code == "signer-not-trusted"
    verify_package(CLAIM, signer=CLIENT.public, signature=sign_package(CLIENT, CLAIM), chief=CHIEF.public, trusted={CLIENT.public})


def test_malformed_parts_raise_nothing_else() -> None:
    for claim, signer, signature in (
        (replace(CLAIM, package=b""), CLIENT.public, bytes(64)),
        (CLAIM, b"", bytes(64)),
        (CLAIM, CLIENT.public, b""),
    ):
        with pytest.raises(MalformedMessage):
            verify_package(claim, signer=signer, signature=signature, chief=CHIEF.public)


def test_a_claim_names_what_was_checked() -> None:
    files = {
        "package.toml": b'version = "3"', "split.py": b"def split(data): yield 1", "merge.py": b"def merge(results, output): pass",
        "processor/main.py": b"def process(fragment): return 1",
    }  # fmt: skip
    info = check_package(files, default_name="x")
    assert claim_of(info, signed_for="ada") == PackageClaim(
        package=info.digest, processor=info.processor_digest, name="x", version="3", signed_for="ada"
    )
