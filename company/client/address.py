"""Where the chief is, and with which token to speak (I/O: reads small files).

Order: what the caller says, $COMPANY_URL and $COMPANY_TOKEN, the chief that runs in this home (one that is still starting is waited for),
the context that `company login` left.
A token never travels in the clear beyond this machine: plain http is accepted for loopback only.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from company.errors import ChiefUnreachable, ConfigurationError
from company.home_lock import holder_pid
from p2p.base.record import record

DEFAULT_PORT = 8470
START_LIMIT_S, START_POLL_S = 30.0, 0.05
_HERE = ("127.0.0.1", "localhost", "::1")


@record
class ChiefAddress:
    """One chief as this client reaches it. ``fingerprint``: hex SHA-256 of its certificate, when it is pinned."""

    tls: bool
    host: str
    port: int
    token: str | None = None
    fingerprint: str | None = None
    pid: int | None = None
    started: float | None = None

    @property
    def url(self) -> str:
        """The base address, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def parse_url(url: str, token: str | None = None, fingerprint: str | None = None) -> ChiefAddress:
    """Read ``http://host:port``, ``https://host:port#sha256:HEX`` or ``host:port``. Raises `ConfigurationError`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigurationError("bad-url", f"{url!r} is not the address of a chief", hint="write http://127.0.0.1:8470")
    if parts.fragment.startswith("sha256"):
        fingerprint = parts.fragment[7:]
    address = ChiefAddress(parts.scheme == "https", parts.hostname, port or DEFAULT_PORT, token, _fingerprint(fingerprint))
    if token and not address.tls and not _is_here(address.host):
        raise ConfigurationError(
            "token-in-the-clear",
            f"{address.url} is not on this machine and not encrypted; the token stays here",
            hint=f"use https, or a tunnel: ssh -L {address.port}:127.0.0.1:{address.port} {address.host}",
        )
    return address


def _is_here(host: str) -> bool:
    """Whether what is sent there stays on this machine; a name that only begins like an address of it does not."""
    if host in _HERE:
        return True
    from p2p.net.addresses import is_loopback  # ipaddress costs a command more than all of this file

    return is_loopback(host)


def find_chief(home: Path, environ: Mapping[str, str], *, url: str | None = None, token_file: Path | None = None) -> ChiefAddress:
    """The chief to talk to. Raises `ChiefUnreachable` when there is none, `ConfigurationError` for a bad setting."""
    token = read_token(token_file) if token_file is not None else environ.get("COMPANY_TOKEN") or None
    url = url or environ.get("COMPANY_URL") or None
    if url:
        fingerprint = environ.get("COMPANY_FINGERPRINT") or None
        return parse_url(url, token or _token_for(url, home), fingerprint)
    running = read_running(home)
    if running is None or not is_alive(running.pid):
        running = _wait_until_started(home) or running
    context = _read_json(home / "client" / "context.json")
    if running is not None and (context is None or is_alive(running.pid)):
        return ChiefAddress(
            running.tls, running.host, running.port, token or running.token, running.fingerprint, running.pid, running.started
        )
    if context is not None:
        return parse_url(str(context.get("url", "")), token or _text(context, "token"), _text(context, "fingerprint"))
    raise ChiefUnreachable(
        "no-chief",
        f"no chief is running in {home}, and none is named",
        hint="start one with `company start`, or set COMPANY_URL and COMPANY_TOKEN",
        home=str(home),
    )


def _wait_until_started(home: Path) -> ChiefAddress | None:
    """What a chief that holds this home and is not ready yet will write; None at once where there is none, and after a while."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and (pid := holder_pid(home / "chief")) is not None:
        running = read_running(home)
        if running is not None and running.pid == pid:
            return running
        time.sleep(START_POLL_S)
    return None


def read_running(home: Path) -> ChiefAddress | None:
    """What the chief of this home wrote when it was ready, whether or not it still runs."""
    found = _read_json(home / "chief" / "run" / "address.json")
    if found is None or not isinstance(found.get("http"), str):
        return None
    address = parse_url(found["http"], None, _text(found, "fingerprint"))
    pid = found.get("pid")
    started = found.get("started")
    # a chief that listens on every interface is reached here through loopback
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return ChiefAddress(
        address.tls, host, address.port, _text(found, "token"), address.fingerprint,
        pid if type(pid) is int else None, float(started) if isinstance(started, (int, float)) else None,
    )  # fmt: skip


def save_context(home: Path, address: ChiefAddress) -> Path:
    """Keep this address and token for later commands, readable by this user alone."""
    path = home / "client" / "context.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    body = {"url": address.url, "token": address.token, "fingerprint": address.fingerprint}
    write_private(path, json.dumps(body, indent=1).encode())
    return path


def write_private(path: Path, content: bytes) -> None:
    """Replace a file by one that only this user can read."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def read_token(path: Path) -> str:
    """The token in a file. Raises `ConfigurationError`."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("bad-token-file", f"{path} cannot be read: {error}") from None
    if not token or not token.isprintable() or " " in token:
        raise ConfigurationError("bad-token-file", f"{path} does not hold one token")
    return token


def is_alive(pid: int | None) -> bool:
    """Whether a process with this id exists; nil counts as yes, for nothing is known."""
    if pid is None:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _token_for(url: str, home: Path) -> str | None:
    """A token already held for exactly this address: a token is never sent to another chief than its own."""
    wanted = parse_url(url)
    running = read_running(home)
    if running is not None and (running.host, running.port) == (wanted.host, wanted.port):
        return running.token
    context = _read_json(home / "client" / "context.json")
    if context is not None and parse_url(str(context.get("url", ""))).url == wanted.url:
        return _text(context, "token")
    return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError:
        raise ConfigurationError(
            "not-your-chief", f"{path} belongs to another user", hint="run the command as that user, or set COMPANY_URL and COMPANY_TOKEN"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError("bad-address-file", f"{path} cannot be read: {error}") from None
    return found if isinstance(found, dict) else None


def _text(found: Mapping[str, Any], key: str) -> str | None:
    value = found.get(key)
    return value if isinstance(value, str) and value else None


def _fingerprint(text: str | None) -> str | None:
    if not text:
        return None
    plain = text.lower().removeprefix("sha256:").replace(":", "")
    if len(plain) != 64 or any(c not in "0123456789abcdef" for c in plain):
        raise ConfigurationError("bad-fingerprint", f"{text!r} is not a SHA-256 fingerprint of 64 hex digits")
    return plain
