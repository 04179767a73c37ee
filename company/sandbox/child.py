"""Fragment path 6/9, the daemon's side - one sandboxed child: send, receive, watch, kill, reap (I/O).

Whatever a child does, its owner sees one of three things: a frame, `ChildFailed` (the module raised where nothing is left
to do) or `ChildDied` with a verdict. What it says is parsed with bounds; nonsense on the pipe kills it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trio

from company.sandbox import wire
from company.sandbox.cgroups import Group
from company.sandbox.checks import check_frame_untrusted
from company.sandbox.output import MAX_ENTRIES, deleted_bytes, descendants, measure, take_output, tmp_entries
from company.sandbox.page import Page, read_log, read_page
from company.sandbox.page_slots import STAGE_LOADED, STAGE_NONE
from company.sandbox.patience import Patience
from company.sandbox.profile import Profile
from company.sandbox.verdict import Killed, Verdict, judge
from p2p.base.codec import encode_value
from p2p.base.errors import MalformedMessage
from p2p.base.frames import NO_SIZES, Frame, FrameParser, Sizes, encode_frame
from p2p.base.record import record

READ_BYTES = 1 << 20
PARSE_BYTES, FLOOD_BYTES = 64 << 10, 4 << 10  # parsed without a pause; the less when a child sends nothing but tiny frames
MANY_FRAMES = 100  # in one piece of them
CHUNK_BYTES = 1 << 20
IMPORT_LIMIT_S = 120.0
DEATH_GRACE_S = 2.0
START_GRACE_S = 1.0
BELOW_S = 2.0  # the kernel ends what a dead child leaves in milliseconds
STALLED_S = 1.0  # the daemon itself stood still
POLL_S, POLL_MAX_S = 0.1, 1.0  # how often a page is read; rarely where the limit is minutes, to let an idle machine sleep
TAIL_BYTES = 8192
_NO_PARAMS = encode_value({})


class ChildDied(Exception):
    """The child is no more; ``verdict`` says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.text)
        self.verdict = verdict


class ChildFailed(Exception):
    """The module raised outside a fragment: at import, in split, count or merge."""

    def __init__(self, where: str, type: str, message: str, traceback: str) -> None:
        super().__init__(f"{where}: {type}: {message}")
        self.where = where
        self.type = type
        self.message = message
        self.traceback = traceback


@record
class Ready:
    """What READY said."""

    functions: tuple[str, ...]
    python: str


