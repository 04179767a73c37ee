"""A cable between a worker and its chief that can be pulled out, slowed down and cut in the middle of a message (I/O)."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Self

PIECE_BYTES = 64 << 10
POLL_S = 0.05


class Cable:
    """Carries TCP connections to ``target`` (host:port). Unplugged, it holds them open and lets no byte through, as a dead switch does."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host.strip("[]"), int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(POLL_S)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.delay_s = 0.0
        self._plugged = threading.Event()
        self._plugged.set()
        self._cut_after = -1  # bytes from now until every connection is cut; -1: never
        self._lock = threading.Lock()
        self._is_open = True
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def unplug(self) -> None:
        self._plugged.clear()

    def plug(self) -> None:
        """Back in. Connections of before are dead for the far side's timers, or live on."""
        self._plugged.set()

    def cut_after(self, size_bytes: int) -> None:
        """Let so many bytes through, then end every connection, in the middle of whatever it is."""
        with self._lock:
            self._cut_after = size_bytes

    def close(self) -> None:
        self._is_open = False
        self._plugged.set()
        self._listener.close()
        self._drop_all()
        for thread in self._threads:
            thread.join(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ---- inside -------------------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        while self._is_open:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, timeout=2.0)
            except OSError:
                near.close()
                continue
            near.settimeout(POLL_S)
            far.settimeout(POLL_S)
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._carry, args=(source, sink), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while self._is_open:
                self._plugged.wait()
                try:
                    data = source.recv(PIECE_BYTES)
                except TimeoutError:
                    continue
                if not data:
                    break
                if self.delay_s:
                    time.sleep(self.delay_s)
                self._plugged.wait()
                allowed = self._allowed(len(data))
                self._send(sink, data[:allowed])
                if allowed < len(data):
                    self._drop_all()
                    break
        except OSError:
            pass  # one end is gone: so is the other, below
        self._end(source)
        self._end(sink)
        source.close()  # each direction closes what it alone reads

    def _send(self, sink: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view and self._is_open:
            try:
                view = view[sink.send(view) :]
            except TimeoutError:
                continue

    def _allowed(self, size_bytes: int) -> int:
        with self._lock:
            if self._cut_after < 0:
                return size_bytes
            allowed = min(size_bytes, self._cut_after)
            self._cut_after = -1 if allowed < size_bytes else self._cut_after - allowed
            return allowed

    def _drop_all(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                self._end(end)

    @staticmethod
    def _end(end: socket.socket) -> None:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # ended already
