"""What waits for a worker that speaks REST: order, bounds, JobIs in front of Run, acknowledgements that are no frames."""

from __future__ import annotations

import numpy as np
import pytest
import trio

from company import messages as m
from company.chief.rest_outbox import MAX_FRAMES, TAKE_BYTES, Outbox, Said
from p2p.base.errors import Unavailable
from p2p.base.frames import FrameParser
from p2p.base.schema import Message, parse_any_untrusted

P, Q = b"p" * 32, b"q" * 32


def told(outbox: Outbox, job: str, processor: bytes = P) -> None:
    outbox.send_nowait(m.JobIs(job, processor, 1000, 1 << 20, ""), np.array([1], dtype="<u4"), [b"\x80"])


def run(outbox: Outbox, token: int, job: str, size: int = 3) -> None:
    outbox.send_nowait(m.Run(token, 0, job, 0, 1, 0, ()), np.array([size], dtype="<u4"), [bytes(size)])


def kinds(said: list[Said]) -> list[str]:
    frames = FrameParser().feed_untrusted(b"".join(s.data for s in said))
    messages: list[Message] = [parse_any_untrusted(m.MESSAGES, f.header) for f in frames]
    return [f"{type(x).__name__}{getattr(x, 'token', '')}" for x in messages]


def everything(digest: bytes) -> bool:
    return True


async def test_every_body_describes_the_jobs_of_its_runs_until_the_worker_knows_them() -> None:
    outbox = Outbox()
    told(outbox, "a")
    run(outbox, 1, "a")
    run(outbox, 2, "a")
    assert kinds(outbox.take(everything)) == ["JobIs", "Run1", "Run2"]
    run(outbox, 3, "a")
    assert kinds(outbox.take(everything)) == ["JobIs", "Run3"]  # the other body may have been lost, or come later
    outbox.knows_job("a")
    run(outbox, 4, "a")
    assert kinds(outbox.take(everything)) == ["Run4"]
    assert outbox.is_empty


async def test_a_run_waits_until_the_worker_has_its_processor_and_nothing_overtakes_it() -> None:
    outbox = Outbox()
    told(outbox, "a", P)
    told(outbox, "b", Q)
    run(outbox, 1, "a")
    run(outbox, 2, "b")
    outbox.send_nowait(m.Cancel(2, "x"))
    assert outbox.next_processor({Q}.__contains__) == P
    assert kinds(outbox.take({P}.__contains__)) == ["JobIs", "Run1"]
    assert outbox.take({P}.__contains__) == []
    assert outbox.next_processor({P}.__contains__) == Q
    assert kinds(outbox.take({P, Q}.__contains__)) == ["JobIs", "Run2", "Cancel2"]


async def test_what_could_not_be_delivered_goes_first_next_time() -> None:
    outbox = Outbox()
    told(outbox, "a")
    run(outbox, 1, "a")
    taken = outbox.take(everything)
    run(outbox, 2, "a")
    outbox.put_back(taken)
    assert kinds(outbox.take(everything)) == ["JobIs", "Run1", "Run2"]


async def test_an_acknowledgement_is_an_event_and_no_frame() -> None:
    outbox = Outbox()
    ack, other = outbox.expect_ack(7, 100), outbox.expect_ack(7, 200)
    outbox.send_nowait(m.Ack(((7, 100),)))
    outbox.send_nowait(m.Pong(1))
    outbox.send_nowait(m.Stale(9, "over"))
    assert ack.is_set() and not other.is_set() and 9 in outbox.stale and outbox.is_empty
    await outbox.aclose()
    assert other.is_set()


async def test_leases_that_no_longer_count_after_coming_back_are_cancelled() -> None:
    outbox = Outbox()
    outbox.send_nowait(m.Resumed((1,), ((2, "leased-again"),), 2000, 0))
    assert kinds(outbox.take(everything)) == ["Cancel2"]


async def test_the_outbox_is_bounded_and_closed_for_good() -> None:
    outbox = Outbox()
    for number in range(MAX_FRAMES):
        outbox.send_nowait(m.Cancel(number, "x"))
    with pytest.raises(trio.WouldBlock):
        outbox.send_nowait(m.Cancel(0, "x"))
    await outbox.aclose()
    with pytest.raises(Unavailable):
        outbox.send_nowait(m.Cancel(0, "x"))
    assert outbox.is_empty


async def test_a_body_stays_below_what_a_worker_reads() -> None:
    outbox = Outbox()
    told(outbox, "a")
    for token in range(8):
        run(outbox, token, "a", 8 << 20)
        if token == 6:
            break
    first = outbox.take(everything)
    assert 0 < sum(len(s.data) for s in first) <= TAKE_BYTES + 1000
    assert not outbox.is_empty


async def test_a_refused_processor_takes_the_batches_of_its_jobs_away() -> None:
    outbox = Outbox()
    told(outbox, "a", P)
    told(outbox, "b", Q)
    run(outbox, 1, "a")
    run(outbox, 2, "b")
    assert outbox.drop_jobs_of(P) == ["a"]
    assert kinds(outbox.take(everything)) == ["JobIs", "Run2"]
