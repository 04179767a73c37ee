"""A contract's file: verified anywhere, and what does not hold is named."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest

from p2p.base.errors import MalformedMessage
from p2p.contracts.export import export_contract, read_export_untrusted, verify_export
from p2p.contracts.forks import verify_fork_untrusted
from p2p.contracts.signing import Reader, split_wire_untrusted
from p2p.contracts.terms import Cause, Role, Terms
from tests.support.contract_world import NET, TERMS, Party, World, terms

DOCS = Path(__file__).resolve().parents[2] / "docs"


def finished(cause: Cause | None = None) -> World:
    world = World(2, terms=terms(time_frame_s=25))
    world.start()
    world.run(12)
    if cause is not None:
        world.revoke(world.lender, cause)
    world.run_until_over()
    return world


def exported(party: Party, proofs: tuple[bytes, ...] = ()) -> bytes:
    assert party.machine is not None
    return export_contract(party.machine.a, NET, party.journal, proofs)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("cause", [None, Cause.OWNER_RECLAIM, Cause.BAD_RESULT])
def test_a_whole_contract_verifies_from_either_side(role: Role, cause: Cause | None) -> None:
    world = finished(cause)
    verdict = verify_export(read_export_untrusted(exported(world.parties[role])))
    assert verdict.faults == []
    assert verdict.facts["receipt"] == "both halves"
    assert verdict.facts["accepted"]["core_ms"] == world.borrower.facts.core_ms
    assert verdict.facts["accepted"]["core_ms"] > 0


def test_each_changed_message_is_named() -> None:
    whole = read_export_untrusted(exported(finished().lender))
    for number in range(len(whole.messages)):
        rows = list(whole.messages)
        role, code, body, signature = rows[number]
        rows[number] = (role, code, body[:-1] + bytes([body[-1] ^ 1]), signature)
        verdict = verify_export(replace(whole, messages=tuple(rows)))
        assert f"message {number + 1} " in verdict.faults[0]
        assert "signature" in verdict.faults[0]


def altered(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:] if value else b"x"
        case str():
            return value + "x"
    return (altered(value[0]), *value[1:]) if value else ()


def test_each_altered_field_is_named_also_when_its_author_signs_it_again() -> None:
    """The first message of each kind: what follows hangs on it."""
    world = finished()
    whole = read_export_untrusted(exported(world.borrower))
    seen = set[int]()
    for number, (role, code, body, signature) in enumerate(whole.messages):
        if code in seen:
            continue
        seen.add(code)
        message = Reader(whole.network_id).open_untrusted(whole.keys[role - 1], code, body, signature).message
        for field in fields(message):  # type: ignore[arg-type]  # every message is a dataclass
            forged = world.parties[Role(role)].signer.sign(replace(message, **{field.name: altered(getattr(message, field.name))}))  # type: ignore[type-var]
            if forged.body == body:
                continue  # an empty list stays as it is
            for mark in (signature, forged.signature):
                rows = list(whole.messages)
                rows[number] = (role, code, forged.body, mark)
                faults = verify_export(replace(whole, messages=tuple(rows))).faults
                assert faults, (number, field.name)
                assert mark == forged.signature or f"message {number + 1} " in faults[0], (number, field.name, faults)
    assert len(seen) >= 8


def test_each_missing_message_is_noticed() -> None:
    whole = read_export_untrusted(exported(finished().borrower))
    for number in range(len(whole.messages) - 1):  # without the last one it is only a shorter contract
        rows = whole.messages[:number] + whole.messages[number + 1 :]
        verdict = verify_export(replace(whole, messages=rows))
        assert not verdict.holds, f"without message {number + 1}"


def test_a_contract_without_its_last_half_says_so() -> None:
    whole = read_export_untrusted(exported(finished().borrower))
    verdict = verify_export(replace(whole, messages=whole.messages[:-1]))
    assert verdict.holds
    assert verdict.facts["receipt"] == "one half alone"


def test_messages_of_another_network_do_not_verify() -> None:
    whole = read_export_untrusted(exported(finished().borrower))
    assert not verify_export(replace(whole, network_id=b"x" * 16)).holds
    assert not verify_export(replace(whole, keys=(whole.keys[1], whole.keys[0]))).holds


def test_what_is_no_such_file_is_refused() -> None:
    good = exported(finished().lender)
    for bad in (b"", b"\x90", good[:-1], good + b"\0", msgpack.packb(["company-contract/2"])):
        with pytest.raises(MalformedMessage):
            read_export_untrusted(bad)


def test_broken_bytes_raise_only_what_is_promised() -> None:
    good = exported(finished().lender)
    rng = Random(5)
    world = finished()
    wires = [s.wire for s in world.lender.machine.a.out] if world.lender.machine else []
    for seed in range(1500):
        data = bytearray(good if seed % 3 else rng.choice(wires))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 9)]
                case _:
                    data[at:at] = rng.randbytes(rng.randint(1, 9))
        for use in (
            lambda d: verify_export(read_export_untrusted(d)), split_wire_untrusted, Terms.unpack_untrusted,
            lambda d: verify_fork_untrusted(NET, d),
        ):  # fmt: skip
            try:
                use(bytes(data))
            except MalformedMessage:
                pass
    packed = bytearray(TERMS.pack())
    for at in range(len(packed)):
        packed[at] ^= 0x55
        try:
            Terms.unpack_untrusted(bytes(packed))
        except MalformedMessage:
            pass
        packed[at] ^= 0x55


def test_the_example_in_the_docs_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from company.cli.app import run

    assert run(["contract", "verify", str(DOCS / "example.contract")]) == 0
    printed = capsys.readouterr().out
    assert f"$ company contract verify docs/example.contract\n{printed}```" in (DOCS / "contracts.md").read_text("utf-8")


def test_the_command_names_what_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from company.cli.app import run

    good = (DOCS / "example.contract").read_bytes()
    at = good.rindex(b"\xc4\x40") + 10  # inside the last signature
    (tmp_path / "bad").write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    assert run(["contract", "verify", str(tmp_path / "bad")]) == 18
    assert "does not hold: message 16 (the borrower's Receipt): the signature" in capsys.readouterr().out
    (tmp_path / "none").write_bytes(b"x")
    assert run(["contract", "verify", str(tmp_path / "none")]) == 2
