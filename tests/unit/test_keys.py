"""Rules of identities, the names made from them, and the generators named after parts."""

import pickle
import stat
from pathlib import Path

import pytest

from p2p.base.errors import UsageError
from p2p.base.ids import id_text, random_id
from p2p.base.keys import Identity, company_id_text, fingerprint, is_signed_by, node_id
from p2p.base.rng import Seed
from p2p.net.identity_file import load_identity, load_or_create_identity

# RFC 8032, 7.1, test 1
RFC_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_public_key_and_signature_are_those_of_rfc_8032() -> None:
    identity = Identity(RFC_SEED)
    assert identity.public == RFC_PUBLIC
    assert identity.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a")


def test_a_signature_holds_for_its_bytes_and_key_only() -> None:
    one, two = Identity(b"1" * 32), Identity(b"2" * 32)
    signature = one.sign(b"text")
    assert is_signed_by(one.public, b"text", signature)
    assert not is_signed_by(one.public, b"texT", signature)
    assert not is_signed_by(two.public, b"text", signature)
    assert not is_signed_by(one.public, b"text", signature[:-1])
    assert not is_signed_by(b"short", b"text", signature)


def test_a_key_of_small_order_verifies_nothing() -> None:
    assert not is_signed_by(bytes(32), b"text", bytes(64))
    assert not is_signed_by(b"\1" + bytes(31), b"text", b"\1" + bytes(63))


def test_names_are_made_from_the_key() -> None:
    identity = Identity(RFC_SEED)
    assert len(node_id(identity.public)) == 20
    assert company_id_text(identity.public) == identity.company_id
    assert identity.company_id.startswith("co-") and len(identity.company_id) == 19 and identity.company_id.islower()
    assert len(fingerprint(identity.public).split(" ")) == 8


def test_an_identity_neither_prints_nor_pickles_its_seed() -> None:
    identity = Identity(RFC_SEED)
    assert RFC_SEED.hex() not in repr(identity) and repr(RFC_SEED) not in repr(identity)
    with pytest.raises(TypeError):
        pickle.dumps(identity)
    with pytest.raises(ValueError, match="32 bytes, got 31"):
        Identity(bytes(31))


def test_an_identity_file_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "key"
    first = load_or_create_identity(path)
    assert load_or_create_identity(path).public == first.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("text", ["", "ed25519-seed zz", "ed25519-seed " + "0" * 62, "0" * 64])
def test_a_damaged_identity_file_is_an_error_and_never_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError) as raised:
        load_or_create_identity(path)
    assert raised.value.code == "identity-damaged"
    assert path.read_text() == text


def test_an_identity_file_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_create_identity(path)
    path.chmod(0o640)
    with pytest.raises(UsageError) as raised:
        load_identity(path)
    assert raised.value.code == "identity-exposed" and "chmod" in raised.value.hint


def test_a_child_generator_does_not_depend_on_its_siblings() -> None:
    root = Seed.of(7)
    alone = root.child("chief").generator("batches").random()
    root.child("chief").generator("other").random()
    assert root.child("chief").generator("batches").random() == alone
    assert root.child("worker").generator("batches").random() != alone
    assert Seed.of(8).child("chief").generator("batches").random() != alone


def test_ids_are_lower_case_and_repeatable() -> None:
    rng = Seed.of("ids").generator("jobs")
    assert random_id("job", rng) != random_id("job", rng)
    assert id_text("x", bytes(10)) == "x-" + "a" * 16
    with pytest.raises(ValueError):
        id_text("x", bytes(9))
