"""What run-script puts in the place of a program's pools leaves the libraries whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from types import SimpleNamespace
from company.client.unmodified import _WhenJoblibComes
hook = _WhenJoblibComes(SimpleNamespace(executor=SimpleNamespace(client=None)))
sys.meta_path.insert(0, hook)
import joblib
assert hook not in sys.meta_path
assert sys.modules["joblib"] is joblib and joblib.parallel.Parallel is joblib.Parallel and joblib.memory
print(joblib.parallel.DEFAULT_BACKEND, "company" in joblib.parallel.BACKENDS, joblib.parallel.get_active_backend()[0].__class__.__name__)
"""


def test_joblib_is_executed_once_and_has_the_company_as_its_default() -> None:
    pytest.importorskip("joblib")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["True", "CompanyBackend"], done.stdout
