"""A worker that shares no code with ours: written from the page in company/worker/rest.py, with msgpack and PyNaCl alone.

    python independent_worker.py http://127.0.0.1:8470 TOKEN [--poll]

Prints a line of JSON when it has joined. With --poll it has no address and asks for work. It has no sandbox: for tests only.
"""

import base64
import hashlib
import io
import itertools
import json
import queue
import struct
import sys
import threading
import tomllib
import urllib.error
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgpack
import nacl.signing

JOB_IS, PROCESSOR_IS, RUN, OUTCOME = 20, 23, 30, 31
CHIEF, TOKEN = sys.argv[1].rstrip("/"), sys.argv[2]
CALLBACK = hashlib.sha256(TOKEN.encode() + b"callback").hexdigest()
CHIEF_KEY = msgpack.unpackb(base64.urlsafe_b64decode(TOKEN.partition(".")[2] + "==="))[2]
bearer = ""
processors, jobs, runs = {}, {}, queue.Queue()


def frame(header, items=()):
    packed = msgpack.packb(header)
    sizes = b"".join(struct.pack("<I", len(item)) for item in items)
    return struct.pack("<IIQ", len(packed), len(items), sum(map(len, items))) + packed + sizes + b"".join(items)


def frames(data):
    at = 0
    while at < len(data):
        header_len, count, body_len = struct.unpack_from("<IIQ", data, at)
        at += 16
        header = msgpack.unpackb(data[at : at + header_len])
        at += header_len
        sizes = struct.unpack_from(f"<{count}I", data, at)
        at += 4 * count
        assert sum(sizes) == body_len
        ends = list(itertools.accumulate(sizes, initial=at))
        at = ends[-1]
        yield header, [data[a:b] for a, b in itertools.pairwise(ends)]


def call(method, path, body=None, **headers):
    headers |= {"Authorization": f"Bearer {bearer}"} if bearer else {}
    request = urllib.request.Request(CHIEF + path, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def check_processor(header, archive):
    """The files of a processor, if the digest and the signature are right."""
    _, processor, package, name, signed_for, signer, signature = header
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        files = {n: opened.read(n) for n in opened.namelist()}
    rows = [[path, len(files[path]), hashlib.sha256(files[path]).digest()] for path in sorted(files)]
    assert hashlib.sha256(msgpack.packb(rows)).digest() == processor, "not the processor that was announced"
    version = tomllib.loads(files.get("package.toml", b"").decode()).get("version", "")
    claim = msgpack.packb([package, processor, name, version, signed_for])
    assert not signed_for or signer == CHIEF_KEY, "only the chief signs for others"
    nacl.signing.VerifyKey(signer).verify(b"parallel/v1/package\0" + bytes(16) + claim, signature)
    return files


def on_frames(data):
    for header, items in frames(data):
        if header[0] == PROCESSOR_IS:
            files = check_processor(header, items[0])
            scope = {"__name__": "processor"}
            exec(compile(files["processor/main.py"], "main.py", "exec"), scope)
            processors[header[1]] = scope["process"]
        elif header[0] == JOB_IS:
            jobs[header[1]] = (header[2], msgpack.unpackb(items[0], strict_map_key=False))
        elif header[0] == RUN:
            runs.put((header, items))


class Door(BaseHTTPRequestHandler):
    """What the chief calls."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_chief = self.headers["Authorization"] == f"Bearer {CALLBACK}"
        if is_chief:
            on_frames(body)
        self.send_response(200 if is_chief else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def compute(header, items):
    """Run one batch and hand it in; the answer may carry the next one."""
    _, token, _slot, job, first, count, _attempt, blobs = header
    for offset, _size, digest in blobs:
        _, answer = call("GET", f"/data-fragment/{first + offset}?job={job}&count=1", **{"Company-Lease": str(token)})
        items[offset] = next(frames(answer))[1][0]
        assert hashlib.blake2b(items[offset], digest_size=32).digest() == digest
    processor, params = jobs[job]
    if processor not in processors:
        on_frames(call("GET", f"/processor/{processor.hex()}")[1])
    process = processors[processor]
    wanted = process.__code__.co_varnames[1 : process.__code__.co_argcount]
    results, status = [], bytearray(count)
    for index, item in enumerate(items):
        try:
            results.append(msgpack.packb(process(msgpack.unpackb(item), **{k: params[k] for k in wanted if k in params})))
        except Exception as error:  # noqa: BLE001 - whatever a module raises is its result
            status[index] = 1
            results.append(msgpack.packb({"type": type(error).__name__, "message": str(error), "traceback": "", "preview": ""}))
    outcome = [OUTCOME, token, job, first, count, True, 1000, 1000, 0, 0, [], b""]
    code, answer = call("POST", "/upload/result-fragment", frame(outcome, [bytes(status), bytes(4 * count), b"", *results]))
    print(json.dumps({"lease": token, "count": count, "status": code}), flush=True)
    on_frames(answer if code == 200 else b"")


poll = "--poll" in sys.argv
server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
threading.Thread(target=server.serve_forever, daemon=True).start()
machine = [9, "independent", 1, 1, 1 << 30, "3.11.0", "other", "none", False, None, None, "other 1"]
join = {"token": TOKEN, "callback": CALLBACK, "key": "00" * 32, "machine": machine}
join |= {} if poll else {"http": f"http://127.0.0.1:{server.server_port}"}
code, answer = call("POST", "/api/v1/workers/join", json.dumps(join).encode(), **{"Content-Type": "application/json"})
said = json.loads(answer)
assert code == 201, said
bearer = said["token"]
print(json.dumps({**said, "http": server.server_port, "callback": CALLBACK}), flush=True)
while True:
    if poll and runs.empty():
        on_frames(call("POST", "/api/v1/workers/next?wait=10", b"")[1])
        continue
    header, items = runs.get()
    compute(header, items)
