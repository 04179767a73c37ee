"""Where things lie, and that only one daemon uses them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from company.home_lock import LOCK_NAME, HomeLock, holder_pid, process_start
from company.paths import ROOT_HOME, Home
from p2p.base.errors import UsageError


def test_an_argument_beats_the_environment_which_beats_the_platform(tmp_path: Path) -> None:
    environ = {"COMPANY_HOME": str(tmp_path / "env")}
    assert Home.locate(tmp_path / "arg", environ).root == tmp_path / "arg"
    assert Home.locate(None, environ).root == tmp_path / "env"
    default = Home.locate(None, {}).root
    assert default.is_absolute()
    if os.geteuid() == 0:
        assert default == Path(ROOT_HOME)


def test_a_relative_home_becomes_absolute_so_that_a_later_chdir_does_not_move_it() -> None:
    assert Home.locate("here", {}).root == Path.cwd() / "here"


def test_subtrees_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        chief = Home(tmp_path).chief.create()
        worker = Home(tmp_path).worker("w1").create()
        job = chief.job("a1b2").create()
    finally:
        os.umask(before)
    for path in (chief.root, chief.identity, worker.root, worker.identity, job.results):
        assert path.stat().st_mode & 0o777 == 0o700, path
    for path in (chief.jobs, chief.packages, chief.datasets, job.root, job.output, worker.packages):
        assert path.stat().st_mode & 0o777 == 0o711, path


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\0b", "x" * 101, "ä"])
def test_a_name_that_could_leave_the_home_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="worker name must be"):
        Home(tmp_path).worker(name)
    with pytest.raises(UsageError, match="job id must be"):
        Home(tmp_path).chief.job(name)


def test_importing_paths_brings_nothing_heavy() -> None:
    heavy = ("trio", "sqlalchemy", "aiohttp", "platformdirs", "numpy")
    code = f"import sys; import company.paths; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_held_tree_is_refused_naming_the_holder(tmp_path: Path) -> None:
    with HomeLock.take(tmp_path, "chief"):
        assert holder_pid(tmp_path) == os.getpid()
        with pytest.raises(UsageError, match=f"in use by process {os.getpid()} \\(chief\\)") as caught:
            HomeLock.take(tmp_path, "chief")
        assert caught.value.code == "home-in-use"
    assert holder_pid(tmp_path) is None
    HomeLock.take(tmp_path, "chief").release()


def test_a_held_tree_is_refused_also_when_nothing_can_be_read_of_its_holder(tmp_path: Path) -> None:
    with HomeLock.take(tmp_path, "chief"):
        os.truncate(tmp_path / LOCK_NAME, 0)
        with pytest.raises(UsageError, match="in use by another process"):
            HomeLock.take(tmp_path, "chief")


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from company.home_lock import HomeLock
HomeLock.take(Path({str(tmp_path)!r}), "chief")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert json.loads((tmp_path / LOCK_NAME).read_text())["what"] == "chief"
    HomeLock.take(tmp_path, "chief").release()


def test_a_live_holder_is_respected_where_flock_does_not_work_but_a_reused_pid_is_not(tmp_path: Path) -> None:
    with HomeLock.take(tmp_path, "chief"):
        said = json.loads((tmp_path / LOCK_NAME).read_text())
    (tmp_path / LOCK_NAME).write_text(json.dumps(said))  # written, not flocked: as on a file system without flock
    with pytest.raises(UsageError, match="in use by process"):
        HomeLock.take(tmp_path, "chief")
    (tmp_path / LOCK_NAME).write_text(json.dumps({**said, "started": "0"}))  # the pid was given to another process since
    HomeLock.take(tmp_path, "chief").release()


def test_a_torn_lock_file_locks_nobody_out(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text('{"pid": 1')
    HomeLock.take(tmp_path, "chief").release()


def test_process_start_tells_a_process_from_none() -> None:
    assert process_start(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process_start(child.pid) is None


def test_a_killed_holder_that_nobody_has_reaped_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, signal, pathlib; from company.home_lock import HomeLock; "
        "lock = HomeLock.take(pathlib.Path(sys.argv[1]), 'chief'); print('held', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert holder_pid(tmp_path) == holder.pid
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        assert holder_pid(tmp_path) is None
        HomeLock.take(tmp_path, "chief").release()
