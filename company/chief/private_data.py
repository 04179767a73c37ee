"""Datasets that never leave this company: who may mark one, and when (I/O: one row of the database)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from company import views
from company.chief.facade import Conflict, Principal
from company.chief.jobrun import JobRun
from company.chief.library import Library


async def mark_private(library: Library, jobs: Iterable[JobRun], ref: str, private: bool, *, by: Principal) -> views.DatasetView:
    """Mark a dataset, or take the mark off again, which holds for jobs from then on.

    ``jobs``: those that are open. Raises `NotFound`, `Refused`, and `Conflict` where other companies may have some of it already.
    """
    row = await library.dataset_row(ref)
    abroad = sorted(j.id for j in jobs if j.spec.dataset == row.digest and j.spec.where != "own" and not j.spec.is_private)
    if private and abroad:
        text = f"Other companies may compute {', '.join(abroad[:5])} with {row.name}; end that first."
        raise Conflict("dataset-goes-abroad", text, hint=f"company job cancel {abroad[0]}")
    await library.change_dataset(replace(row, private=private), by=by)
    return await library.dataset(row.digest.hex())
