"""A killer among many is found in few losses; clipped texts fit; counts never run away."""

from hypothesis import given
from hypothesis import strategies as st

from company.chief.retries import MAX_INFRA_TRIES, MAX_TRIES, MaxFails, RetryBook, clip_text, pieces_after_loss


@given(st.integers(1, 200_000), st.data())
def test_one_killer_among_many_is_isolated_in_log_n_losses(count: int, data: st.DataObject) -> None:
    killer = data.draw(st.integers(0, count - 1))
    first, size, losses = 0, count, 0
    while size > 1:
        losses += 1
        pieces = pieces_after_loss(first, size, losses=losses)
        assert sum(n for _, n in pieces) == size and pieces[0][0] == first
        first, size = next((a, n) for a, n in pieces if a <= killer < a + n)
    assert first == killer and losses <= count.bit_length() + 1


@given(st.text(max_size=500), st.integers(0, 300))
def test_clipped_text_fits(text: str, max_bytes: int) -> None:
    short = clip_text(text, max_bytes=max_bytes)
    assert len(short.encode()) <= max_bytes
    if len(text.encode()) <= max_bytes:
        assert short == text


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["own", "loss", "good"])), max_size=100))
def test_no_fragment_is_tried_for_ever(steps: list[tuple[int, str]]) -> None:
    book = RetryBook()
    for fragment, what in steps:
        if what == "good":
            book.on_success(fragment)
            continue
        verdict = book.on_failure(fragment, worker="w", cause="raised") if what == "own" else book.on_loss(fragment, worker="w")
        trouble = verdict.trouble
        assert verdict.final == (trouble.tries >= MAX_TRIES or trouble.infra_tries >= MAX_INFRA_TRIES)
        assert verdict.final != bool(book.of(fragment) == trouble)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 100))
def test_more_failures_never_make_a_failed_job_well(failed: int, total: int, percent: int) -> None:
    for rule in (MaxFails(count=percent), MaxFails(percent=percent)):
        if rule.is_exceeded(failed=failed, total=total):
            assert rule.is_exceeded(failed=failed + 1, total=total)
