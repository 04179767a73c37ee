"""One job as its owner holds it: wait, ask why, read, fetch (I/O through `Transport`).

Holding one costs nothing and loses nothing: the job lives at the chief, and ``client.job(id)`` finds it again from any process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from company.client.transport import path_of
from company.client.waited import Waited
from company.errors import IntegrityError
from p2p.base.record import record

if TYPE_CHECKING:
    from company.client.client import Client

MAX_LOG_LINES = 100_000
MAX_RESULT_BYTES = 1 << 32
FOLLOW_TIMEOUT_S = 3600.0
Progress = Callable[[str, int, int], None]


@record
class FragmentResult:
    """What one fragment has given."""

    index: int
    value: Any


class Job(Waited):
    """A job of a chief. ``view`` is what was last seen of it."""

    def __init__(self, client: Client, view: Mapping[str, Any]) -> None:
        super().__init__(view)
        self._client = client

    @property
    def failures_hint(self) -> str:
        """A command."""
        return f"company job failures {self.id}"

    @property
    def goes_on_hint(self) -> str:
        """A command."""
        return f"it goes on: company job watch {self.id}"

    def __repr__(self) -> str:
        counts = self.view.get("fragments") or {}
        return f"<Job {self.id} {self.view.get('name', '')} {self.state}, {counts.get('done', 0)} fragments done>"

    def status(self, *, wait_s: float = 0.0) -> dict[str, Any]:
        """The job's view of now; with ``wait_s`` the call returns when the job ended or that time is over."""
        query = {"wait": min(60, math.ceil(wait_s))} if wait_s > 0 else None
        self.view = self._client.transport.json("GET", path_of("jobs", self.id), query=query, timeout_s=30.0 + wait_s)
        return self.view

    def _repr_html_(self) -> str:
        from company.client.notebook import page_of

        return page_of(self.view)

    def _ipython_display_(self) -> None:
        """In a notebook: what it has done so far, kept true until it ends."""
        from company.client.notebook import follow

        follow(self)

    def explain(self, fragment: int | None = None) -> list[dict[str, Any]]:
        """Why it waits, runs or failed: reasons with code, text, facts, actions."""
        return self._client.explain(self.id if fragment is None else f"{self.id}/{fragment}")

    def failures(self, *, limit: int = 1000, offset: int = 0) -> dict[str, Any]:
        """The fragments that failed at least once: items, total, returned, truncated."""
        found = self._client.transport.json("GET", path_of("jobs", self.id, "failures"), query={"limit": limit, "offset": offset})
        return dict(found)

    def logs(self, *, fragment: int | None = None, follow: bool = False) -> Iterator[dict[str, Any]]:
        """What its modules printed and its story, line by line; ``follow`` goes on until the job has ended."""
        query = {"fragment": fragment, "follow": "1" if follow else None, "limit": None if follow else MAX_LOG_LINES}
        return self._client.transport.lines(path_of("jobs", self.id, "logs"), query=query, timeout_s=FOLLOW_TIMEOUT_S)

    def as_completed(self, *, poll_s: float = 1.0) -> Iterator[FragmentResult]:
        """Results while the job runs, each once, as they come; ends with the job."""
        seen: set[int] = set()  # beyond ``first_missing``
        first_missing = 0
        while True:
            was_over = self.is_over
            for result in self.results(start=first_missing):
                if result.index >= first_missing and result.index not in seen:
                    seen.add(result.index)
                    yield result
            while first_missing in seen:
                seen.remove(first_missing)
                first_missing += 1
            if was_over:
                return
            self.status(wait_s=poll_s)

    def results(self, *, start: int = 0) -> Iterator[FragmentResult]:
        """The results that are there now, in the order of their fragments, from ``start`` on."""
        from p2p.base.codec import decode_value_untrusted
        from p2p.base.frames import FrameParser

        parser = FrameParser(max_body=MAX_RESULT_BYTES)
        query = {"raw": 1, "start": start}
        with self._client.transport.stream(path_of("jobs", self.id, "results"), query=query, timeout_s=FOLLOW_TIMEOUT_S) as response:
            while data := response.read1(1 << 20):
                for frame in parser.feed_untrusted(data):
                    if type(frame.header[0]) is not int or len(frame.sizes) != 1:
                        raise IntegrityError("bad-result", "a partial result cannot be read")
                    yield FragmentResult(frame.header[0], decode_value_untrusted(frame.body))
        if not parser.is_idle:
            raise IntegrityError("bad-result", "the partial results end in the middle of one")

    def result_lines(self, *, start: int = 0) -> Iterator[dict[str, Any]]:
        """The results that are there now as JSON for people: ``{"fragment", "value"}``, or ``omitted`` with why."""
        return self._client.transport.lines(path_of("jobs", self.id, "results"), query={"start": start}, timeout_s=FOLLOW_TIMEOUT_S)

    def result(self, fragment: int) -> Any:
        """The value that one fragment gave."""
        from p2p.base.codec import decode_value_untrusted

        answer = self._client.transport.request("GET", path_of("jobs", self.id, "fragments", fragment, "result"))
        return decode_value_untrusted(answer.body)

    def fragment_input(self, fragment: int) -> bytes:
        """The codec bytes that ``process`` got; kept for fragments that failed."""
        return self._client.transport.request("GET", path_of("jobs", self.id, "fragments", fragment, "input")).body

    def heatmap(self, cells: int = 4096) -> dict[str, Any]:
        """States of all fragments as runs: ``{"cells": [[state, run length], …], "per_cell": k, "total": n}``."""
        return dict(self._client.transport.json("GET", path_of("jobs", self.id, "heatmap"), query={"cells": cells}))

    def artifacts(self) -> list[dict[str, Any]]:
        """Files that fragments left with ``task.artifact``."""
        found = self._client.transport.json("GET", path_of("jobs", self.id, "artifacts"))
        return list(found["items"] if isinstance(found, dict) else found)

    def artifact_path(self, fragment: int, name: str) -> str:
        """Where one artifact is served."""
        return path_of("jobs", self.id, "artifacts", fragment) + "/" + quote(name, safe="")

    def download(
        self, target: Path | str = ".", *, unpack: bool = True, verify: bool = True, progress: Progress | None = None
    ) -> list[Path]:
        """Fetch the final result into the directory ``target`` and return the files.

        Goes on where an earlier call stopped. A stored zip is unpacked unless ``unpack`` is false. Raises `IntegrityError` when the
        bytes are not the promised ones.
        """
        from company.client.download import download, unpack_untrusted

        folder = Path(target)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{self.id}.part"
        got = download(self._client.transport, "/final-result", {"job": self.id}, part, verify=verify, progress=progress)
        recorded = self.view.get("result_digest")
        if verify and recorded and recorded != got.digest:
            part.unlink()
            raise IntegrityError("digest-mismatch", f"received {got.digest}, the job's record says {recorded}", hint="download again")
        name = got.name or str(self.view.get("result_name") or f"{self.id}.result")
        if unpack and ("zip" in got.media_type or name.endswith(".zip")) and _is_bundle(part, self.view):
            written = unpack_untrusted(part, folder)
            part.unlink()
            return written
        final = folder / Path(name).name
        part.replace(final)
        return [final]

    def retry(self, *, fragments: list[int] | None = None, merge: bool = False, max_fails: str | None = None) -> Job:
        """Try the failed fragments again (or those named, or only the merge), with another ``max_fails`` if given."""
        what: dict[str, Any] = {"merge": True} if merge else {"failed": True} if fragments is None else {"fragments": fragments}
        return self._change("retry", what | ({"max_fails": max_fails} if max_fails is not None else {}))

    def pause(self) -> Job:
        """Give out no more of its fragments."""
        return self._change("pause", {})

    def resume(self) -> Job:
        """Go on after a pause."""
        return self._change("resume", {})

    def cancel(self) -> Job:
        """Kill what runs and end the job."""
        return self._change("cancel", {})

    def edit(self, **changes: Any) -> Job:
        """Change priority, max_fails, time_limit_s or memory_bytes."""
        found = self._client.transport.json("PATCH", path_of("jobs", self.id), changes)
        self.view = dict(found)
        return self

    def remove(self) -> None:
        """Forget the job and its files."""
        self._client.transport.request("DELETE", path_of("jobs", self.id))

    def reproduce(self, fragment: int, *, sandbox: bool = True) -> Any:
        """Run ``process`` for one fragment here, with the same package and input; returns its value or raises what it raised."""
        import tempfile

        from company.client.reproduce import fetch, run_in_process, run_in_sandbox

        with tempfile.TemporaryDirectory(prefix="company-reproduce-") as folder:
            case = fetch(self._client, self, fragment, Path(folder))
            return run_in_sandbox(case) if sandbox else run_in_process(case)

    def _change(self, action: str, args: Mapping[str, Any]) -> Job:
        found = self._client.transport.json("POST", path_of("jobs", self.id, action), dict(args))
        if isinstance(found, dict) and "state" in found:
            self.view = found
        return self


def _is_bundle(path: Path, view: Mapping[str, Any]) -> bool:
    """Whether a zip is the chief's bundle of several files, not a single output file that happens to be a zip."""
    import zipfile

    name = str(view.get("result_name") or "")
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as bundle:
        names = bundle.namelist()
    return "result.json" in names or not name or name == "result.zip"
