"""Installs company-compute on a machine that has nothing but Python, from the chief's own wheels (I/O, standard library only).

Sent by the chief as /install.py and run by the line of `company.install_line`, which sets CHIEF, KEY and ARGV. Every connection is
pinned to the chief's key again, every wheel is compared with its SHA-256, and pip works offline. Only the last statement of this
file does anything, so a copy that was cut short does nothing. It must run far enough on an old Python to say that it is too old.

    [--target DIR]   where the virtual environment goes (default ~/.local/share/company/venv)
    [--token TOKEN]  shown in the next step
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from typing import Any, BinaryIO

SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")  # RFC 8410
MAX_INDEX_BYTES = 4 << 20
MAX_WHEEL_BYTES = 1 << 30
TIMEOUT_S = 60
BUILD_S = 600  # a small, busy chief that packs its wheels for the first time


class Refused(Exception):
    """A reason to stop, in words for the person at the keyboard."""


class Chief:
    """Where the wheels come from, and the key that must be there."""

    def __init__(self, host: str, port: int, key: bytes) -> None:
        self.address = (host, port)
        self.key = key

    def __str__(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def fetch(
        self, path: str, limit: int, *, size: int | None = None, file: BinaryIO | None = None, timeout_s: float = TIMEOUT_S
    ) -> tuple[bytes, str]:
        """GET ``path``, of at most ``limit`` and, if given, exactly ``size`` bytes, into ``file`` if given. Returns (bytes, SHA-256)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # what is compared is the key, below
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        with socket.create_connection(self.address, TIMEOUT_S) as plain, context.wrap_socket(plain) as channel:
            if key_of(channel.getpeercert(True) or b"") != self.key:
                raise Refused(f"{self} is not the chief that made this line.")
            channel.settimeout(timeout_s)
            channel.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            with channel.makefile("rb") as stream:
                return read_answer(stream, path, limit, size, file)


def read_answer(stream: BinaryIO, path: str, limit: int, expected: int | None, file: BinaryIO | None) -> tuple[bytes, str]:
    """The body of one HTTP answer and its SHA-256; the body goes into ``file`` if given."""
    words = stream.readline(8192).split()
    if len(words) < 2 or words[1] != b"200":
        raise Refused(f"The chief answered {words[1].decode('ascii', 'replace') if len(words) > 1 else 'nothing'} for {path}.")
    size = -1
    while True:
        line = stream.readline(8192)
        if line in (b"\r\n", b"\n", b""):
            break
        if line.lower().startswith(b"content-length:"):
            size = int(line.split(b":")[1])
    if not 0 <= size <= limit or expected not in (None, size):
        raise Refused(f"The chief announced {size} bytes for {path}; that cannot be.")
    digest, parts = hashlib.sha256(), []
    while size:
        piece = stream.read(min(size, 1 << 18))
        if not piece:
            raise Refused(f"The connection broke while {path} was coming. Run the line again.")
        digest.update(piece)
        size -= len(piece)
        if file is None:
            parts.append(piece)
        else:
            file.write(piece)
    return b"".join(parts), digest.hexdigest()


