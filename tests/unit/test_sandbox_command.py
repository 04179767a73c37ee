"""The command line for bubblewrap, and who may reach what."""

import itertools
from pathlib import Path

import pytest

from company.sandbox import Profile, bwrap
from company.sandbox.profile import MIB
from company.sandbox.staging import Stage
from p2p.base.errors import UsageError


def _argv(profile: Profile) -> list[str]:
    layout = bwrap.Layout(
        bwrap=Path("/b/bwrap"), python=Path("/python/bin/python3"), prefix=Path("/stage/0"), library_dir="/python/lib",
        site=Path("/stage/1"), bound=((Path("/stage/2"), "/site/numpy"),),
    )  # fmt: skip
    return bwrap.command(layout, profile, [(Path("/stage/3/out"), "/output", True)], seccomp_fd=9, settings_hex="00")


def test_everything_is_made_read_only_after_the_last_mount() -> None:
    argv = _argv(Profile(role="merge"))
    remounts = [i for i, word in enumerate(argv) if word == "--remount-ro"]
    mounts = [i for i, word in enumerate(argv) if word in ("--bind", "--ro-bind", "--tmpfs", "--dev", "--proc", "--symlink")]
    assert [argv[i + 1] for i in remounts] == ["/dev", "/"] and min(remounts) > max(mounts)


def test_every_tmpfs_has_a_bound() -> None:
    argv = _argv(Profile(role="process", tmp_bytes=3 * MIB))
    for at, word in enumerate(argv):
        if word == "--tmpfs":
            assert argv[at - 2] == "--size", argv[at + 1]
    assert argv[argv.index("/tmp", argv.index("--tmpfs")) - 2] == str(3 * MIB)


def test_proc_sys_is_read_only_and_namespaces_cannot_nest() -> None:
    argv = _argv(Profile(role="process"))
    at = argv.index("/proc/sys")
    assert argv[at - 1] == "--ro-bind" and "--disable-userns" in argv and "--die-with-parent" in argv and "--clearenv" in argv


def test_a_path_under_a_staged_folder_is_found_there_and_no_other(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "jobs").mkdir(parents=True)
    home.chmod(0o700)
    stage = Stage(places={home / "jobs": Path("/run/company/0")}, uids=itertools.cycle([1]))
    assert stage.path(home / "jobs" / "1" / "output") == Path("/run/company/0/1/output")
    (home / "secret").write_text("x")
    with pytest.raises(UsageError):
        stage.path(home / "secret")
    (home / "jobs" / "link").symlink_to(home / "secret")
    with pytest.raises(UsageError):  # a link out of the folder is not in it
        stage.path(home / "jobs" / "link")


def test_an_ordinary_users_paths_stay_as_they_are(tmp_path: Path) -> None:
    assert Stage().path(tmp_path) == tmp_path.resolve() and Stage().next_uid() is None


def test_a_memory_limit_bounds_data_and_a_little_more_address_space() -> None:
    limits = Profile(role="process", memory_bytes=100 * MIB).rlimits()
    assert limits["RLIMIT_DATA"] == 100 * MIB < limits["RLIMIT_AS"] and limits["RLIMIT_CORE"] == 0
