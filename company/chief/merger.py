"""Fragment path 8/9 - run a job's merge in its sandbox over the results in fragment order, and shape the final result (I/O).

Results stream from the segment files through a pipe; the chief holds one piece at a time. What merge wrote and returned
becomes one file: the single output file itself, a lone value as result.json, or a stored zip of all with result.json.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import trio

from company.sandbox import wire
from company.sandbox.child import Child, ChildDied, ChildFailed
from company.sandbox.profile import Profile
from company.sandbox.sandbox import Sandbox
from p2p.base.codec import decode_value_untrusted
from p2p.base.errors import MalformedMessage, Unavailable
from p2p.base.frames import NO_SIZES, Sizes
from p2p.base.record import record

MERGE_SILENCE_S = 3600.0  # without progress (surfaces.md)
MAX_OUTPUT_FILES = 100_000
VALUE_FILE = "value.codec"


@record
class MergePlan:
    """What a merge run needs. ``output``: an empty directory; ``result``: where the final file is put."""

    job: str
    files: Mapping[str, bytes]
    params: bytes
    memory_bytes: int
    output: Path
    output_max_bytes: int
    result_dir: Path
    site: Path | None = None  # what the package requires


@record
class MergeResult:
    """The final result: one file."""

    path: Path
    name: str
    size: int
    digest: bytes


@record
class MergeError:
    """Why merge did not end well."""

    cause: str
    exc_type: str
    message: str
    traceback: str


Feed = AsyncIterator[tuple[int, Sizes, bytes | memoryview]]


class MergeChild:
    """A merge child that can be started before the last result is there, so that the end of a job does not wait for it."""

    def __init__(self, child: Child, plan: MergePlan) -> None:
        self._child = child
        self._plan = plan

    @classmethod
    async def start(cls, sandbox: Sandbox, plan: MergePlan, blank: Child | None = None) -> MergeChild | MergeError:
        """Start the child and import the package's merge. ``blank``: one whose output is the plan's."""
        profile = Profile(
            role="merge", memory_bytes=plan.memory_bytes, output=plan.output, output_max_bytes=plan.output_max_bytes, site=plan.site
        )
        child = blank or await sandbox.start(profile)
        try:
            await child.load(role="merge", params=plan.params, files=plan.files, options={"output": "/output"})
        except (ChildFailed, ChildDied) as error:
            await child.aclose()
            return _merge_error(error)
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await child.aclose()
            raise
        return cls(child, plan)

    async def aclose(self) -> None:
        """Kill the child if it still runs."""
        await self._child.aclose()

    async def run(self, feed: Feed) -> MergeResult | MergeError:
        """Stream the results, take the value, shape the final file. Raises `Unavailable`, `OSError`: what ``feed`` and the disk raise.

        A child that has merged is dead when this returns; `aclose` is the caller's in any case.
        """
        child = self._child
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch, child)
                sender = _Sender(child, feed)
                nursery.start_soon(sender.run)
                try:
                    value = await self._value(child)
                finally:
                    nursery.cancel_scope.cancel()
        except (ChildFailed, ChildDied, MalformedMessage) as error:
            return _merge_error(error)
        except BaseExceptionGroup as group:
            known = _first(group)
            if known is None:
                raise
            if isinstance(known, (Unavailable, OSError)):
                raise known from None
            return _merge_error(known)
        if isinstance(value, MergeError):
            return value
        try:
            return await trio.to_thread.run_sync(shape_result, self._plan, value)
        except MalformedMessage as error:
            return _merge_error(error)
        except OSError:
            shutil.rmtree(self._plan.result_dir, ignore_errors=True)  # half a result is worth nothing, and fills the disk
            raise

    async def _value(self, child: Child) -> bytes | MergeError | None:
        parts: list[bytes] = []
        while True:
            frame = await child.receive()
            match frame.header[0]:
                case wire.MERGED:
                    if not frame.header[1]:
                        return None
                    return bytes(frame.body) if len(frame.body) or not parts else b"".join(parts)
                case wire.CHUNK:
                    parts.append(bytes(frame.body))
                    if sum(len(p) for p in parts) > 1 << 30:
                        raise MalformedMessage("merge returned a value of more than 1 GiB; write files instead")
                case wire.FAILED:
                    return MergeError("merge-raised", *(str(x) for x in frame.header[2:5]))
                case wire.STATUS:
                    continue
                case _:
                    raise MalformedMessage(f"merge sent message {str(frame.header[0])[:20]}")


def _first(group: BaseExceptionGroup[BaseException]) -> ChildFailed | ChildDied | MalformedMessage | Unavailable | OSError | None:
    for error in group.exceptions:
        if isinstance(error, (ChildFailed, ChildDied, MalformedMessage, Unavailable, OSError)):
            return error
        if isinstance(error, BaseExceptionGroup):
            inner = _first(error)
            if inner is not None:
                return inner
    return None


def _merge_error(error: ChildFailed | ChildDied | MalformedMessage) -> MergeError:
    if isinstance(error, ChildFailed):
        return MergeError(f"{error.where}-raised", error.type, error.message, error.traceback)
    if isinstance(error, ChildDied):
        return MergeError(error.verdict.cause, "", error.verdict.text, error.verdict.log_tail.decode("utf-8", "replace"))
    return MergeError("garbage-on-pipe", "", error.text, "")


async def _watch(child: Child) -> None:
    await child.watch(time_limit_s=MERGE_SILENCE_S)


class _Sender:
    """Feeds results to the child; a child that died while being fed is reported by the reader, which knows why."""

    def __init__(self, child: Child, feed: Feed) -> None:
        self._child = child
        self._feed = feed

    async def run(self) -> None:
        try:
            async for first, sizes, body in self._feed:
                if len(body) > wire.INLINE_BYTES and len(sizes) == 1:
                    await self._large(first, body)
                else:
                    await self._child.send([wire.RESULTS, first, []], sizes, body)
            await self._child.send([wire.END], NO_SIZES, b"")
        except (ChildDied, trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.sleep_forever()

    async def _large(self, first: int, body: bytes | memoryview) -> None:
        import numpy as np

        view = memoryview(body)
        step = wire.FLUSH_BYTES
        for at in range(0, len(view), step):
            piece = view[at : at + step]
            await self._child.send([wire.CHUNK, 0, at + step >= len(view)], np.array([len(piece)], dtype="<u4"), piece)
        await self._child.send([wire.RESULTS, first, [[0, len(view)]]], np.zeros(1, dtype="<u4"), b"")


def json_value(value: Any) -> Any:
    """A codec value as JSON has it: tuples and sets as lists, bytes as base64, other keys and kinds as text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {k if isinstance(k, str) else str(k): json_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_value(v) for v in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "tolist"):
        return json_value(value.tolist())
    return str(value)


