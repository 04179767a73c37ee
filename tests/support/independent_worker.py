"""A worker that shares no code with ours: written from the page in company/worker/rest.py, with msgpack and PyNaCl alone.

    python independent_worker.py http://127.0.0.1:8470 TOKEN [--poll] [--tls PEM HOST]

Prints a line of JSON when it has joined. With --poll it has no address and asks for work; with --tls its address shows the Ed25519 key
of PEM (key, then certificate). It has no sandbox: for tests only.
"""

import base64
import hashlib
import io
import itertools
import json
import queue
import ssl
import struct
import sys
import threading
import tomllib
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgpack
import nacl.signing

JOB_IS, PROCESSOR_IS, RUN, OUTCOME = 20, 23, 30, 31
CHIEF, TOKEN = sys.argv[1].rstrip("/"), sys.argv[2]
CALLBACK = hashlib.sha256(TOKEN.encode() + b"callback").hexdigest()
CHIEF_KEY = msgpack.unpackb(base64.urlsafe_b64decode(TOKEN.partition(".")[2] + "==="))[2]
MACHINE = [9, "independent", 1, 1, 1 << 30, "3.11.0", "other", "none", False, None, None, "other 1"]
bearer, processors, jobs, runs = "", {}, {}, queue.Queue()


class Pinned(ssl.SSLContext):
    def wrap_socket(self, sock, **options):
        made = super().wrap_socket(sock, server_hostname="key.company.invalid")
        shown = made.getpeercert(True)  # the chief's key signs no certificate but its own: header, what is signed, Ed25519, signature
        nacl.signing.VerifyKey(CHIEF_KEY).verify(shown[2 + shown[1] % 128 : -74], shown[-64:])
        return made


TLS = Pinned(ssl.PROTOCOL_TLS_CLIENT)
TLS.check_hostname, TLS.verify_mode, TLS.minimum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_3


def frame(header, items=()):
    packed = msgpack.packb(header)
    sizes = b"".join(struct.pack("<I", len(item)) for item in items)
    return struct.pack("<IIQ", len(packed), len(items), sum(map(len, items))) + packed + sizes + b"".join(items)


def frames(data):
    at = 0
    while at < len(data):
        header_len, count, body_len = struct.unpack_from("<IIQ", data, at)
        header = msgpack.unpackb(data[at + 16 : at + 16 + header_len])
        sizes = struct.unpack_from(f"<{count}I", data, at + 16 + header_len)
        ends = list(itertools.accumulate(sizes, initial=at + 16 + header_len + 4 * count))
        assert sum(sizes) == body_len
        at = ends[-1]
        yield header, [data[a:b] for a, b in itertools.pairwise(ends)]


def call(method, path, body=None, **headers):
    headers |= {"Authorization": f"Bearer {bearer}"} if bearer else {}
    request = urllib.request.Request(CHIEF + path, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60, context=TLS) as answer:
            return answer.status, answer.read()
    except urllib.request.HTTPError as error:
        return error.code, error.read()


def check_processor(header, archive):
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
            exec(check_processor(header, items[0])["processor/main.py"], scope := {"__name__": "processor"})
            processors[header[1]] = scope["process"]
        elif header[0] == JOB_IS:
            jobs[header[1]] = (header[2], msgpack.unpackb(items[0], strict_map_key=False))
        elif header[0] == RUN:
            runs.put((header, items))


class Door(BaseHTTPRequestHandler):
    def do_POST(self):
        is_chief = self.headers["Authorization"] == f"Bearer {CALLBACK}"
        on_frames(self.rfile.read(int(self.headers["Content-Length"])) if is_chief else b"")
        self.send_response(200 if is_chief else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args): ...


def compute(header, items):
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
    on_frames(answer if code == 200 else b"")


poll = "--poll" in sys.argv
pem, host = sys.argv[sys.argv.index("--tls") + 1 :][:2] if "--tls" in sys.argv else ("", "127.0.0.1")
server = ThreadingHTTPServer((host, 0), Door)
join = {"token": TOKEN, "callback": CALLBACK, "machine": MACHINE}
join |= {} if poll else {"http": f"http{'s' if pem else ''}://{host}:{server.server_port}"}
if pem:
    (context := ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)).load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with open(pem) as file:  # PKCS #8: the key's seed comes last
        join["key"] = nacl.signing.SigningKey(base64.b64decode(file.read().split("-----")[2])[-32:]).verify_key.encode().hex()
threading.Thread(target=server.serve_forever, daemon=True).start()
said = json.loads(call("POST", "/api/v1/workers/join", json.dumps(join).encode(), **{"Content-Type": "application/json"})[1])
bearer = said.get("token") or sys.exit(f"refused: {said}")
print(json.dumps({**said, "http": server.server_port, "callback": CALLBACK}), flush=True)
while True:
    while poll and runs.empty():
        on_frames(call("POST", "/api/v1/workers/next?wait=10", b"")[1])
    compute(*runs.get())
