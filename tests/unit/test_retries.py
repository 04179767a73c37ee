"""Rules of retries: three tries, infrastructure does not count, one killer is found, `--max-fails` is exact."""

import pytest

from company.chief import retries
from company.chief.retries import KILLER, MAX_INFRA_TRIES, MaxFails, RetryBook, Trouble, clip_text, pieces_after_loss
from p2p.base.errors import UsageError


def test_the_third_failure_is_final_and_forgotten() -> None:
    book = RetryBook()
    verdicts = [book.on_failure(7, worker=w, cause="raised") for w in ("a", "b", "a")]
    assert [v.final for v in verdicts] == [False, False, True]
    assert [v.trouble.tries for v in verdicts] == [1, 2, 3]
    assert len(book) == 0 and book.of(7) == Trouble()


def test_a_retry_avoids_the_workers_where_it_failed() -> None:
    book = RetryBook(tries=10)
    for worker in ("a", "b", "a", "c", "d"):
        book.on_failure(7, worker=worker, cause="raised")
    assert book.of(7).avoid == ("a", "c", "d")


def test_losing_workers_uses_up_no_try_but_the_fifth_names_the_killer() -> None:
    book = RetryBook()
    verdicts = [book.on_loss(7, worker="w") for _ in range(MAX_INFRA_TRIES)]
    assert [v.final for v in verdicts] == [False] * 4 + [True]
    assert [v.cause for v in verdicts] == ["worker-lost"] * 4 + [KILLER]
    assert verdicts[-1].trouble.tries == 0


def test_success_and_a_users_wish_start_from_zero() -> None:
    book = RetryBook(known=[(3, Trouble(tries=2)), (4, Trouble(tries=2))])
    book.on_success(3)
    book.forget(4)
    assert not book.on_failure(3, worker="w", cause="raised").final
    assert not book.on_failure(4, worker="w", cause="raised").final


def test_what_an_earlier_run_knew_counts() -> None:
    book = RetryBook(known=[(3, Trouble(tries=2))])
    assert book.on_failure(3, worker="w", cause="raised").final


def test_the_book_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "MAX_OPEN", 2)
    book = RetryBook()
    assert [book.on_failure(i, worker="w", cause="raised").final for i in range(3)] == [False, False, True]
    assert not book.on_failure(0, worker="w", cause="raised").final, "those already in it go on"
    assert len(book) == 2


def test_a_fragment_is_tried_at_least_once() -> None:
    with pytest.raises(UsageError):
        RetryBook(tries=0)
    assert RetryBook(tries=1).on_failure(0, worker="w", cause="raised").final


def test_max_fails_by_count_and_by_percent() -> None:
    assert MaxFails.parse("0").is_exceeded(failed=1, total=None) and not MaxFails.parse("0").is_exceeded(failed=0, total=10)
    assert not MaxFails.parse("5").is_exceeded(failed=5, total=10) and MaxFails.parse("5").is_exceeded(failed=6, total=10)
    ten = MaxFails.parse(" 10% ")
    assert not ten.is_exceeded(failed=10, total=100) and ten.is_exceeded(failed=11, total=100)
    assert not ten.is_exceeded(failed=10**6, total=None)
    assert MaxFails.parse("0%").is_exceeded(failed=1, total=10**9)
    assert not MaxFails.parse("100%").is_exceeded(failed=9, total=9)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "%", "5 %", "0x5", "٣", "9" * 40])
def test_malformed_max_fails_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        MaxFails.parse(text)


def test_a_lost_batch_runs_whole_once_and_then_in_halves() -> None:
    assert pieces_after_loss(10, 8, losses=1) == [(10, 8)]
    assert pieces_after_loss(10, 7, losses=2) == [(10, 3), (13, 4)]
    assert pieces_after_loss(10, 1, losses=9) == [(10, 1)]


def test_clipping_keeps_head_and_tail() -> None:
    text = "head" + "x" * 1000 + "tail"
    short = clip_text(text, max_bytes=200)
    assert len(short.encode()) <= 200 and short.startswith("head") and short.endswith("tail") and "left out" in short
    assert clip_text("é", max_bytes=2) == "é"
