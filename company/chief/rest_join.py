"""What a worker says of itself when it joins over REST (pure): bounded, and an address that the chief may dial.

The chief calls no other address than the one named here, follows no redirect, and says nothing in clear to another machine.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from company import messages as m
from company.chief.facade import Invalid
from p2p.base.errors import MalformedMessage
from p2p.base.record import record
from p2p.net.addresses import is_loopback, join_address

_KEY = re.compile(r"[0-9a-fA-F]{64}")
_SECRET = re.compile(r"[0-9a-f]{64}")
MAX_TEXT = 4096
Held = tuple[tuple[int, str, int, int], ...]  # token, job, first, count


@record
class JoinAsked:
    """A checked join. ``token``: of a new worker; ``worker``, ``bearer``: of a known one; ``address``: nil when it asks for work itself.

    ``key``: what an https address must show; nil where authorities vouch for it.
    """

    token: str | None
    worker: str | None
    bearer: str | None
    address: str | None
    callback: str
    machine: m.Machine
    key: bytes | None = None


def join_untrusted(body: dict[str, Any], remote: str) -> JoinAsked:
    """Read the body of a join that came from ``remote``. Raises only `Invalid`."""
    token, worker, bearer = (_text_or_nil(body, name) for name in ("token", "worker", "bearer"))
    if (token is None) == (bearer is None) or (worker is None) != (bearer is None):
        raise _invalid("token", "Say either token, or worker and bearer.")
    address = _text_or_nil(body, "http")
    if address is not None:
        address = checked_address(address, remote)
    callback = _text_or_nil(body, "callback") or ""
    if address is not None and not _SECRET.fullmatch(callback):
        raise _invalid("callback", "callback must be 64 hex digits: a secret that the chief shows when it calls the worker.")
    key = None
    if address is not None and address.startswith("https:") and (said := _text_or_nil(body, "key")) is not None:
        if not _KEY.fullmatch(said):
            raise _invalid("key", "key must be 64 hex digits: the Ed25519 key that the worker's address shows.")
        key = bytes.fromhex(said)
    array = body.get("machine")
    try:
        machine = m.Machine.parse_untrusted(array if isinstance(array, list) else [])
        machine = m.Machine.parse_untrusted(
            replace(machine, name=body.get("name", machine.name), slots=body.get("slots", machine.slots), http=address, rpc=None).as_array()
        )
    except MalformedMessage as error:
        raise _invalid("machine", f"machine must be the array of Machine: {error.text}") from None
    return JoinAsked(token, worker, bearer, address, callback, machine, key)


def held_untrusted(body: bytes) -> Held | None:
    """The leases that a worker's answer lists in ``held``; nil when it says nothing of them. Raises only `MalformedMessage`."""
    if not body:
        return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedMessage("the worker's answer is not JSON") from None
    listed = said.get("held") if isinstance(said, dict) else None
    if listed is None:
        return None
    resume = m.Resume.parse_untrusted([m.Resume.code, "held", listed, 0])
    return tuple((token, job, first, count) for token, job, first, count, _ in resume.held)


def checked_address(text: str, remote: str) -> str:
    """``scheme://host:port`` of a worker, which is where it joins from when it is a loopback one. Raises only `Invalid`."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _invalid("http", f"{text[:80]!r} is not an address like http://127.0.0.1:8471") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or port is None or parts.username is not None or parts.path not in ("", "/"):
        raise _invalid("http", f"{text[:80]!r} is not an address like http://127.0.0.1:8471")
    if parts.query or parts.fragment or len(text) > 200:
        raise _invalid("http", "http must be scheme, host and port, nothing else")
    here = is_loopback(host)
    if here and not is_loopback(remote):
        raise _invalid("http", f"{host} is this machine for the chief, not {remote}; name an address that the chief can reach, or none")
    if parts.scheme == "http" and not here:
        raise _invalid(
            "http", f"{text[:80]} is another machine and not encrypted; use https and say its key, or name no address and ask for work"
        )
    return f"{parts.scheme}://{join_address(host, port)}"


def _text_or_nil(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _invalid(name, f"{name} must be a text of at most {MAX_TEXT} characters")
    return value


def _invalid(path: str, text: str) -> Invalid:
    return Invalid("join-invalid", text, errors=[{"path": f"$.{path}", "detail": text}])
