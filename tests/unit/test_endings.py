"""Endings are counted all, told so many a minute, and tell what they left out."""

from __future__ import annotations

import logging

import pytest

from p2p.net.endings import LINES_PER_MINUTE, Endings


def test_every_ending_is_counted_and_the_log_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    endings = Endings(clock=lambda: now[0])
    with caplog.at_level(logging.INFO, "parallel.endings"):
        for n in range(1000):
            endings.note("rpc", "not-tls", f"192.0.2.1:{n}", "wrong version number")
        endings.note("rpc", "handshake-timeout", "192.0.2.1:5", "too slow")  # another reason is not drowned by the first
        assert len(caplog.messages) == LINES_PER_MINUTE + 1
        now[0] = 61.0
        endings.note("rpc", "not-tls", "192.0.2.1:9", "wrong version number")
        endings.note("rpc", "not-tls", "192.0.2.1:9", "wrong version number")
    assert endings.counts == {("rpc", "not-tls"): 1002, ("rpc", "handshake-timeout"): 1}
    assert f"({1000 - LINES_PER_MINUTE} more of its kind before it were not shown)" in caplog.messages[-2]
    assert "more of its kind" not in caplog.messages[-1]


def test_what_a_stranger_sends_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "parallel.endings"):
        Endings().note("http", "malformed-request", "192.0.2.1:1", "bad\n12:00:00 WARNING all is well\x1b[2J" + "x" * 9999)
    (line,) = caplog.messages
    assert "\n" not in line and "\x1b" not in line and len(line) < 400
