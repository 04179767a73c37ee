"""The file that holds an identity's seed: created once, mode 0600, in a directory of mode 0700 (I/O)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from p2p.base.errors import UsageError
from p2p.base.keys import SEED_BYTES, Identity

_PREFIX = "ed25519-seed "


def load_or_create_identity(path: Path) -> Identity:
    """Return the identity in ``path``, made on first use. Two processes that race get the same one."""
    if not path.exists():
        create_identity(path)
    return load_identity(path)


def load_identity(path: Path) -> Identity:
    """Return the identity in ``path``. Raises `UsageError` when it is missing, damaged or readable by others."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii")
    except FileNotFoundError:
        raise UsageError("identity-missing", f"there is no identity at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("identity-unreadable", f"cannot read the identity at {path}: {error}") from None
    if mode & 0o077:
        raise UsageError("identity-exposed", f"{path} can be read by other users (mode {mode:o})", hint=f"chmod 600 {path}")
    try:
        seed = bytes.fromhex(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else b""
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise UsageError("identity-damaged", f"{path} does not hold an identity", hint="restore it from a backup; a new one is a new name")
    return Identity(seed)


def create_identity(path: Path) -> None:
    """Write a fresh identity, whole and on disk or not at all; keeps one that is already there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{_PREFIX}{os.urandom(SEED_BYTES).hex()}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # unlike rename, never replaces what another process wrote first
        except FileExistsError:
            return
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        os.unlink(part)
