"""Which rung a machine gets, and that the lower ones hold as well."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from company.sandbox import ChildDied, Mount, Profile, Sandbox, ladder, wire
from company.sandbox.rung import Rung
from company.sandbox.selftest import run_self_test
from company.sandbox.site import build_site
from p2p.base.codec import decode_value, encode_value
from p2p.base.errors import Reason, UsageError
from tests.support.sandbox_children import process_child, run


@pytest.fixture(params=["bubblewrap", "landlock"])
def rung(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rung]:
    site = build_site(tmp_path / "cache")
    (tmp_path / "jobs").mkdir()
    candidates = ladder.rungs(home=tmp_path, site=site, stage=[tmp_path / "jobs"], allow_none=False)
    candidate = next(c for c in candidates if c.name == request.param)
    try:
        climbed = candidate.climb()
    except (OSError, UsageError) as error:
        pytest.skip(str(error))
    yield climbed
    climbed.close()


async def test_each_rung_passes_its_self_test(rung: Rung) -> None:
    report = await run_self_test(rung.start, rung.name)
    assert report.ok, report.first_failure()


async def test_each_rung_hides_what_every_user_of_the_machine_may_read(rung: Rung) -> None:
    """A root daemon's children are other users, whom permissions stop already; from this file only the rung keeps them."""
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder, "open-to-all")
        secret.write_text("x")
        Path(folder).chmod(0o755)
        secret.chmod(0o644)
        source = (
            "def process(x):\n    try:\n        return open(x).read()\n"
            "    except OSError as error:\n        return type(error).__name__\n"
        )  # fmt: skip
        async with process_child(Sandbox(rung, Reason("test", "test")), source) as child:
            assert (await run(child, [str(secret)])).results[0] in ("PermissionError", "FileNotFoundError")


async def test_each_rung_runs_the_three_functions(rung: Rung, tmp_path: Path) -> None:
    sandbox = Sandbox(rung, Reason("test", "test"))
    async with process_child(sandbox, "import numpy\ndef process(x): return int(numpy.sum([x, 1]))") as child:
        assert (await run(child, [1, 2])).results == [2, 3]
    data, output = tmp_path / "jobs" / "d.txt", tmp_path / "jobs" / "out"
    data.write_text("a b c")
    output.mkdir()
    with trio.fail_after(20):
        child = await sandbox.start(Profile(role="split", mounts=(Mount(data, "/data/d.txt"),)))
        try:
            await child.load(
                role="split", files={"split.py": b"def split(data): yield from data.read_text().split()"}, options={"data": "/data/d.txt"}
            )
            await child.receive()
            assert [decode_value(item) for item in (await child.receive()).cut()] == ["a", "b", "c"]
        finally:
            await child.aclose()
        child = await sandbox.start(Profile(role="merge", output=output))
        try:
            await child.load(role="merge", files={"merge.py": b"def merge(r, output): (output / 'x').write_text('done')"}, options={})
            await child.send([wire.END])
            await child.receive()
        finally:
            await child.aclose()
    assert (output / "x").read_text() == "done"


async def test_each_rung_hides_the_daemons_files_and_does_not_reach_its_process(rung: Rung, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    source = (
        "import os, signal\ndef process(x):\n    path, pid = x\n    told = []\n"
        "    for what in (lambda: open(path).read(), lambda: os.kill(pid, 0), lambda: open(f'/proc/{pid}/environ').read(), lambda: os.listdir('/tmp/..')):\n"  # noqa: E501
        "        try:\n            told.append(str(what())[:50])\n        except OSError as error:\n            told.append(type(error).__name__)\n"  # noqa: E501
        "    return told\n"
    )
    async with process_child(Sandbox(rung, Reason("test", "test")), source) as child:
        (told,) = (await run(child, [(str(tmp_path / "secret"), os.getpid())])).results
    assert all(word in ("PermissionError", "FileNotFoundError", "ProcessLookupError") for word in told[:3]), told


async def test_a_child_leaves_no_folder(rung: Rung, tmp_path: Path) -> None:
    child = rung.start(Profile(role="process"))
    child.kill("cancelled", "test")
    await child.aclose()
    assert not list(tmp_path.glob("scratch/*/child-*"))


async def test_without_a_sandbox_only_on_the_owners_word(tmp_path: Path) -> None:
    site = build_site(tmp_path / "cache")
    assert "none" not in [c.name for c in ladder.rungs(home=tmp_path, site=site, stage=[], allow_none=False)]
    *_, last = ladder.rungs(home=tmp_path, site=site, stage=[], allow_none=True)
    rung = last.climb()
    try:
        async with process_child(Sandbox(rung, ladder.reason("none", ["x"])), "def process(x): return x") as child:
            assert (await run(child, [1])).results == [1]
    finally:
        rung.close()
    assert "WITHOUT" in ladder.reason("none", []).text
    assert "--i-understand" in ladder.refuse(["bubblewrap: no"]).hint


async def test_a_sandbox_that_cannot_start_says_so_in_words(tmp_path: Path) -> None:
    async with Sandbox.open(home=tmp_path, stage=[tmp_path / "jobs"]) as sandbox:
        if sandbox.rung != "bubblewrap":
            pytest.skip("needs bubblewrap")
        gone = tmp_path / "jobs" / "gone"
        gone.write_text("x")
        profile = Profile(role="process", mounts=(Mount(gone, "/data/x"), Mount(gone, "/data/x/y")))  # a file cannot hold another
        child = await sandbox.start(profile)
        try:
            with pytest.raises(ChildDied) as death:
                await child.load(role="process", params=encode_value({}), files={}, options={})
        finally:
            await child.aclose()
    assert death.value.verdict.cause == "sandbox-failed" and "bwrap" in death.value.verdict.text


async def test_a_root_daemon_refuses_a_mount_its_children_could_not_read(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's children are the same user")
    secret = tmp_path / "jobs" / "secret"
    async with Sandbox.open(home=tmp_path, stage=[tmp_path / "jobs"]) as sandbox:
        secret.write_text("x")
        secret.chmod(stat.S_IRUSR)
        with pytest.raises(UsageError):
            await sandbox.start(Profile(role="split", mounts=(Mount(secret, "/data/x"),)))


async def test_two_sandboxes_of_one_process_do_not_hide_each_others_files(tmp_path: Path) -> None:
    async with Sandbox.open(home=tmp_path / "a") as first, Sandbox.open(home=tmp_path / "b") as second:
        for sandbox in (first, second):
            async with process_child(sandbox, "def process(x): return x") as child:
                assert (await run(child, [1])).results == [1]
