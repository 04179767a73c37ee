"""A pass lets its chief, and nobody else, call one worker for one purpose for a while."""

from __future__ import annotations

import pytest

from company.http_pass import LIFE_S, MAX_LIFE_S, NO_NETWORK, PREFIX, TYPE, check_pass_untrusted, make_pass
from p2p.base.clock import UnixTime
from p2p.base.envelope import seal
from p2p.base.errors import MalformedMessage
from p2p.base.keys import Identity

CHIEF, WORKER, OTHER = Identity(b"C" * 32), Identity(b"W" * 32), Identity(b"O" * 32)
NOW = UnixTime(1_700_000_000)
GOOD = make_pass(CHIEF, WORKER.public, now=NOW)


def check(text: str, *, chief: Identity = CHIEF, worker: Identity = WORKER, now: int = NOW, allows: str = "work") -> None:
    check_pass_untrusted(text, chief_key=chief.public, worker_key=worker.public, now=UnixTime(now), allows=allows)


def test_a_pass_is_good_until_it_is_over() -> None:
    check(GOOD)
    check(GOOD, now=NOW + LIFE_S)
    with pytest.raises(MalformedMessage):
        check(GOOD, now=NOW + LIFE_S + 1)


def test_a_pass_for_another_worker_of_another_chief_or_for_another_purpose_is_refused() -> None:
    for wrong in (
        lambda: check(GOOD, worker=OTHER),
        lambda: check(GOOD, chief=OTHER),
        lambda: check(GOOD, allows="fetch"),
        lambda: check(make_pass(WORKER, WORKER.public, now=NOW)),  # a worker cannot write its own
        lambda: check(make_pass(CHIEF, WORKER.public, now=UnixTime(NOW + MAX_LIFE_S))),  # nor is one good for ever
    ):
        with pytest.raises(MalformedMessage):
            wrong()


def test_what_a_chief_signs_for_other_purposes_is_no_pass() -> None:
    import base64

    def text(kind: str, array: list[object]) -> str:
        parts = seal(CHIEF, kind, NO_NETWORK, array)
        return ".".join((PREFIX, *(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)))

    body = [1, WORKER.public, "work", NOW + 1]
    check(text(TYPE, body))
    for kind, array in (("wheels", body), (TYPE, [2, *body[1:]]), (TYPE, body[:3]), (TYPE, [*body[:3], "1"]), (TYPE, [True, *body[1:]])):
        with pytest.raises(MalformedMessage):
            check(text(kind, array))


@pytest.mark.parametrize(
    "text", ["", "cmph1", "cmph1..", "cmph1.!!.!!", GOOD[:-4], GOOD + "AAAA", "x" + GOOD, GOOD * 9, GOOD.replace("cmph1", "cmpw1")]
)
def test_a_damaged_pass_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        check(text)
