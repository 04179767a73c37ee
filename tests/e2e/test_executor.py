"""`company.Executor` on a real company: what concurrent.futures promises, and what a company adds."""

from __future__ import annotations

import concurrent.futures
import importlib
import itertools
import operator
import os
import pickle
import pty
import select
import subprocess
import sys
import types
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import company as company_module
from company.client.executor import LAST_REST
from company.client.functions import NotPortable
from company.errors import CompanyError, FragmentsFailed
from tests.support import call_samples as samples
from tests.support.company_processes import RunningCompany, until


@pytest.fixture(scope="module")
def ex(company: RunningCompany) -> Iterator[company_module.Executor]:
    with company_module.Executor(company.client) as executor:
        yield executor


# ---- what every executor does -----------------------------------------------------------------------------------------
def test_submit_passes_arguments_of_both_kinds(ex: company_module.Executor) -> None:
    assert ex.submit(samples.add, 1, b=2, c=3).result(60) == 6
    assert ex.submit(pow, 2, 10).result(60) == 1024


def test_map_gives_results_in_order_and_takes_several_iterables(ex: company_module.Executor) -> None:
    assert list(ex.map(samples.square, range(500))) == [i * i for i in range(500)]
    assert list(ex.map(samples.add, [1, 2, 3], [10, 20])) == [11, 22]
    assert list(ex.map(samples.square, [])) == []
    assert list(ex.map(samples.square, range(40), chunksize=7)) == [i * i for i in range(40)]


def test_map_raises_at_the_item_that_failed_and_gives_those_before(ex: company_module.Executor) -> None:
    found = ex.map(samples.divide, [4, 6, 1, 8], [2, 3, 0, 2])
    assert [next(found), next(found)] == [2, 2]
    with pytest.raises(ZeroDivisionError):
        next(found)
    with pytest.raises(StopIteration):
        next(found)


def test_map_times_out(ex: company_module.Executor) -> None:
    with pytest.raises(concurrent.futures.TimeoutError):
        list(ex.map(samples.slow, [0, 0, 3], timeout=0.5))


def test_wait_and_as_completed_work_on_its_futures(ex: company_module.Executor) -> None:
    futures = [ex.submit(samples.square, i) for i in range(20)]
    done, not_done = concurrent.futures.wait(futures, timeout=60)
    assert (len(done), not_done) == (20, set())
    more = {ex.submit(samples.square, i): i for i in range(20)}
    assert {more[f]: f.result() for f in concurrent.futures.as_completed(more, timeout=60)} == {i: i * i for i in range(20)}


def test_a_done_callback_is_called(ex: company_module.Executor) -> None:
    seen: list[int] = []
    future = ex.submit(samples.square, 5)
    future.add_done_callback(lambda f: seen.append(f.result()))
    assert future.result(60) == 25
    until(lambda: seen == [25], "the callback was called")


def test_exceptions_come_back_as_they_are_also_those_with_odd_constructors(ex: company_module.Executor) -> None:
    error = ex.submit(samples.divide, 1, 0).exception(60)
    assert type(error) is ZeroDivisionError
    custom = ex.submit(samples.raise_custom, 7).exception(60)
    assert isinstance(custom, (samples.Custom, company_module.FragmentError))
    assert "7 and 2" in str(custom)
    assert isinstance(ex.submit(samples.leave, 3).exception(60), SystemExit)


def test_one_value_that_cannot_travel_harms_no_other(ex: company_module.Executor) -> None:
    futures = [ex.submit(samples.square, 1), ex.submit(samples.square, samples.Unpicklable()), ex.submit(samples.square, 3)]  # type: ignore[arg-type]
    assert futures[0].result(60) == 1
    assert futures[2].result(60) == 9
    assert isinstance(futures[1].exception(60), NotPortable)
    results = [ex.submit(samples.make_unpicklable, i) for i in (0, 1, 0)]
    assert [results[0].result(60), results[2].result(60)] == [1, 1]
    assert "cannot be pickled" in str(results[1].exception(60))


