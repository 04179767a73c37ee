"""How long a child has let its daemon wait, whatever it writes on its page."""

from company.sandbox import wire
from company.sandbox.patience import CHUNK_BYTES_PER_S, GRACE_S, MERGE_STEP, Patience

LIMIT_S = 10.0
SLACK_S = GRACE_S + 0.25


def outcome(count: int, *, token: int = 1, last: bool = False) -> list[object]:
    return [wire.OUTCOME, token, 0, count, last, 0, 0, 0, 0, []]


def running(*counts: int) -> Patience:
    """A process child with these batches out, tokens 1, 2, …; the daemon stands at its pipe since 0."""
    patience = Patience("process")
    for token, count in enumerate(counts, 1):
        patience.send_begun([wire.RUN, token, 0, []], count, now=0.0)
        patience.send_ended(now=0.0)
    patience.wait_begun(now=0.0)
    return patience


def come(patience: Patience, header: list[object], now: float, *, items: int = 0, size: int = 0) -> None:
    patience.wait_ended(now=now)
    patience.received(header, items, size, now=now)
    patience.wait_begun(now=now)


def test_an_idle_child_owes_nothing() -> None:
    patience = Patience("process")
    patience.wait_begun(now=0.0)
    assert patience.waited_s(now=1e6) == 0


def test_a_running_child_owes_one_answer_per_limit_and_flush() -> None:
    patience = running(3)
    assert patience.waited_s(now=9.0) == 9.0
    assert patience.allowed_s(LIMIT_S) == LIMIT_S + SLACK_S
    come(patience, outcome(1), 9.0)
    assert patience.waited_s(now=12.0) == 3.0
    come(patience, outcome(2, last=True), 12.0)
    assert patience.waited_s(now=1e6) == 0


def test_the_next_batch_begins_when_the_last_one_is_answered() -> None:
    patience = running(1, 1)
    come(patience, outcome(1, last=True), 8.0)
    assert patience.waited_s(now=9.0) == 1.0
    come(patience, outcome(1, token=2, last=True), 9.0)
    assert patience.waited_s(now=99.0) == 0


def test_words_without_a_fragment_are_no_progress() -> None:
    patience = running(2)
    for now, header in enumerate(
        (outcome(0), outcome(3), outcome(1, token=9), [wire.STATUS, 1, 0, "", None], [wire.ARTIFACT, 1, 0, "a", True]), 1
    ):
        come(patience, header, float(now))  # type: ignore[arg-type]
    assert patience.waited_s(now=6.0) == 6.0
    come(patience, outcome(2), 6.0)
    come(patience, outcome(1), 7.0)  # there is no third fragment
    assert patience.waited_s(now=8.0) == 2.0


def test_time_in_which_the_daemon_does_not_read_is_not_the_childs() -> None:
    patience = running(1)
    patience.wait_ended(now=2.0)
    assert patience.waited_s(now=50.0) == 2.0
    patience.wait_begun(now=50.0)
    assert patience.waited_s(now=51.0) == 3.0


def test_a_flood_of_idle_words_does_not_stop_the_clock() -> None:
    patience = running(1)
    for step in range(1, 1001):
        patience.wait_ended(now=step * 0.01)
        patience.received([wire.STATUS, 1, 0, "", None], 0, 0, now=step * 0.01)
        patience.wait_begun(now=step * 0.01 + 0.009)
    assert 10 <= patience.waited_s(now=10.01) < 10.02


def test_a_large_result_on_its_way_buys_time_by_its_bytes_alone() -> None:
    patience = running(1)
    come(patience, [wire.CHUNK, 0, False], 1.0, items=1, size=1)
    assert patience.allowed_s(LIMIT_S) < LIMIT_S + SLACK_S + 0.001
    come(patience, [wire.CHUNK, 0, False], 1.0, items=1, size=int(3 * CHUNK_BYTES_PER_S))
    assert 3 <= patience.allowed_s(LIMIT_S) - LIMIT_S - SLACK_S < 3.001
    come(patience, outcome(1, last=True), 2.0)
    assert patience.allowed_s(LIMIT_S) == LIMIT_S + SLACK_S


def test_a_child_that_does_not_read_its_first_batch_owes() -> None:
    patience = Patience("process")
    patience.wait_begun(now=0.0)
    patience.send_begun([wire.CHUNK, 0, False], 1, now=5.0)
    assert patience.waited_s(now=25.0) == 20.0
    patience.send_ended(now=25.0)
    assert patience.waited_s(now=99.0) == 0


def test_split_owes_fragments_until_its_end() -> None:
    patience = Patience("split")
    patience.wait_begun(now=0.0)
    come(patience, [wire.FRAGS, 0, None, []], 5.0, items=0)
    assert patience.waited_s(now=6.0) == 6.0
    come(patience, [wire.FRAGS, 0, None, []], 6.0, items=2, size=9)
    assert patience.waited_s(now=7.0) == 1.0
    come(patience, [wire.SPLIT_END, 2], 8.0)
    assert patience.waited_s(now=99.0) == 0


def test_merge_owes_after_the_last_result_and_may_take_its_limit_for_each_step_of_results() -> None:
    patience = Patience("merge")
    patience.wait_begun(now=0.0)
    patience.send_begun([wire.RESULTS, 0, []], 2 * MERGE_STEP, now=1.0)
    patience.send_ended(now=1.0)
    assert patience.waited_s(now=50.0) == 0  # it waits for us
    patience.send_begun([wire.END], 0, now=50.0)
    patience.send_ended(now=50.0)
    assert patience.waited_s(now=55.0) == 5.0
    assert patience.allowed_s(LIMIT_S) == 4 * LIMIT_S + SLACK_S
