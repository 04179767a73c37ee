"""What a package needs is found lacking with reasons, collected as wheels, and put into a read-only folder offline."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from company.requirements import (
    build_environment,
    check_by_import,
    collect_wheels,
    environment_key,
    forget_environments,
    given_wheels,
    missing,
    modules_of,
)
from company.wheel_repack import repack
from company.wheelhouse import installed_distributions
from p2p.base.errors import Unavailable, UsageError
from tests.support.tiny_dists import install_tiny


def tiny_wheels(tmp_path: Path) -> Path:
    """A folder with the wheels of top (which needs low) and of low 1.0 and 2.0."""
    for number, (name, version, requires) in enumerate([("top", "1.0", ["low>=1.5"]), ("low", "1.0", []), ("low", "2.0", [])]):
        site = tmp_path / f"site{number}"
        install_tiny(site, name, version, requires=requires)
        repack(installed_distributions([str(site)])[name], tmp_path / "wheels")
    return tmp_path / "wheels"


def test_nothing_lacks_when_all_is_there() -> None:
    assert missing(["numpy>=1", "msgpack", "nothere; sys_platform == 'nowhere'"], ">=3.11") == []


def test_each_lack_is_a_reason_with_something_to_do(tmp_path: Path) -> None:
    install_tiny(tmp_path, "old", "1.0", requires=["deep"])
    reasons = missing(["old>=2", "gone", "old"], ">=3.99", installed=installed_distributions([str(tmp_path)]), version="3.11.7")
    assert [reason.code for reason in reasons] == ["python-mismatch", *["requirement-missing"] * 3]
    assert reasons[0].facts == {"required": ">=3.99", "found": "3.11.7"}
    assert [reason.facts["requirement"] for reason in reasons[1:]] == ["deep (needed by old)", "gone", "old>=2 (1.0 is installed)"]
    assert reasons[2].actions[0].cli == "pip install 'gone'"


def test_what_is_no_requirement_is_a_usage_error() -> None:
    for requirements, python in ((["numpy >>"], ""), ([], "three")):
        with pytest.raises(UsageError):
            missing(requirements, python)


def test_an_installed_distribution_that_cannot_be_imported_is_a_reason(tmp_path: Path) -> None:
    install_tiny(tmp_path, "broken", files={"broken/__init__.py": "import libthatisgone\n"})
    install_tiny(tmp_path, "sound", files={"sound.py": "", "_private.py": "raise SystemExit\n", "sound_data/x.txt": ""})
    reasons = check_by_import(["broken", "sound", "absent"], site=tmp_path)
    assert [reason.code for reason in reasons] == ["requirement-broken"]
    assert "libthatisgone" in reasons[0].text
    assert modules_of(installed_distributions([str(tmp_path)])["sound"]) == ("sound",)


def test_an_import_that_does_not_end_is_a_reason(tmp_path: Path) -> None:
    install_tiny(tmp_path, "endless", files={"endless.py": "while True: pass\n"})
    assert "more than 1 s" in check_by_import(["endless"], site=tmp_path, timeout_s=1.0)[0].text


def test_wheels_are_collected_from_the_owners_folder_and_from_what_is_installed(tmp_path: Path) -> None:
    wheels = collect_wheels(["top", "msgpack"], tmp_path / "out", given=tiny_wheels(tmp_path))
    assert [(w.name, w.version) for w in wheels][::2] == [("low", "2.0"), ("top", "1.0")]  # the newer low
    assert wheels[1].name == "msgpack"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(w.file for w in wheels)
    with pytest.raises(Unavailable, match="no wheels for absent"):
        collect_wheels(["absent"], tmp_path / "out")


def test_a_file_that_is_no_wheel_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad-1.0-py3-none-any.whl").write_text("no")
    with pytest.raises(UsageError, match="is not a wheel"):
        given_wheels(tmp_path)


def test_an_environment_is_made_offline_once_and_cannot_be_written(tmp_path: Path) -> None:
    wheels = tiny_wheels(tmp_path)
    site = build_environment(wheels, ["top"], tmp_path / "environments")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import top, low; print(top.version, low.version)"
    assert subprocess.check_output([sys.executable, "-I", "-B", "-c", code, site], text=True) == "1.0 2.0\n"
    assert not [path for path in (site, *site.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o222]
    assert {p.parent.parent.name for p in site.rglob("*.pyc")} == {"top", "low"}, "compiled once, since no child may write it"
    made = site.stat().st_mtime_ns
    assert build_environment(wheels, ["top"], tmp_path / "environments") == site
    assert site.stat().st_mtime_ns == made
    assert [path.name for path in (tmp_path / "environments").iterdir()] == [site.name]


def test_environments_that_nobody_uses_are_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "environments"
    sites = [folder / name for name in "abc"]
    for age_s, site in zip((10, 300, 200), sites, strict=True):
        (site / "low").mkdir(parents=True)
        (site / "low" / "__init__.py").touch(0o444)
        (site / "low").chmod(0o555)
        site.chmod(0o555)
        os.utime(site, (time.time() - age_s,) * 2)
    forget_environments(folder, keep=1, unused_s=250)
    assert set(folder.iterdir()) == {sites[0], sites[2]}
    forget_environments(folder, keep=1, unused_s=0)
    assert list(folder.iterdir()) == [sites[0]]
    forget_environments(tmp_path / "absent", keep=1, unused_s=0)


def test_an_environments_name_depends_on_every_wheel_and_requirement() -> None:
    base = environment_key([("a.whl", "1"), ("b.whl", "2")], ["a"])
    assert base == environment_key([("b.whl", "2"), ("a.whl", "1")], ["a"])
    assert base not in (environment_key([("a.whl", "1"), ("b.whl", "3")], ["a"]), environment_key([("a.whl", "1"), ("b.whl", "2")], ["b"]))


def test_a_wheel_that_was_not_promised_stops_everything(tmp_path: Path) -> None:
    wheels = tiny_wheels(tmp_path)
    promised = {w.name: "0" * 64 for w in wheels.glob("*.whl")}
    for claim in (promised, {}):
        with pytest.raises(Unavailable) as caught:
            build_environment(wheels, ["top"], tmp_path / "environments", promised=claim)
        assert caught.value.code == "wheel-damaged"
    assert not (tmp_path / "environments").exists()


@pytest.mark.parametrize("requirement", ["--index-url=https://evil.example", "./evil.whl", "x @ file:///etc/passwd", "-e ."])
def test_pip_is_never_given_an_option_path_or_address(requirement: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        build_environment(tiny_wheels(tmp_path), [requirement], tmp_path / "environments")


def test_a_failed_environment_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        build_environment(tiny_wheels(tmp_path), ["absent"], tmp_path / "environments")
    assert caught.value.code == "environment-failed"
    assert list((tmp_path / "environments").iterdir()) == []
