"""No blocking pair, against brute force; at most w² proposals; the papers' preference."""

from hypothesis import given
from hypothesis import strategies as st

from company.chief.matcher import propose, z_scores

VALUES = st.lists(st.integers(1, 30), max_size=9)


@given(VALUES, VALUES)
def test_there_is_no_blocking_pair(rates: list[int], sizes: list[int]) -> None:
    workers = [(f"w{i}", float(r)) for i, r in enumerate(rates)]
    batches = [(i, float(s)) for i, s in enumerate(sizes)]
    result = propose(workers, batches)
    zw, zm = z_scores([r for _, r in workers]), z_scores([s for _, s in batches])
    p = {(w, m): (zw[i] - zm[j]) ** 2 for i, (w, _) in enumerate(workers) for j, (m, _) in enumerate(batches)}
    owner = {m: w for w, m in result.pairs.items()}
    assert len(owner) == len(result.pairs) == min(len(workers), len(batches))
    assert result.proposals <= len(workers) * len(batches)
    for w, _ in workers:
        for m, _ in batches:
            mine, its = result.pairs.get(w), owner.get(m)
            worker_prefers = mine is None or (p[w, m], m) < (p[w, mine], mine)
            batch_prefers = its is None or (p[w, m], w) < (p[its, m], its)
            assert not (worker_prefers and batch_prefers), f"{w} and {m} would rather have each other"
