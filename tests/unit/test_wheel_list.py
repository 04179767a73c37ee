"""The signed list of wheels, and the worker that takes nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import pytest

from company.wheel_list import MAX_WHEELS, Wheel, beyond_curated, open_wheels_untrusted, seal_wheels
from company.wheelhouse import installed_distributions, pack_again
from company.worker.environments import Environments
from p2p.base.envelope import NETWORK_ID_BYTES, seal
from p2p.base.errors import MalformedMessage, PeerError, Unavailable
from p2p.base.keys import Identity
from tests.support.tiny_dists import install_tiny

CHIEF, OTHER = Identity(b"C" * 32), Identity(b"O" * 32)
NEEDS = ("tinyreq>=1",)
ROW = Wheel("tinyreq-1.0-py3-none-any.whl", 10, b"h" * 32)


def test_what_every_sandbox_has_needs_no_wheels() -> None:
    have = {"numpy": "2.3.0", "msgpack": "1.1.0"}
    assert beyond_curated(["numpy>=2", "msgpack", ""], have) == ()
    assert beyond_curated(["numpy>=99", "pandas", "x; python_version < '3'"], have) == ("numpy>=99", "pandas")
    with pytest.raises(PeerError):
        beyond_curated(["not a requirement!"], have)


def test_a_list_is_believed_only_from_the_own_chief_and_for_these_requirements() -> None:
    body, signature = seal_wheels(CHIEF, NEEDS, [ROW])
    assert open_wheels_untrusted(CHIEF.public, NEEDS, body, signature) == (ROW,)
    for key, needs, said in ((OTHER.public, NEEDS, body), (CHIEF.public, ("other",), body), (CHIEF.public, NEEDS, body + b"\0")):
        with pytest.raises(MalformedMessage):
            open_wheels_untrusted(key, needs, said, signature)


@pytest.mark.parametrize(
    "rows",
    [
        [["../evil-1.0-py3-none-any.whl", 1, b"h" * 32]], [["evil", 1, b"h" * 32]], [[ROW.file, -1, b"h" * 32]],
        [[ROW.file, 1, b"h"]], [[ROW.file, 1]], ["x"], "x", [[ROW.file, 1, b"h" * 32]] * 2, [[ROW.file, 1 << 40, b"h" * 32]],
        [["a/b-1.0-py3-none-any.whl", 1, b"h" * 32]], [[".a-1.0-py3-none-any.whl", 1, b"h" * 32]],
    ],
)  # fmt: skip
def test_a_signed_list_may_still_not_name_what_it_likes(rows: object) -> None:
    body, signature = seal(CHIEF, "wheels", bytes(NETWORK_ID_BYTES), [list(NEEDS), rows])
    with pytest.raises(MalformedMessage):
        open_wheels_untrusted(CHIEF.public, NEEDS, body, signature)


def test_a_list_is_bounded() -> None:
    with pytest.raises(Unavailable):
        seal_wheels(CHIEF, NEEDS, [ROW] * (MAX_WHEELS + 1))


class Chief:
    """Serves one wheel; ``lie``: other bytes of the same length."""

    def __init__(self, folder: Path, *, lie: bool = False) -> None:
        install_tiny(folder / "site", "tinyreq")
        wheel = pack_again(installed_distributions([str(folder / "site")])["tinyreq"], folder / "wheels")
        self.content = wheel.path.read_bytes()
        self.served = self.content[:-1] + b"!" if lie else self.content
        listed = Wheel(wheel.file, wheel.size, hashlib.sha256(self.content).digest())
        self.listed = seal_wheels(CHIEF, NEEDS, [listed])
        self.fetched = 0

    async def wheel_list(self, job: str) -> tuple[bytes, bytes]:
        return self.listed

    async def wheel(self, job: str, sha256: bytes, size: int, path: Path) -> None:
        self.fetched += 1
        path.write_bytes(self.served)


class NoSandbox:
    """Whoever comes this far has taken the wheels."""

    async def start(self, profile: object) -> object:
        raise Unavailable("reached-the-sandbox", "the wheels were taken")


def environments(folder: Path, chief: Chief, *, is_allowed: bool = True) -> Environments:
    return Environments(
        folder / "environments", folder / "scratch", chief_key=CHIEF.public, source=chief, sandbox=NoSandbox(),  # type: ignore[arg-type]
        is_allowed=is_allowed, rng=Random(1),
    )  # fmt: skip


async def test_a_wheel_with_other_bytes_than_promised_is_not_installed(tmp_path: Path) -> None:
    chief = Chief(tmp_path, lie=True)
    with pytest.raises(PeerError) as caught:
        await environments(tmp_path, chief).site("j", NEEDS)
    assert caught.value.code == "wheel-damaged"
    assert not list((tmp_path / "environments").glob("*")) and not list((tmp_path / "scratch").glob("*"))


async def test_without_leave_nothing_is_even_asked_for(tmp_path: Path) -> None:
    chief = Chief(tmp_path)
    with pytest.raises(PeerError) as caught:
        await environments(tmp_path, chief, is_allowed=False).site("j", NEEDS)
    assert caught.value.code == "requirements-not-allowed" and chief.fetched == 0


async def test_an_environment_is_made_once_and_tried_in_a_sandbox(tmp_path: Path) -> None:
    chief = Chief(tmp_path)
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await environments(tmp_path, chief).site("j", NEEDS)
        assert caught.value.code == "reached-the-sandbox"
    assert chief.fetched == 1
