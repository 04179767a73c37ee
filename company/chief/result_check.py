"""Which results of a job the disk gives back as they were written (I/O): `company job retry` asks after damage was met."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import trio

from company.chief.runtime import segment_id
from company.chief.segments import Location, SegmentStore, header_of_untrusted
from company.chief.store import outcomes
from company.chief.store.jobs import JobRow
from company.chief.store.outcomes import OutcomeRow
from company.chief.store.store import Store
from p2p.base.errors import Unavailable


async def forget_damaged(store: Store, results: Path, job: JobRow) -> int:
    """After a job ended for damage, delete the rows of what is damaged, so that it is computed again; return of how many fragments."""
    if not job.reason or b'"result-damaged"' not in job.reason:
        return 0
    rows = await store.read(partial(outcomes.load, job=job.id))
    bad = await trio.to_thread.run_sync(damaged_rows, SegmentStore(results, segment_id(job.id)), rows)
    await store.write(partial(outcomes.forget, job=job.id, firsts=[row.first for row in bad]))
    return sum(row.count for row in bad)


def damaged_rows(segments: SegmentStore, rows: Iterable[OutcomeRow]) -> list[OutcomeRow]:
    """The rows that cannot be read, or one of whose large results cannot; closes ``segments``. Reads everything: call it in a thread."""
    found = []
    try:
        for row in rows:
            try:
                header = header_of_untrusted(segments.read(Location(row.segment, row.offset, row.length)))
                for offset, size, digest in header.blobs:
                    segments.read_blob(row.first + offset, size, digest)
            except Unavailable:
                found.append(row)
    finally:
        segments.close()
    return found
