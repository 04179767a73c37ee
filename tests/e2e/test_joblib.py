"""joblib and scikit-learn on a company give what they give without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError

import company as company_module
from company.joblib import register
from tests.support import call_samples as samples


@pytest.fixture(scope="module")
def client() -> Iterator[company_module.Client]:
    """Its workers may take what the calls require: joblib and what it calls."""
    with company_module.local(workers=2) as found:
        yield found


def test_parallel_runs_on_the_company(client: company_module.Client) -> None:
    register(client)
    found = joblib.Parallel(backend="company", n_jobs=-1)(joblib.delayed(samples.square)(i) for i in range(300))
    assert found == [i * i for i in range(300)]
    lazily = joblib.Parallel(backend="company", n_jobs=2, return_as="generator")(joblib.delayed(samples.square)(i) for i in range(20))
    assert list(lazily) == [i * i for i in range(20)]
    jobs = client.jobs()["items"]
    assert sum(job["fragments"]["done"] for job in jobs) > 2  # joblib runs alone, without a word, where it is told of one slot
    assert len(jobs) == 1, "workers would import everything again for each"
    with pytest.raises(ZeroDivisionError):
        joblib.Parallel(backend="company", n_jobs=2)(joblib.delayed(samples.divide)(1, i) for i in (1, 0))
    with pytest.raises(TerminatedWorkerError, match="ended its worker process: exited"):
        joblib.Parallel(backend="company", n_jobs=2)(joblib.delayed(samples.die_at)(i) for i in (3, 4))


def test_a_program_ends_although_its_company_ended_before_its_executors(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import company, joblib\nfrom company.joblib import register\n"
        "with company.local(workers=2) as client:\n    register(client)\n    ex = company.Executor(client)\n"
        "    late = ex.submit(__import__('time').sleep, 100)\n"
        "    late.id  # its job is open: a client's requests are one thread's at a time\n"
        "    print(joblib.Parallel(backend='company', n_jobs=2)(joblib.delayed(abs)(i) for i in (-1, -2)))\n"
        "print(type(late.exception(60)).__name__)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "[1, 2]\nCompanyError\n"), done.stderr


@pytest.mark.slow
def test_a_grid_search_has_the_same_scores_as_locally(client: company_module.Client) -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    register(client)
    features, labels = load_digits(return_X_y=True)

    def scores(n_jobs: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        search = GridSearchCV(SVC(), {"gamma": [0.001, 0.01], "C": [1, 10]}, cv=3, n_jobs=n_jobs)
        search.fit(features[:600], labels[:600])
        return np.asarray(search.cv_results_["mean_test_score"])

    alone = scores(1)
    with joblib.parallel_config(backend="company"):
        assert (scores(-1) == alone).all()
    assert client.jobs()["items"][0]["fragments"]["done"] > 0
