"""Where a chief listens, and under which addresses other machines may reach it (I/O: asks the kernel, sends nothing)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Addresses:
    """Where this chief listens, known once it does. ``public_hosts``: names under which other machines reach it."""

    http: str = ""
    rpc: str = ""
    dht: str | None = None
    public_hosts: tuple[str, ...] = ()

    def for_tokens(self) -> Sequence[str]:
        """host:port of the RPC port as other machines may dial it."""
        host, _, port = self.rpc.rpartition(":")
        bound = host.strip("[]")
        hosts = self.public_hosts if bound in ("0.0.0.0", "::", "*", "") else (bound,)
        return [f"[{h}]:{port}" if ":" in h else f"{h}:{port}" for h in hosts] or [f"127.0.0.1:{port}"]


def local_hosts() -> tuple[str, ...]:
    """Addresses of this machine that others might reach, loopback last."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))  # sends nothing: asks the kernel which address it would use
                found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)]
    kept = [h for h in dict.fromkeys(found) if not h.startswith(("127.", "::1", "fe80", "0."))]
    return (*kept[:4], "127.0.0.1")