def output_files(output: Path) -> list[tuple[Path, str]]:
    """Regular files below ``output`` with their relative names; links and devices are left out. Sorted by name."""
    found: list[tuple[Path, str]] = []
    for directory, folders, names in os.walk(output, followlinks=False):
        folders.sort()
        for name in names:
            path = Path(directory) / name
            if path.is_symlink() or not path.is_file():
                continue
            found.append((path, path.relative_to(output).as_posix()))
            if len(found) > MAX_OUTPUT_FILES:
                raise MalformedMessage(f"merge wrote more than {MAX_OUTPUT_FILES} files")
    return sorted(found, key=lambda item: item[1])


def shape_result(plan: MergePlan, value: bytes | None) -> MergeResult:
    """Make the one file that ``final-result`` serves, on disk before this returns. Raises `MalformedMessage`."""
    files = output_files(plan.output)
    plan.result_dir.mkdir(parents=True, exist_ok=True)
    if value is not None:
        (plan.result_dir / VALUE_FILE).write_bytes(value)
    if len(files) == 1 and value is None:
        name = Path(files[0][1]).name
        path = plan.result_dir / name
        os.replace(files[0][0], path)
    else:
        as_json = None
        if value is not None:
            as_json = json.dumps(json_value(decode_value_untrusted(value)), indent=1, ensure_ascii=False).encode()
        if not files:
            name = "result.json"
            path = plan.result_dir / name
            path.write_bytes(as_json if as_json is not None else b"null")
        else:
            name = "result.zip"
            path = plan.result_dir / name
            _zip(path, files, as_json)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
        os.fsync(stream.fileno())
    return MergeResult(path, name, path.stat().st_size, digest.digest())


def _zip(target: Path, files: list[tuple[Path, str]], as_json: bytes | None) -> None:
    """A stored zip with fixed times, so that the same job gives the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path, name in files:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as sink:
                while piece := source.read(1 << 20):
                    sink.write(piece)
        if as_json is not None:
            archive.writestr(zipfile.ZipInfo("result.json", (1980, 1, 1, 0, 0, 0)), as_json)
