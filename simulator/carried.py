"""A point of a sweep on a company's workers: the simulator and the rules that it drives travel as one archive (I/O: reads their sources).

A sandbox has Python, numpy, msgpack and a small ``company`` of its own. What is needed besides is Python source alone, so it is carried
there instead of being asked for as a distribution: workers whose owners let nothing in can compute it. libsodium does not travel: the
exact engine signs with keyed hashes, and whoever would make a real key in there is told.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

PARTS: Final = ("simulator/**/*.py", "p2p/**/*.py", "company/*.py", "company/chief/**/*.py")
CARRIED: Final = ("simulator", "p2p", "company", "packaging", "nacl")  # the modules that come out of the archive
ENTRY_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the same sources are the same bytes
NO_KEYS: Final = b'''"""No keys are made in a simulation."""
class BadSignatureError(Exception):
    pass
class SigningKey:
    def __init__(self, *_):
        raise RuntimeError("no keys are made in a simulation")
VerifyKey = SigningKey
'''


def archive() -> bytes:
    """All sources, zipped."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in _sources():
            file.writestr(zipfile.ZipInfo(name, ENTRY_DATE), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _sources() -> Iterator[tuple[str, bytes]]:
    import packaging

    project = Path(__file__).resolve().parents[1]
    for pattern in PARTS:
        for path in sorted(project.glob(pattern)):
            yield path.relative_to(project).as_posix(), path.read_bytes()
    for path in sorted(Path(packaging.__file__).parent.glob("*.py")):
        yield f"packaging/{path.name}", path.read_bytes()
    yield "nacl/__init__.py", b""
    for name in ("signing", "exceptions"):
        yield f"nacl/{name}.py", NO_KEYS


def carried_point() -> Callable[[tuple[str, dict[str, Any], int]], dict[str, Any]]:
    """`simulator.runs.run_point` that needs nothing where it runs; a function of a function, so that it travels by value."""
    packed, tops = archive(), CARRIED

    def run(task: tuple[str, dict[str, Any], int]) -> dict[str, Any]:
        import sys
        import tempfile
        from pathlib import Path

        def taken() -> dict[str, Any]:
            return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in tops}

        path, ours = getattr(sys, "_carried_simulator", ("", {}))  # of this process: nobody else's file is imported
        if not path:
            path = str(Path(tempfile.mkdtemp(), "carried.zip"))
            Path(path).write_bytes(packed)
        theirs = taken()  # the sandbox's own ``company`` and ``p2p``; it has them back when the point is done
        sys.path.insert(0, path)
        sys.modules.update(ours)
        try:
            from simulator.runs import run_point

            return run_point(task)
        finally:
            sys._carried_simulator = (path, taken())  # type: ignore[attr-defined]
            sys.path.remove(path)
            sys.modules.update(theirs)

    return run
