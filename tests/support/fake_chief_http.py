"""A stateful stand-in for a chief's REST side on a real socket, for the tests of client and command line (I/O).

It keeps what it is sent and answers in the shapes of `company.views`. A test scripts a job as the list of its successive views, and may
have the connection cut after a number of bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from company.chief.tree import TreeFile, manifest_of

TOKEN = "cmpowner1.test.secret"


@dataclass
class FakeChief:
    """What the server knows and has seen."""

    jobs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # id to the views still to come; the last one stays
    packages: dict[str, dict[str, Any]] = field(default_factory=dict)
    archives: dict[str, bytes] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)  # job to final result
    result_name: str = "result.txt"
    inputs: dict[str, bytes] = field(default_factory=dict)  # "job/fragment" to codec bytes
    raw_results: dict[str, bytes] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)  # "METHOD path" to (status, body)
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)  # for each coming download or piece: bytes before the connection is cut
    is_stopped: bool = False
    url: str = ""

    def requests(self, method: str, path: str) -> list[tuple[dict[str, str], bytes]]:
        """Headers and bodies of the requests to a path seen so far."""
        return [(headers, body) for m, p, headers, body in self.seen if m == method and urlsplit(p).path == path]

    def write_home(self, home: Path, pid: int | None = None) -> Path:
        """Leave the address file that a running chief leaves in its home."""
        run = home / "chief" / "run"
        run.mkdir(parents=True, exist_ok=True)
        address = {"http": self.url, "rpc": "127.0.0.1:8468", "dht": None, "token": TOKEN, "started": 1.0}
        (run / "address.json").write_text(json.dumps(address | ({"pid": pid} if pid else {})))
        return home


def job_view(job_id: str = "j-7f3k", state: str = "running", **more: Any) -> dict[str, Any]:
    """A job's view with the fields that the real one always has."""
    base = {
        "id": job_id, "name": "wordcount", "state": state, "paused": False, "reason": None,
        "package": "ab" * 32, "package_name": "wordcount", "dataset": "cd" * 32, "dataset_name": "corpus",
        "owner": "me", "priority": 0, "params": {}, "where": "own", "created": 1000.0,
        "fragments": {"total": 10, "at_least": 10, "done": 5, "failed": 0, "leased": 2, "waiting": 3}, "eta": None, "fraction": None,
        "rate_per_s": None, "max_fails": "0", "time_limit_s": 600.0, "memory_bytes": 1 << 29, "status": [], "cpu_s": 1.0,
    }  # fmt: skip
    return base | more


def done_view(job_id: str = "j-7f3k", failed: int = 0, **more: Any) -> dict[str, Any]:
    """A finished job."""
    counts = {"total": 10, "at_least": 10, "done": 10 - failed, "failed": failed, "leased": 0, "waiting": 0}
    return job_view(job_id, "done", fragments=counts, started=1000.0, finished=1042.0, **more)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    chief: FakeChief


