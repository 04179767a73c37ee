"""The doctor: what each finding says, and when it warns."""

from __future__ import annotations

import platform
import py_compile
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from company import views
from company.chief import checkup
from company.paths import Home

HERE = f"{platform.system()} {platform.machine()}"


@dataclass
class At:
    http: str = "http://127.0.0.1:8470"
    rpc: str = "0.0.0.0:8468"
    dht: str | None = None


def worker(**said: Any) -> views.WorkerView:
    usual = {"id": "w-1", "name": "far", "state": "idle", "python": platform.python_version(), "platform": HERE, "version": "1.0"}
    return views.WorkerView(**(usual | said))


def test_modules_that_are_compiled_at_every_start_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)
    (tmp_path / "one.py").write_text("x = 1\n")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert checkup.bytecode(tmp_path)["verdict"] == "ok"  # the next start keeps it
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = checkup.bytecode(tmp_path)
    assert (found["verdict"], "compileall" in found["fix"]) == ("warn", True)
    py_compile.compile(str(tmp_path / "one.py"))
    assert checkup.bytecode(tmp_path)["verdict"] == "ok"


def test_another_minor_version_of_python_is_warned_of_and_another_micro_is_not() -> None:
    major, minor = sys.version_info[:2]
    assert [f["verdict"] for f in checkup.pythons([worker(python=f"{major}.{minor}.99")])] == ["ok"]
    (found,) = checkup.pythons([worker(), worker(name="old", python=f"{major}.{minor - 1}.2")])
    assert (found["id"], found["verdict"]) == ("python", "warn")
    assert "old runs Python" in found["text"]
    assert f"Python {major}.{minor}" in found["fix"]


def test_a_worker_that_the_chiefs_wheels_do_not_fit_is_named() -> None:
    (found,) = checkup.pythons([worker(platform="Linux riscv64")])
    assert (found["id"], found["verdict"]) == ("platform", "warn")


def test_a_worker_with_another_release_than_the_chief_is_named() -> None:
    assert [f["verdict"] for f in checkup.releases([worker()], "1.0")] == ["ok"]
    (found,) = checkup.releases([worker(), worker(name="old", version="0.9")], "1.0")
    assert (found["verdict"], "old" in found["text"]) == ("warn", True)


@pytest.mark.parametrize(("skew_s", "words"), [(31.0, "31 s ahead of"), (-3600.0, "3600 s behind")])
def test_a_clock_that_is_off_is_warned_of_with_its_direction(skew_s: float, words: str) -> None:
    (found,) = checkup.clocks([worker(clock_skew_s=2.0), worker(clock_skew_s=skew_s), worker()])
    assert (found["verdict"], words in found["text"]) == ("warn", True)


def test_clocks_within_bounds_and_untold_ones_are_fine() -> None:
    (found,) = checkup.clocks([worker(clock_skew_s=-30.0), worker()])
    assert found["verdict"] == "ok"
    assert "of 1 workers" in found["text"]


@pytest.mark.parametrize(
    ("rpc", "verdict"), [("127.0.0.1:8468", "warn"), ("[::1]:8468", "warn"), ("0.0.0.0:8468", "ok"), ("10.0.0.1:8468", "ok")]
)
def test_a_chief_on_loopback_is_out_of_reach_for_others(rpc: str, verdict: str) -> None:
    found = checkup.ports(At(rpc=rpc))
    assert found["verdict"] == verdict
    assert "8468" in found["fix"] + found["text"]


def test_a_taken_port_is_named_with_the_option_that_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(checkup, "PORTS", (("--rpc", "127.0.0.1", port),))
        found = checkup.free_ports()
        assert (found["verdict"], str(port) in found["text"], "--rpc" in found["fix"]) == ("warn", True, True)
    assert checkup.free_ports()["verdict"] == "ok"


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\nserver:/x /srv nfs4 rw 0 0\n/dev/sdb /srv/my\\040disk xfs rw 0 0\n")
    found = {path: checkup.file_system_of(Path(path), mounts) for path in ("/", "/srv", "/srv/a/b", "/srv/my disk/c", "/srvx")}
    assert found == {"/": "ext4", "/srv": "nfs4", "/srv/a/b": "nfs4", "/srv/my disk/c": "xfs", "/srvx": "ext4"}
    assert checkup.file_system_of(tmp_path, tmp_path / "none") == ""


def test_a_home_on_a_network_file_system_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkup, "file_system_of", lambda path: "nfs4")
    found = checkup.file_system(tmp_path)
    assert (found["verdict"], "--home" in found["fix"]) == ("fail", True)


def test_a_home_that_is_not_there_yet_is_judged_by_where_it_will_be(tmp_path: Path) -> None:
    home = Home(tmp_path / "not" / "yet")
    assert checkup.disk(home.root)["id"] == "disk"
    assert checkup.file_system(home.root)["verdict"] == "ok"
    assert not home.root.exists()


def test_a_disk_that_is_nearly_full_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, verdict in ((1 << 29, "fail"), (2 << 30, "warn"), (50 << 30, "ok")):
        usage = type("Usage", (), {"free": free, "total": 100 << 30})
        monkeypatch.setattr(checkup.shutil, "disk_usage", lambda path, usage=usage: usage)
        assert checkup.disk(tmp_path)["verdict"] == verdict