def test_after_shutdown_nothing_is_taken_and_what_was_sent_is_done(company: RunningCompany) -> None:
    executor = company_module.Executor(company.client)
    futures = [executor.submit(samples.square, i) for i in range(30)]
    executor.shutdown()
    assert all(f.done() for f in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(samples.square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(samples.square, [1])
    job = company.client.job(executor.jobs[0]).wait(30)
    assert job.state == "done", job.view


def test_pending_calls_can_be_cancelled(company: RunningCompany) -> None:
    with company_module.Executor(company.client) as executor:
        futures = [executor.submit(samples.slow, 0.2) for _ in range(40)]
        assert futures[-1].cancel()
        assert futures[-1].cancelled()
        assert futures[0].result(60) == 0.2
        executor.shutdown(cancel_futures=True)
        assert sum(f.cancelled() for f in futures) > 20


# ---- what a company adds ----------------------------------------------------------------------------------------------
def test_map_reads_an_endless_iterable_only_as_far_as_it_must(ex: company_module.Executor) -> None:
    read = itertools.count()
    found = ex.map(samples.square, read, buffersize=50)
    assert [next(found) for _ in range(100)] == [i * i for i in range(100)]
    assert next(read) <= 100 + 50 + 1


def test_map_gives_results_as_they_come_when_order_does_not_matter(company: RunningCompany) -> None:
    # an executor of its own: where calls were quick so far, the chief puts several into one batch, and one may wait behind a slow one
    with company_module.Executor(company.client) as executor:
        found = list(executor.map(samples.slow, [1.5, 0.0, 0.0], ordered=False, chunksize=1))
    assert sorted(found) == [0.0, 0.0, 1.5]
    assert found[0] == 0.0


def test_map_gives_exceptions_in_the_place_of_results_when_asked(ex: company_module.Executor) -> None:
    found = list(ex.map(samples.divide, [4, 1, 9], [2, 0, 3], return_exceptions=True))
    assert [found[0], found[2]] == [2, 3]
    assert isinstance(found[1], ZeroDivisionError)


def test_an_error_says_where_what_and_why(ex: company_module.Executor) -> None:
    error = ex.submit(samples.divide, 1, 0).exception(60)
    assert error is not None
    told = error.__cause__
    assert isinstance(told, company_module.FragmentError)
    assert told.cause == "raised"
    assert "quotient = a / b" in told.remote_traceback
    assert "b = 0" in told.remote_traceback
    assert "(1, 0)" in told.preview
    assert told.worker.startswith("w-")
    until(lambda: told.log_lines == ("dividing 1 0",) or setattr(told, "_log_lines", None), "its log is there")
    with pytest.raises(ZeroDivisionError):
        told.reproduce()
    assert "call" in str(pickle.loads(pickle.dumps(told)))


def test_a_call_that_kills_its_worker_fails_alone(company: RunningCompany) -> None:
    with company_module.Executor(company.client, retries=1) as executor:
        found = list(executor.map(samples.die_at, range(6), chunksize=6, return_exceptions=True))
        assert [v for v in found if type(v) is int] == [0, 1, 2, 4, 5]
        assert isinstance(found[3], company_module.FragmentError)
        assert "3" in found[3].preview
        assert (found[3].cause, executor.submit(samples.square, 3).result(60)) == ("exited", 9)
        assert isinstance(found[3], BrokenProcessPool), "what a pool of processes raises"
        with pytest.raises(FragmentsFailed) as raised:
            found[3].reproduce()
        assert raised.value.facts["cause"] == "exited", "in a sandbox here, so that this process lives on"
        with pytest.raises(FragmentsFailed):
            company.client.future(found[3].index).exception(60).reproduce()  # by anybody who may read the job


def test_large_arguments_and_results_travel(ex: company_module.Executor) -> None:
    assert ex.submit(len, bytes(9 << 20)).result(120) == 9 << 20
    assert ex.submit(bytes, 9 << 20).result(120) == bytes(9 << 20)


def test_a_module_that_only_arguments_need_travels_with_them(ex: company_module.Executor) -> None:
    names = operator.attrgetter("name")
    assert list(ex.map(names, [samples.Named("a"), samples.Named("b")])) == ["a", "b"]
    assert ex.submit(names, samples.Named("c")).result(60) == "c"
    assert ex.submit(callable, samples.square).result(60) is True, "a function, too"


def test_what_cannot_be_opened_there_is_run_here_when_asked_for(company: RunningCompany, monkeypatch: pytest.MonkeyPatch) -> None:
    made = type("Made", (), {"__module__": samples.__name__, "value": 7})  # while the program runs: in no source
    monkeypatch.setattr(samples, "Made", made, raising=False)
    value = operator.attrgetter("value")
    said: list[str] = []
    with company_module.Executor(company.client, on_unopened=said.append) as ex:
        assert ex.submit(value, made()).result(60) == 7
        assert isinstance(ex.submit(operator.attrgetter("other"), made()).exception(60), AttributeError)
        assert list(ex.map(value, [made() for _ in range(30)], chunksize=1)) == [7] * 30, "here from the fourth on, without asking"
        assert ex.submit(value, made()).result(60) == 7
        assert list(ex.map(abs, [-1])) == [1]
        plain = types.SimpleNamespace(value=8)
        for _ in range(LAST_REST):  # now and then one is tried there: when it can be opened, all go there again
            future = ex.submit(value, plain)
            assert future.result(60) == 8
            if future.worker:
                break
        futures = [ex.submit(value, plain) for _ in range(5)]
        assert [f.result(60) for f in futures] == [8] * 5
        assert all(f.worker for f in futures)
    assert said and all("Made" in words for words in said)
    with company_module.Executor(company.client) as ex, pytest.raises(AttributeError, match="Made"):
        ex.submit(value, made()).result(60)


def test_closures_and_lambdas_go_by_value(ex: company_module.Executor) -> None:
    factor = 3
    assert list(ex.map(lambda x: x * factor, [1, 2])) == [3, 6]


def test_a_result_is_found_again_from_another_process(company: RunningCompany, ex: company_module.Executor) -> None:
    ref = ex.submit(samples.square, 12).id
    program = f"import company; print(company.connect().future({ref!r}).result(60))"
    environ = company.environ | {"COMPANY_URL": str(company.ready["chief"]["http"]), "COMPANY_TOKEN": str(company.ready["chief"]["token"])}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "144\n", done.stderr


def test_what_only_pickle_can_carry_is_not_sent_to_strangers(company: RunningCompany) -> None:
    with company_module.Executor(company.client, where="any") as executor, pytest.raises(NotPortable, match="lambda"):
        executor.submit(lambda: 1)


@pytest.mark.slow
def test_calls_survive_a_killed_chief_and_a_killed_worker(tmp_path: Path) -> None:
    with RunningCompany(tmp_path) as running:
        running.start_chief()
        running.start_workers("w1", "w2")
        with company_module.Executor(running.client) as executor:
            futures = [executor.submit(samples.slow, 0.3) for _ in range(20)]
            futures[0].result(60)
            running.kill("w2")
            running.kill("chief")
            running.start_chief()
            assert [f.result(120) for f in futures] == [0.3] * 20


def test_calls_that_take_longer_than_those_before_are_spread_all_the_same(company: RunningCompany) -> None:
    with company_module.Executor(company.client) as ex:
        assert list(ex.map(samples.slow, [0.0] * 3000)) == [0.0] * 3000  # from these it learns that many may travel together
        naps = [0.03] * 40 + [0.0] * 200
        found = list(ex.map(samples.slow, naps))
        assert found == naps
        assert sorted(ex.map(samples.slow, naps, ordered=False)) == sorted(naps)
        (job,) = ex.jobs
        fragments = company.client.job(job).view["fragments"]
    assert fragments["at_least"] > 12, "what was left of the first portions went into others"


def test_functions_of_many_packages_need_no_more_than_a_few_jobs_at_a_time(
    company: RunningCompany, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("company.client.sessions.MAX_SESSIONS", 2)
    monkeypatch.syspath_prepend(str(tmp_path))
    with company_module.Executor(company.client) as ex:
        futures = []
        for number in range(4):
            name = f"of_many_{number}"
            (tmp_path / f"{name}.py").write_text(f"import time\ndef give():\n    time.sleep(0.3)\n    return {number}\n")
            futures.append(ex.submit(importlib.import_module(name).give))
        assert [future.result(60) for future in futures] == [0, 1, 2, 3]
        assert len(ex.jobs) == 4 and len(ex._sessions._open) == 2
        ended = ex.jobs[:2]
    until(lambda: {company.client.job(job).state for job in ended} == {"done"}, "those that made room have ended")


def test_distributions_that_no_worker_takes_in_are_refused_at_once_or_the_calls_run_here(company: RunningCompany) -> None:
    import joblib

    def digest(x: int) -> str:
        return str(joblib.hash(x))

    with company_module.Executor(company.client) as ex:
        with pytest.raises(CompanyError, match="joblib") as raised:
            list(ex.map(digest, [1, 2]))
        assert raised.value.code == "requirements-not-allowed"
        assert isinstance(ex.submit(digest, 1).exception(60), CompanyError)
    said: list[str] = []
    with company_module.Executor(company.client, on_unopened=said.append) as ex:
        assert list(ex.map(digest, [1, 2])) == [digest(1), digest(2)]
        assert ex.submit(digest, 3).result(60) == digest(3)
    assert said and "joblib" in said[0]


_DEBUGGED = """
import company
from tests.support import call_samples as samples

with company.Executor(retries=1, progress=False) as ex:
    for call in (ex.submit(samples.divide, 1, 0), ex.submit(samples.die_at, 3)):
        error = call.exception(120)
        told = error if isinstance(error, company.FragmentError) else error.__cause__
        try:
            told.reproduce(pdb=True)
        except ZeroDivisionError:
            print("raised here too")
"""


def test_a_call_that_failed_is_debugged_at_a_terminal(company: RunningCompany, tmp_path: Path) -> None:
    """Where it raised; and one that ended its worker from its first line on, until it ends the program."""
    script = tmp_path / "debugged.py"
    script.write_text(_DEBUGGED)
    terminal, theirs = pty.openpty()
    chief = company.ready["chief"]
    environ = company.environ | {"COMPANY_URL": str(chief["http"]), "COMPANY_TOKEN": str(chief["token"]), "TERM": "dumb"}
    environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, str(script)], stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        said = ""

        def heard(words: str) -> str:
            nonlocal said
            while words not in said:
                assert select.select([terminal], [], [], 120)[0], said
                try:
                    said += os.read(terminal, 1 << 16).decode()
                except OSError:
                    raise AssertionError(f"it ended before {words}: {said}") from None
            before, _, said = said.partition(words)
            return before

        try:
            assert "quotient = a / b" in heard("(Pdb) ")
            os.write(terminal, b"p 'b', b\n")
            assert "('b', 0)" in heard("(Pdb) ")
            os.write(terminal, b"q\n")
            heard("raised here too")
            assert "ended its worker (exited), and runs in this process now" in heard("(Pdb) ")
            os.write(terminal, b"s\n")
            heard("(Pdb) ")
            os.write(terminal, b"p 'x', x\n")
            assert "('x', 3)" in heard("(Pdb) ")
            os.write(terminal, b"c\n")
            assert process.wait(60) == 9, said
        finally:
            process.kill()
            os.close(terminal)