def element(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """Start and end of the content of the DER element at ``at``. Raises `ValueError` for another tag or an indefinite length."""
    if der[at] != tag or der[at + 1] == 0x80:  # OpenSSL reads BER too: a walk that disagreed with it could be led elsewhere
        raise ValueError("not the expected element")
    count = max(0, der[at + 1] - 128)
    start = at + 2 + count
    return start, start + (int.from_bytes(der[at + 2 : start], "big") if count else der[at + 1])


def key_of(der: bytes) -> bytes | None:
    """The Ed25519 key of a certificate, found by its place; nil for another kind."""
    try:
        at = element(der, element(der, 0, 0x30)[0], 0x30)[0]
        at = element(der, at, 0xA0)[1] if der[at] == 0xA0 else at  # the version, which may be left out
        for tag in (0x02, 0x30, 0x30, 0x30, 0x30):  # serial, algorithm, issuer, validity, subject
            at = element(der, at, tag)[1]
    except (IndexError, ValueError):
        return None
    return der[at + 12 : at + 44] if der[at : at + 12] == SPKI_PREFIX and len(der) >= at + 44 else None


def check_python(index: dict[str, Any]) -> None:
    """Refuse, in words, a Python that the chief's wheels are not for."""
    here, wanted = f"{sys.version_info[0]}.{sys.version_info[1]}", index["python"]
    if sys.version_info < (3, 11):  # noqa: UP036 - this file meets Pythons that the project does not
        raise Refused(f"Python 3.11 or newer is needed; this is {here}. {other_python(wanted)}")
    if not index["compiled"]:
        return
    if (here, sys.implementation.name) != (wanted, index["implementation"]):
        raise Refused(f"The chief runs Python {wanted}, and its wheels are for that; this is Python {here}. {other_python(wanted)}")
    mine, theirs = f"{platform.system()} on {platform.machine()}", f"{index['system']} on {index['machine']}"
    if mine != theirs:
        raise Refused(f"The chief's wheels are for {theirs}; this is {mine}. Try: pip install {index['root']}=={index['version']}")


def other_python(wanted: str) -> str:
    """How to get and use Python ``wanted``."""
    found = shutil.which(f"python{wanted}")
    if found:
        return f"Run the line with {found} instead."
    return f"Install it (Debian, Ubuntu: {sudo()}apt install python{wanted}-venv) and run the line with python{wanted} instead."


def sudo() -> str:
    """What stands before a command for root here."""
    return "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "


def check_venv() -> None:
    """Refuse, with the line that mends it, a Python without venv or without pip's wheel (Debian packs them apart)."""
    try:
        import ensurepip
        import venv  # noqa: F401

        ensurepip.version()
    except (ImportError, OSError):
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise Refused(
            f"Python's venv module is not whole on this machine. Debian, Ubuntu: {sudo()}apt install {package}, then run the line again."
        ) from None


def read_index(chief: Chief) -> dict[str, Any]:
    """The chief's list of wheels, checked for form."""
    print(f"Asking {chief} for its wheels; the first time it has to pack them", flush=True)
    index: dict[str, Any] = json.loads(chief.fetch("/wheels/index.json", MAX_INDEX_BYTES, timeout_s=BUILD_S)[0].decode("utf-8"))
    if index.get("format") != 1:
        raise Refused(f"This chief's index has format {index.get('format')!r}; have the chief make a new line.")
    for wheel in index["wheels"]:
        name = wheel["file"]
        if not name.endswith(".whl") or not all(c.isalnum() or c in "._-+" for c in name):
            raise Refused(f"The chief named a wheel {name!r}; that cannot be.")
    return index


def download(chief: Chief, index: dict[str, Any], folder: str) -> None:
    """Fetch every wheel, comparing its SHA-256."""
    total = sum(wheel["size"] for wheel in index["wheels"])
    print(f"Fetching {len(index['wheels'])} wheels, {total / 1e6:.1f} MB, from {chief}", flush=True)
    for wheel in index["wheels"]:
        with open(os.path.join(folder, wheel["file"]), "wb") as file:
            _, digest = chief.fetch("/wheels/" + wheel["file"], MAX_WHEEL_BYTES, size=wheel["size"], file=file)
        if digest != wheel["sha256"]:
            raise Refused(f"{wheel['file']} came damaged. Run the line again.")


def install(index: dict[str, Any], folder: str, target: str) -> str:
    """Make the virtual environment, let pip fill it offline, and return the path of the command."""
    is_windows = os.name == "nt"
    binaries = os.path.join(target, "Scripts" if is_windows else "bin")
    python = os.path.join(binaries, "python.exe" if is_windows else "python")
    if not os.path.exists(python):
        print(f"Making {target}", flush=True)
        made = subprocess.run([sys.executable, "-I", "-m", "venv", target], capture_output=True, text=True, check=False)
        if made.returncode:
            raise Refused(f"The virtual environment could not be made in {target}:\n{(made.stderr or made.stdout).strip()[-2000:]}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    environment["PIP_CONFIG_FILE"] = os.devnull  # no index, no proxy: what the chief sent and nothing else
    command = [python, "-I", "-m", "pip", "install", "--no-index", "--find-links", folder, "--disable-pip-version-check", "--no-cache-dir"]
    command += ["-q", "--upgrade", f"{index['root']}=={index['version']}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise Refused(f"pip could not install the chief's wheels:\n{(done.stderr or done.stdout).strip()[-2000:]}")
    return os.path.join(binaries, "company.exe" if is_windows else "company")


def main(host: str, port: int, key_hex: str, argv: list[str]) -> int:
    """Install, and say what comes next. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="install", description="Install company-compute from a chief.")
    parser.add_argument("--target", default=os.path.join(os.path.expanduser("~"), ".local", "share", "company", "venv"))
    parser.add_argument("--token", default="TOKEN")
    options = parser.parse_args(argv)
    chief = Chief(host, port, bytes.fromhex(key_hex))
    try:
        index = read_index(chief)
        check_python(index)
        check_venv()
        with tempfile.TemporaryDirectory(prefix="company-wheels-") as folder:
            download(chief, index, folder)
            command = install(index, folder, os.path.abspath(options.target))
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"The installation from {chief} failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"Installed {index['root']} {index['version']}. Next:\n\n    {command} worker join {options.token}\n")
    return 0


if "CHIEF" in globals():
    sys.exit(main(globals()["CHIEF"][0], globals()["CHIEF"][1], globals()["KEY"], globals()["ARGV"]))
