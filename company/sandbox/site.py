"""The folder /site of a child: msgpack, the codec, ``company.task``, and our program, nothing else (I/O).

Built once per content under ``home/cache`` and shared by all children, read-only. numpy is bound beside it, never copied.
"""

from __future__ import annotations

import hashlib
import os
import py_compile
import shutil
import sys
import tempfile
from pathlib import Path

from company.sandbox import host

_PROJECT = Path(__file__).resolve().parents[2]
_FILES = (
    "company/task.py",
    "company/fragment.py",
    "company/sandbox/wire.py",
    "company/sandbox/page_slots.py",
    "p2p/base/codec.py",
)
_INSIDE = "company/sandbox/inside"
_COMPANY_INIT = '''"""What a module may import inside a sandbox."""
from company import task
from company.fragment import Fragment


def _outside(name):
    def refuse(*args, **kwargs):
        raise RuntimeError(f"company.{name} cannot be used inside a fragment: it has no network")

    return refuse


Client, Executor, FragmentError, Future, Job, connect, local = map(
    _outside, ("Client", "Executor", "FragmentError", "Future", "Job", "connect", "local")
)
'''
BOUND = ("numpy", "numpy.libs")


def build_site(cache: Path) -> Path:
    """Return the folder, made under ``cache`` when it is not there yet. Idempotent; two daemons may race."""
    contents = _contents()
    digest = hashlib.sha256(sys.version.encode())
    for name, data in sorted(contents.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    final = cache / f"sandbox-site-{digest.hexdigest()[:16]}"
    if final.is_dir():
        return final
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".sandbox-site-", dir=cache))
    try:
        for name, data in contents.items():
            _write(work, name, data)
        for name in BOUND:  # a place to bind to, since /site is read-only by then
            (work / name).mkdir()
        for folder in [work, *(p for p in work.rglob("*") if p.is_dir())]:
            folder.chmod(0o755)
        os.rename(work, final)
    except FileExistsError:
        pass
    except OSError:
        if not final.is_dir():  # not lost to a faster builder: a real failure
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _contents() -> dict[str, bytes]:
    found = {name: (_PROJECT / name).read_bytes() for name in _FILES}
    found |= {f"{_INSIDE}/{path.name}": path.read_bytes() for path in (_PROJECT / _INSIDE).glob("*.py")}
    found["company/__init__.py"] = _COMPANY_INIT.encode()
    for name in ("company/sandbox", "p2p", "p2p/base"):
        found[f"{name}/__init__.py"] = b""
    packer = host.msgpack_folder()
    found |= {f"msgpack/{path.name}": path.read_bytes() for path in packer.iterdir() if path.suffix in (".py", ".so")}
    return found


def _write(root: Path, name: str, data: bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)
    if path.suffix == ".py":
        # Unchecked: mtimes differ between machines and copies, and nobody edits this folder.
        made = py_compile.compile(
            str(path), dfile=f"/site/{name}", doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
        if made is not None:
            os.chmod(made, 0o644)
