"""The same attempts against an ordinary user's daemon, whose children run as the same user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FILES = ("test_escapes_refused.py", "test_escapes_ended.py", "test_escapes_output.py")


@pytest.mark.parametrize("file", FILES)
def test_an_ordinary_users_sandbox_holds_as_well(file: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("is being run by an ordinary user already")
    setpriv, python = shutil.which("setpriv"), f"/usr/bin/python3.{sys.version_info[1]}"
    site = Path(np.__file__).parents[1]
    if not setpriv or not os.path.exists(python):
        pytest.skip("needs setpriv and a Python of this version that every user can read")
    as_user = [setpriv, "--reuid", "1234", "--regid", "1234", "--clear-groups"]
    if subprocess.run([*as_user, "test", "-r", str(site / "numpy"), "-a", "-r", str(ROOT / "company")]).returncode:
        pytest.skip(f"{ROOT} cannot be read by an ordinary user")
    folder = Path("/tmp") / f"escapes-user-{os.getpid()}"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    try:
        argv = [*as_user, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(folder / "t"), f"tests/e2e/{file}"]
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PYTHONPATH": f"{ROOT}:{site}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=150)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