class running:
    """``with running(FakeChief()) as chief`` serves it on a free port of loopback."""

    def __init__(self, chief: FakeChief) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.chief = chief
        chief.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FakeChief:
        self._thread.start()
        return self._server.chief

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output quiet."""

    def _handle(self) -> None:
        chief = self.server.chief
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        route = f"{self.command} {parts.path}"
        if self.command == "PATCH" and parts.path.startswith("/api/v1/uploads/"):
            self._append(parts.path)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chief.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._problem(401, "token-missing", "This needs a token.", hint="company token create")
        elif route in chief.fixed:
            status, value = chief.fixed[route]
            self._reply(status, value)
        elif parts.path == "/upload/module-package" and self.command == "POST":
            self._take_package(body, query)
        elif parts.path == "/upload/data" and self.command == "POST":
            self._take_data(body, query)
        elif parts.path == "/final-result":
            self._final_result(query.get("job", ""))
        elif parts.path.startswith("/api/v1/"):
            self._api([unquote(p) for p in parts.path.removeprefix("/api/v1/").split("/")], query, body)
        else:
            self._problem(404, "not-found", f"nothing at {parts.path}")

    do_GET = do_POST = do_PATCH = do_DELETE = do_HEAD = _handle

    # -- answers
    def _reply(self, status: int, value: Any = None, headers: dict[str, str] | None = None) -> None:
        body = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _problem(self, status: int, code: str, detail: str, hint: str = "", **facts: Any) -> None:
        body = {
            "type": f"urn:company:problem:{code}",
            "title": code,
            "status": status,
            "detail": detail,
            "code": code,
            "hint": hint,
            **facts,
        }
        self._reply(status, body, {"Content-Type": "application/problem+json"})

    def _list(self, items: list[Any]) -> None:
        self._reply(200, {"items": items, "total": len(items), "returned": len(items), "truncated": False})

    def _cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()

    # -- uploads
    def _take_package(self, body: bytes, query: dict[str, str]) -> None:
        digest = hashlib.sha256(body).hexdigest()
        is_new = digest not in self.server.chief.packages
        view = {
            "digest": digest,
            "name": query.get("name", ""),
            "size": len(body),
            "functions": ["split", "process", "merge"],
            "warnings": [],
        }
        self.server.chief.packages[digest] = view
        self.server.chief.archives[digest] = body
        self._reply(201 if is_new else 200, view)

    def _take_data(self, body: bytes, query: dict[str, str]) -> None:
        if "Tus-Resumable" not in self.headers:
            self._reply(201, self._store(body, query.get("name", ""), query.get("kind", "file")))
            return
        upload = f"u{len(self.server.chief.uploads)}"
        self.server.chief.uploads[upload] = {
            "length": int(self.headers["Upload-Length"]),
            "data": b"",
            "meta": self.headers["Upload-Metadata"],
        }
        self._reply(201, headers={"Location": f"http://elsewhere.invalid/api/v1/uploads/{upload}"})

    def _store(self, body: bytes, name: str, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(body).hexdigest() if kind == "file" else tree_digest(body)
        view = {"digest": digest, "name": name, "kind": kind, "size": len(body), "files": 1, "jobs": 0, "uploaded": 1.0}
        self.server.chief.datasets[digest] = view
        self.server.chief.contents[digest] = body
        return view

    def _append(self, path: str) -> None:
        chief = self.server.chief
        upload = chief.uploads[path.rpartition("/")[2]]
        length = int(self.headers["Content-Length"])
        chief.seen.append(("PATCH", path, {k.lower(): v for k, v in self.headers.items()}, b""))
        if int(self.headers["Upload-Offset"]) != len(upload["data"]):
            self.rfile.read(length)
            self._problem(409, "offset-mismatch", "go on from there")
            return
        if chief.cut_after:
            upload["data"] += self.rfile.read(min(chief.cut_after.pop(0), length))
            self._cut()
            return
        upload["data"] += self.rfile.read(length)
        self._reply(204, headers={"Upload-Offset": str(len(upload["data"]))})

    # -- downloads
    def _final_result(self, ref: str) -> None:
        chief = self.server.chief
        job_id = self._resolve(ref)
        if job_id is None or job_id not in chief.results:
            self._problem(409, "result-not-ready", "not yet", done=5) if job_id else self._problem(404, "job-unknown", f"No job {ref!r}.")
            return
        self._file(chief.results[job_id], chief.result_name)

    def _file(self, data: bytes, name: str) -> None:
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        first, status = 0, 200
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == etag:
            first, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("ETag", etag)
        self.send_header("Content-Disposition", f'attachment; filename="{name}"')
        self.send_header("Content-Type", "application/zip" if name.endswith(".zip") else "application/octet-stream")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        cuts = self.server.chief.cut_after
        if cuts:
            self.wfile.write(data[first : first + cuts.pop(0)])
            self._cut()
        else:
            self.wfile.write(data[first:])

    # -- the rest of /api/v1
    def _api(self, parts: list[str], query: dict[str, str], body: bytes) -> None:
        chief = self.server.chief
        head = parts[0]
        if head == "jobs":
            self._job(parts[1:], query, body)
        elif head in ("datasets", "packages") and len(parts) == 1:
            self._list(list((chief.datasets if head == "datasets" else chief.packages).values()))
        elif head == "packages" and parts[2:] == ["archive"]:
            self._file(chief.archives[parts[1]], "package.zip")
        elif head in ("datasets", "packages"):
            store = chief.datasets if head == "datasets" else chief.packages
            found = [d for d in store if d == parts[1] or d.startswith(parts[1]) or store[d]["name"] == parts[1]]
            if not found:
                self._problem(404, f"{head[:-1]}-unknown", f"No {head[:-1]} {parts[1]!r}.")
            elif self.command == "DELETE":
                del store[found[0]]
                self._reply(204)
            else:
                self._reply(200, store[found[0]])
        elif head == "uploads":
            self._upload(parts[1])
        elif head == "admin" and parts[1] == "stop":
            chief.is_stopped = True
            self._reply(202, {"status": "stopping"})
        else:
            self._problem(404, "not-found", f"nothing at {parts}")

    def _upload(self, upload_id: str) -> None:
        upload = self.server.chief.uploads.get(upload_id)
        if upload is None:
            self._problem(404, "upload-unknown", "no such upload")
        elif self.command == "HEAD":
            self._reply(200, headers={"Upload-Offset": str(len(upload["data"]))})
        else:
            whole = len(upload["data"]) == upload["length"]
            kind = "tree" if "kind dHJlZQ==" in upload["meta"] else "file"
            self._reply(200, {"id": upload_id, "result": self._store(upload["data"], "big", kind) if whole else None})

    def _resolve(self, ref: str) -> str | None:
        ids = list(self.server.chief.jobs)
        if ref == "last":
            return ids[-1] if ids else None
        return next((i for i in ids if i.startswith(ref)), None)

    def _job(self, parts: list[str], query: dict[str, str], body: bytes) -> None:
        chief = self.server.chief
        if not parts and self.command == "POST":
            wanted = json.loads(body)
            job_id = f"j-{len(chief.jobs)}new"
            chief.jobs.setdefault(
                job_id, [job_view(job_id, "queued", params=wanted["params"], package=wanted["package"]), done_view(job_id)]
            )
            self._reply(201, chief.jobs[job_id][0])
            return
        if not parts:
            items = [views[0] for views in reversed(chief.jobs.values()) if query.get("state") in (None, views[0]["state"])]
            limit = int(query.get("limit", 50))
            shown = items[:limit]
            self._reply(200, {"items": shown, "total": len(items), "returned": len(shown), "truncated": len(shown) < len(items)})
            return
        job_id = self._resolve(parts[0])
        if job_id is None:
            self._problem(404, "job-unknown", f"No job {parts[0]!r}.", hint="company job list")
            return
        views = chief.jobs[job_id]
        if len(parts) == 1 and self.command == "GET":
            self._reply(200, views.pop(0) if len(views) > 1 else views[0])
        elif len(parts) == 1 and self.command == "PATCH":
            views[0] |= json.loads(body)
            self._reply(200, views[0])
        elif len(parts) == 1:
            del chief.jobs[job_id]
            self._reply(204)
        elif parts[1] == "results":
            self._reply(200, chief.raw_results[job_id] if query.get("raw") else b'{"fragment": 0, "value": 7}\n')
        elif parts[1] == "fragments" and parts[3:] == ["input"]:
            raw = chief.inputs.get(f"{job_id}/{parts[2]}")
            self._reply(200, raw) if raw is not None else self._problem(404, "input-not-kept", "not kept")
        else:  # an action
            views[0] |= {"state": "cancelled"} if parts[1] == "cancel" else {"paused": parts[1] == "pause"}
            self._reply(202, views[0])


def tree_digest(data: bytes) -> str:
    """The digest of a tree as the real chief makes it."""
    files = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if member.isreg() and content is not None:
                files.append(TreeFile(member.name, member.size, hashlib.sha256(content.read()).digest()))
    return hashlib.sha256(manifest_of(files)).hexdigest()
