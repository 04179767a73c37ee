"""Run ``process`` for one fragment in the sandbox, as a worker would, without a company (I/O).

For reproducing a failure: the same package, input and parameters, and all that the fragment printed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import trio

from company.errors import FragmentsFailed
from company.package import check_package, read_package
from company.sandbox import BlobSpool, Child, ChildDied, ChildFailed, Profile, Sandbox, wire
from p2p.base.codec import decode_value_untrusted, encode_value
from p2p.base.errors import ParallelError
from p2p.base.frames import NO_SIZES, Frame, Sizes
from p2p.base.record import record

MAX_LOGS_BYTES = 4 << 20
TOKEN = 1


@record
class FragmentOutcome:
    """What became of one fragment. ``raw``: codec bytes of its result, nil when it failed; ``logs``: (stream 1 or 2, bytes)."""

    fragment: int
    raw: bytes | None
    cause: str = ""  # raised, load-failed, or what killed the child
    exc_type: str = ""
    message: str = ""
    traceback: str = ""
    preview: str = ""
    logs: tuple[tuple[int, bytes], ...] = ()
    artifacts: tuple[str, ...] = ()

    @property
    def value(self) -> Any:
        """The decoded result. Raises `FragmentsFailed` when there is none."""
        if self.raw is None:
            text = f"{self.exc_type}: {self.message}" if self.exc_type else self.message
            raise FragmentsFailed("fragment-failed", text or self.cause, fragment=self.fragment, cause=self.cause, traceback=self.traceback)
        return decode_value_untrusted(self.raw)


def run_fragment(package: Path, raw_input: bytes, params: Mapping[str, Any], fragment: int = 0, **limits: Any) -> Any:
    """Run one fragment, show on standard error what it prints, and return its value. Raises as `FragmentOutcome.value`."""
    outcome = try_fragment(package, raw_input, params, fragment, **limits)
    for _, data in outcome.logs:
        sys.stderr.write(data.decode("utf-8", "replace"))
    sys.stderr.flush()
    return outcome.value


def try_fragment(
    package: Path, raw_input: bytes, params: Mapping[str, Any], fragment: int = 0, *, time_limit_s: float | None = None,
    memory_bytes: int | None = None, allow_none: bool = False,
) -> FragmentOutcome:  # fmt: skip
    """Run one fragment and tell how it went. ``raw_input``: codec bytes. Raises what the package check raises, `UsageError` no-sandbox.

    Call from the main thread.
    """
    files = read_package(package).files
    info = check_package(files, default_name=package.name)

    async def main() -> FragmentOutcome:
        with tempfile.TemporaryDirectory(prefix="company-fragment-") as name:
            folder = Path(name)
            site = environment_of(info.requirements, folder)
            async with Sandbox.open(home=folder, stage=(site.parent,) if site else (), allow_none=allow_none) as sandbox:
                memory = memory_bytes or info.memory_bytes
                profile = Profile(role="process", memory_bytes=memory, site=site, processes=info.processes)
                child = await sandbox.start(profile)
                options = {"preview_bytes": 2000, "entry": info.entry.removeprefix("processor/")}
                talk = Talk(child, fragment, BlobSpool(folder))
                try:
                    return await _in_child(talk, files, encode_value(dict(params)), raw_input, options, time_limit_s or info.time_limit_s)
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                        await child.aclose()

    try:
        return trio.run(main)
    except* ParallelError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def environment_of(requirements: Sequence[str], folder: Path) -> Path | None:
    """A folder below ``folder`` with what a package requires, made of what is installed here; nil when a bare sandbox will do. Blocks.

    Raises `Unavailable` requirement-missing, wheel-not-repackable or environment-failed; `PeerError` bad-requirement.
    """
    from company.requirements import build_environment, collect_wheels
    from company.wheel_list import beyond_curated

    wanted = beyond_curated(requirements)
    if not wanted:
        return None
    wheels, target = folder / "wheels", folder / "environments"
    wheels.mkdir(mode=0o700)
    target.mkdir(mode=0o755)  # its children have other users
    collect_wheels(wanted, wheels)
    return build_environment(wheels, wanted, target)


async def _in_child(
    talk: Talk, files: Mapping[str, bytes], params: bytes, raw: bytes, options: Mapping[str, Any], time_limit_s: float
) -> FragmentOutcome:
    processor = {p: c for p, c in files.items() if p.startswith("processor/") or p == "package.toml"}
    child, fragment = talk.child, talk.fragment
    outcome: FragmentOutcome | None = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await child.watch(time_limit_s=time_limit_s)

        nursery.start_soon(watch)
        try:
            await child.load(role="process", params=params, files=processor, options=options)
            await talk.send(raw)
            outcome = await talk.read()
        except ChildFailed as failed:
            outcome = FragmentOutcome(fragment, None, f"{failed.where}-failed", failed.type, failed.message, failed.traceback)
        except ChildDied as died:
            verdict = died.verdict
            outcome = FragmentOutcome(fragment, None, verdict.cause, "", verdict.text, "", logs=((2, verdict.log_tail),))
        nursery.cancel_scope.cancel()
    assert outcome is not None
    return outcome


class Talk:
    """One RUN and its answers, in a child that has been loaded."""

    def __init__(self, child: Child, fragment: int, spool: BlobSpool) -> None:
        self.child = child
        self.fragment = fragment
        self._spool = spool
        self._artifacts: list[str] = []

    async def send(self, raw: bytes) -> None:
        """Hand the fragment to the child. Raises `ChildDied`."""
        if len(raw) > wire.INLINE_BYTES:
            await self.child.send_blob(0, raw)
            await self.child.send([wire.RUN, TOKEN, self.fragment, [[0, len(raw)]]], np.zeros(1, dtype="<u4"), b"")
        else:
            await self.child.send([wire.RUN, TOKEN, self.fragment, []], _one(len(raw)), raw)

    async def read(self) -> FragmentOutcome:
        """What became of it. Raises `ChildDied`, `ChildFailed`."""
        logs: list[tuple[int, bytes]] = []
        while True:
            frame = await self.child.receive()
            match frame.header[0]:
                case wire.CHUNK:
                    self._spool.add_untrusted(frame)
                case wire.ARTIFACT if frame.header[4]:
                    self._artifacts.append(frame.header[3])
                case wire.OUTCOME:
                    logs += _logs_of(frame)
                    if frame.header[3]:
                        return await self._outcome(frame, tuple(logs))
                case _:
                    continue

    async def _outcome(self, frame: Frame, logs: tuple[tuple[int, bytes], ...]) -> FragmentOutcome:
        status, _, _, item = frame.cut()
        large = self._spool.take(frame.header[9])
        raw = await trio.to_thread.run_sync(_take_file, large[0].path) if large else bytes(item)
        if status[0] == wire.STATUS_OK:
            return FragmentOutcome(self.fragment, raw, logs=logs, artifacts=tuple(self._artifacts))
        said = decode_value_untrusted(raw)
        texts = {k: str(said.get(k, "")) for k in ("type", "message", "traceback", "preview")} if isinstance(said, dict) else {}
        return FragmentOutcome(
            self.fragment, None, "raised", texts.get("type", ""), texts.get("message", ""), texts.get("traceback", ""),
            texts.get("preview", ""), logs, tuple(self._artifacts),
        )  # fmt: skip


def _take_file(path: Path) -> bytes:
    data = path.read_bytes()
    path.unlink()
    return data


def _logs_of(frame: Frame) -> list[tuple[int, bytes]]:
    block = frame.cut()[2]
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(block)))
    unpacker.feed(block)
    try:
        return [(int(stream), bytes(data)) for _, stream, data in unpacker]
    except (ValueError, TypeError, msgpack.UnpackException):
        return [(2, b"[its log is not readable]\n")]


def _one(size: int) -> Sizes:
    return np.array([size], dtype="<u4") if size else np.zeros(1, dtype=NO_SIZES.dtype)
