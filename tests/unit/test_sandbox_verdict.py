"""What is said about a dead child."""

import pytest

from company.sandbox.page import Page
from company.sandbox.page_slots import STAGE_BOOTED, STAGE_LOADED, STAGE_NONE
from company.sandbox.verdict import CAUSES, Killed, Verdict, judge


def _judge(returncode: int, *, stage: int = STAGE_LOADED, log: bytes = b"", killed: Killed | None = None) -> Verdict:
    page = Page(index=7, token=3, started_s_ago=0.1, in_user=True, stage=stage)
    return judge(returncode=returncode, page=page, log_tail=log, killed=killed, memory_bytes=512 << 20)


@pytest.mark.parametrize(("returncode", "number"), [(-11, 11), (139, 11), (134, 6)])
def test_a_signal_is_a_crash_whether_told_by_the_kernel_or_by_bubblewrap(returncode: int, number: int) -> None:
    verdict = _judge(returncode)
    assert (verdict.cause, verdict.signal, verdict.exit_code, verdict.index) == ("crashed", number, 0, 7)


def test_an_exit_code_is_an_exit() -> None:
    assert (_judge(3).cause, _judge(3).exit_code, _judge(3).signal) == ("exited", 3, 0)
    assert _judge(250).exit_code == 250  # not a signal: there are only 64


def test_a_kill_that_was_not_ours_is_the_memory_limit() -> None:
    assert _judge(137).cause == "memory-limit"
    assert "512 MiB" in _judge(137).text


def test_our_own_kill_keeps_its_cause_and_words() -> None:
    verdict = _judge(-9, killed=Killed("time-limit", "too long"))
    assert (verdict.cause, verdict.text, verdict.signal) == ("time-limit", "too long", 9)


def test_a_child_that_never_booted_is_the_sandboxs_failure_in_its_own_words() -> None:
    verdict = _judge(1, stage=STAGE_NONE, log=b"bwrap: No permissions\nbwrap: setting up uid map: Permission denied\n")
    assert verdict.cause == "sandbox-failed" and "uid map" in verdict.text
    assert _judge(1, stage=STAGE_BOOTED).cause == "exited"


def test_every_cause_is_one_of_the_agreed_words() -> None:
    assert {_judge(c).cause for c in (0, 1, -11, 137)} | {_judge(1, stage=STAGE_NONE).cause} <= set(CAUSES)
