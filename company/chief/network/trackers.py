"""The client's side of trackers: announce ourselves, take what they know of others (I/O)."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from p2p.base.clock import UnixTime
from p2p.base.errors import MalformedMessage, ParallelError, UsageError
from p2p.dht.tracker import MAX_ANSWER_BYTES, Entry, peers_of_json_untrusted
from p2p.net.http_client import HttpClient

TIMEOUT_S = 10.0


@dataclass(slots=True)
class TrackerState:
    """What came of the last round."""

    url: str
    ok: bool | None = None
    text: str = "not asked yet"
    at: float = 0.0
    entries: tuple[Entry, ...] = field(default=(), repr=False)


def check_tracker_url(url: str) -> str:
    """The URL without its last slash. Raises `UsageError`."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bracket that does not close, a port that is no number
        is_usable = False
    if not is_usable or parts.query or parts.fragment:
        raise UsageError("bad-tracker", f"{url[:100]!r} is no address of a tracker", hint="write http://tracker.example:8471")
    return url.rstrip("/")


async def ask_tracker(http: HttpClient, state: TrackerState, announcement: bytes | None, network_id: bytes, now: UnixTime) -> None:
    """Announce, if there is something to announce, and fetch; whatever happens is said in ``state``."""
    state.at = float(now)
    try:
        if announcement is not None:
            headers = {"Content-Type": "application/octet-stream"}
            done = await http.request(
                "POST", f"{state.url}/tracker/announce", headers=headers, body=announcement, timeout_s=TIMEOUT_S, max_bytes=64 << 10
            )
            if done.status >= 300:
                raise MalformedMessage(f"announcing was answered {done.status}: {done.body[:200].decode('utf-8', 'replace')}")
        reply = await http.request("GET", f"{state.url}/tracker/peers", timeout_s=TIMEOUT_S, max_bytes=MAX_ANSWER_BYTES)
        if reply.status != 200:
            raise MalformedMessage(f"asking for peers was answered {reply.status}")
        state.entries = peers_of_json_untrusted(reply.body, network_id, now)
        state.ok, state.text = True, f"knows {len(state.entries)} companies"
    except ParallelError as error:
        state.ok, state.text = False, error.text