class Child:
    """One child. `receive` has one caller at a time, `send` too; `kill` may come from anywhere."""

    def __init__(
        self, process: subprocess.Popen[bytes], *, to_child: int, from_child: int, page_fd: int, log_fd: int, profile: Profile,
        reachable: Mapping[str, str], cleanup: Path | None = None, has_own_tmp: bool = False, group: Group | None = None,
    ) -> None:  # fmt: skip
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._to_child = trio.lowlevel.FdStream(to_child)
        self._from_child = trio.lowlevel.FdStream(from_child)
        self._page_fd = page_fd
        self._log_fd = log_fd
        self._parser = FrameParser()
        self._frames: deque[Frame] = deque()
        self._unparsed = memoryview(b"")
        self._piece_bytes = PARSE_BYTES
        self._patience = Patience(profile.role)
        self._killed: Killed | None = None
        self._verdict: Verdict | None = None
        self._is_closed = False
        self._below: list[int] = []  # pidfds of what it had started when it was killed
        self._reachable = reachable
        self._cleanup = cleanup
        self._has_own_tmp = has_own_tmp
        self._group = group
        self.profile = profile

    @property
    def pid(self) -> int:
        """Of the outermost process; all below die with it."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet, as far as anyone has looked."""
        return not self._is_closed and self._verdict is None and self._process.poll() is None

    @property
    def verdict(self) -> Verdict | None:
        """Why it died, once that is known."""
        return self._verdict

    async def load(
        self, *, role: str, params: bytes = _NO_PARAMS, files: Mapping[str, bytes], options: Mapping[str, Any],
        limit_s: float = IMPORT_LIMIT_S,
    ) -> Ready:  # fmt: skip
        """Hand over the package and wait until it is imported, ``limit_s`` at most. Raises `ChildFailed`, `ChildDied`."""
        items = [params]
        for path, content in files.items():
            items += [path.encode(), content]
        sizes = np.fromiter(map(len, items), dtype="<u4", count=len(items))
        translated = {k: self._inside(v) if k in ("data", "output") else v for k, v in options.items()}
        if role == "merge":
            translated.setdefault("output", self._inside("/output"))
        self._patience = Patience(role, flush_s=int(options.get("flush_us", wire.FLUSH_US)) / 1e6)
        with trio.move_on_after(limit_s) as scope:
            await self.send([wire.LOAD, role, translated], sizes, b"".join(items))
            header = (await self.receive()).header
        if scope.cancelled_caught:
            raise ChildDied(await self._condemn("time-limit", f"the package took longer than {limit_s:g} s to import"))
        if header[0] != wire.READY:
            raise ChildDied(await self._condemn("garbage-on-pipe", "the child answered its package with something else"))
        return Ready(tuple(header[1]), header[2])

    async def send(self, header: list[Any], sizes: Sizes = NO_SIZES, body: bytes | memoryview = b"") -> None:
        """Send one frame; waits while the child does not read. Raises `ChildDied`."""
        head, tail = encode_frame(header, sizes, body)
        self._patience.send_begun(header, len(sizes), now=trio.current_time())
        try:
            if len(tail) <= 1 << 16:
                await self._to_child.send_all(head + bytes(tail))
            else:
                await self._to_child.send_all(head)
                await self._to_child.send_all(tail)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ChildDied(await self._death()) from None
        finally:
            self._patience.send_ended(now=trio.current_time())

    async def send_chunk(self, blob: int, data: bytes | memoryview, *, last: bool) -> None:
        """Send the next bytes of large item ``blob`` of the message that follows."""
        await self.send([wire.CHUNK, blob, last], np.array([len(data)], dtype="<u4"), data)

    async def send_blob(self, blob: int, data: bytes | memoryview) -> None:
        """Send a whole large item."""
        view = memoryview(data)
        for start in range(0, max(1, len(view)), CHUNK_BYTES):
            await self.send_chunk(blob, view[start : start + CHUNK_BYTES], last=start + CHUNK_BYTES >= len(view))

    async def receive(self) -> Frame:
        """The next frame, its header checked (`company.sandbox.checks`). Raises `ChildFailed` for FAILED, `ChildDied` at the end."""
        self._patience.wait_begun(now=trio.current_time())
        try:
            frame = await self._next_frame()
        finally:
            self._patience.wait_ended(now=trio.current_time())
        self._patience.received(frame.header, len(frame.sizes), len(frame.body), now=trio.current_time())
        if frame.header[0] == wire.FAILED:
            raise ChildFailed(*frame.header[1:])
        if frame.header[0] == wire.MERGED and self.profile.output is not None:
            await self._take_output(self.profile.output)
        return frame

    async def _next_frame(self) -> Frame:
        while not self._frames:
            if not self._unparsed:
                self._unparsed = memoryview(await self._receive_some())
            size = max(self._piece_bytes, self._parser.missing_bytes)  # what is missing is of one frame only
            data, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            try:
                frames = self._parser.feed_untrusted(data)
                for frame in frames:
                    check_frame_untrusted(frame)
            except MalformedMessage as error:
                raise ChildDied(await self._condemn("garbage-on-pipe", f"the child sent nonsense: {error.text}")) from None
            self._frames.extend(frames)
            self._piece_bytes = FLOOD_BYTES if len(frames) > MANY_FRAMES else PARSE_BYTES
            if len(frames) > MANY_FRAMES:
                await trio.lowlevel.checkpoint()  # a child that floods us with tiny frames shall not hold up its neighbours
        return self._frames.popleft()

    async def _receive_some(self) -> bytes | bytearray:
        """Wait for bytes. Raises `ChildDied` at the end."""
        try:
            data = await self._from_child.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            raise ChildDied(await self._death())
        return data

    async def _take_output(self, folder: Path) -> None:
        """A merge that is done has nothing more to write: end it, measure what it left, make it ours. Raises `ChildDied`."""
        self.kill("cancelled", "it has merged")
        verdict = await self.wait()
        files = await trio.to_thread.run_sync(take_output, folder)
        text = self._too_much(sum(size for _, size in files), "")
        if text:
            self._verdict = replace(verdict, cause="disk-limit", text=text)
            raise ChildDied(self._verdict)

    def page(self) -> Page:
        """Where it stands."""
        return read_page(self._page_fd)

    def log_tail(self, max_bytes: int = TAIL_BYTES) -> bytes:
        """The last bytes that the current fragment printed."""
        return read_log(self._log_fd, self.page(), max_bytes)

    def kill(self, cause: str, text: str) -> None:
        """End it now; the verdict will name ``cause``. The first reason stays."""
        if self._killed is None and self._verdict is None and self._process.poll() is None:
            self._killed = Killed(cause, text)
            self._below = _pidfds(descendants(self._process.pid)) if self._group is None else []  # a group waits for all itself
        if self._verdict is None and not self._is_closed and self.page().stage == STAGE_NONE:
            # bwrap's inner half asks for its death signal late; until then it would wait for its dead outer half for ever
            for pid in descendants(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.kill()  # does nothing when it has been reaped

    async def wait(self) -> Verdict:
        """Wait until it is dead and reaped."""
        if self._verdict is None:
            while self._process.poll() is None:
                await trio.lowlevel.wait_readable(self._pidfd)
            page = self.page()
            self._verdict = judge(
                returncode=self._process.returncode, page=page, log_tail=read_log(self._log_fd, page, TAIL_BYTES),
                killed=self._killed, memory_bytes=self.profile.memory_bytes,
                was_out_of_memory=self._group is not None and self._group.was_out_of_memory(),
            )  # fmt: skip
        return self._verdict

    async def _wait_below(self) -> None:
        """What was below a killed child dies a moment after it: nothing of it runs when this returns."""
        with trio.move_on_after(BELOW_S):
            for pidfd in self._below:
                await trio.lowlevel.wait_readable(pidfd)
        while self._below:
            os.close(self._below.pop())

    async def watch(self, *, time_limit_s: float | None) -> None:
        """Kill it when user code stands at one place longer than ``time_limit_s``, when it owes an answer for longer than any honest
        child would, or when it fills the output folder; until cancelled or dead."""
        interval_s = POLL_S if time_limit_s is None else min(POLL_MAX_S, max(POLL_S, time_limit_s / 20))
        if time_limit_s is None and self.profile.output is None:
            await self.wait()
        while self.is_alive:
            asleep_at = trio.current_time()
            await trio.sleep(interval_s)
            if time_limit_s is not None:
                is_late = trio.current_time() - asleep_at > interval_s + STALLED_S  # then what came has not been read, either
                self._check_time(time_limit_s, is_late=is_late)
            if self._has_own_tmp and (entries := tmp_entries(self._process.pid)) > MAX_ENTRIES:
                self.kill("disk-limit", f"it made {entries:,} files in its temporary folders; {MAX_ENTRIES:,} are allowed")
            if self.profile.output is not None and self.is_alive:
                await self._check_output(self.profile.output)

    def _check_time(self, limit_s: float, *, is_late: bool) -> None:
        page = self.page()
        if page.in_user and page.started_s_ago > limit_s:
            self.kill("time-limit", _too_long(self.profile.role, page, limit_s))
        elif not is_late and (waited_s := self._patience.waited_s(now=trio.current_time())) > self._patience.allowed_s(limit_s):
            self.kill("time-limit", f"no answer for {waited_s:.1f} s, where each step may take {limit_s:g} s")

    async def _check_output(self, folder: Path) -> None:
        usage = await trio.to_thread.run_sync(measure, folder)
        hidden = await trio.to_thread.run_sync(deleted_bytes, self._process.pid, self._inside("/output"))
        if text := self._too_much(usage.size_bytes + hidden.size_bytes, usage.trouble or hidden.trouble):
            self.kill("disk-limit", text)

    def _too_much(self, used: int, trouble: str) -> str:
        limit = self.profile.output_max_bytes
        if used > limit:
            return f"the output folder grew past {limit:,} bytes (it had {used:,})"
        return f"the output folder is not to be kept: {trouble}" if trouble else ""

    async def aclose(self) -> None:
        """Kill it if it lives, reap it, give back what it held. Idempotent."""
        if self._is_closed:
            return
        with trio.CancelScope(shield=True):
            if self.is_alive and self.page().stage == STAGE_NONE:
                # Half started: it ends by itself at the end of its pipe, and tidier than by a kill between two forks.
                await self._to_child.aclose()
                with trio.move_on_after(START_GRACE_S):
                    await self.wait()
            self.kill("cancelled", "it was no longer wanted")
            await self.wait()
            await self._wait_below()
            await self._to_child.aclose()
            await self._from_child.aclose()
        self._is_closed = True
        for fd in (self._page_fd, self._log_fd, self._pidfd):
            os.close(fd)
        if self._group is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._group.remove)
        if self._cleanup is not None:
            shutil.rmtree(self._cleanup, ignore_errors=True)

    def _inside(self, path: Any) -> Any:
        """Where the child finds ``path``; the same, but for a rung without mounts."""
        text = str(path)
        for inside, real in self._reachable.items():
            if text == inside or text.startswith(inside + "/"):
                return real + text[len(inside) :]
        return text

    async def _condemn(self, cause: str, text: str) -> Verdict:
        self.kill(cause, text)
        return await self.wait()

    async def _death(self) -> Verdict:
        """The pipe has ended: wait for the process, which should follow at once."""
        with trio.move_on_after(DEATH_GRACE_S):
            return await self.wait()
        return await self._condemn("garbage-on-pipe", "the child closed its pipe and lived on")


def _too_long(role: str, page: Page, limit_s: float) -> str:
    index = page.index
    if page.stage < STAGE_LOADED:
        return f"the package took longer than {limit_s:g} s to import"
    if role == "split":
        return f"split made no further fragment for {limit_s:g} s, after {index:,}"
    if role == "merge":
        return f"merge made no progress for {limit_s:g} s, after {index:,} results"
    return f"fragment {index} ran longer than {limit_s:g} s"


def _pidfds(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
    return found
