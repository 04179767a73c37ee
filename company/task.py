"""What a module may call while it runs: ``from company import task`` (pure; also copied into the sandbox).

Inside a sandboxed child the calls travel to the chief. Anywhere else (a notebook, a test of the module) they do the nearest
harmless thing, so that a module runs unchanged without a company.
"""

from __future__ import annotations

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from typing import Protocol

    class Sink(Protocol):
        """Where the calls go; the child connects its own."""

        def status(self, text: str, fraction: float | None) -> None: ...
        def artifact(self, name: str, data: bytes) -> None: ...
        def index(self) -> int | None: ...


MAX_NAME_BYTES = 200


class _Nowhere:
    """Outside a sandbox: nobody listens."""

    def status(self, text: str, fraction: float | None) -> None:
        return None

    def artifact(self, name: str, data: bytes) -> None:
        return None

    def index(self) -> int | None:
        return None


_sink: Sink = _Nowhere()  # one per process by nature: a module cannot be handed an object it does not name


def connect(sink: Sink) -> None:
    """Send the calls of this process to ``sink``. Called once, by the child."""
    global _sink
    _sink = sink


def status(text: str, fraction: float | None = None) -> None:
    """Say what this fragment is doing; ``fraction`` 0..1 is how far it is. At most two a second are sent, the last always."""
    if fraction is not None and not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in 0..1, got {fraction!r}")
    _sink.status(str(text)[:1000], None if fraction is None else float(fraction))


def progress(fraction: float, text: str = "") -> None:
    """Say how far this fragment is, 0..1."""
    status(text, fraction)


def log(*values: object) -> None:
    """Print, to be read with ``company job logs``."""
    print(*values)


def artifact(name: str, data: bytes | bytearray | memoryview | str) -> None:
    """Hand over a file that belongs to this fragment but is not its result: a picture, a checkpoint, a trace."""
    if not isinstance(name, str) or not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
        raise ValueError(f"an artifact's name must be a text of 1..{MAX_NAME_BYTES} bytes, got {name!r:.80}")
    if not name.isprintable() or set(name) & set("/\\:") or name.startswith("."):
        raise ValueError(f"an artifact's name must be a plain file name, got {name!r:.80}")
    _sink.artifact(name, data.encode() if isinstance(data, str) else bytes(data))


def index() -> int | None:
    """The number of the fragment being processed, or None outside a sandbox."""
    return _sink.index()
