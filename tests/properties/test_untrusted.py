"""Every function that meets a stranger's bytes succeeds or raises its one error; nothing else, whatever comes.

Inputs are random bytes and valid samples with bytes flipped, cut out, doubled and swapped. A test below fails when an
``_untrusted`` function is added without a case here.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import random
import ssl
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from company import messages as m
from company.chief.api.bodies import convert_untrusted, fields_untrusted, json_untrusted
from company.chief.api.filenames import package_files_untrusted
from company.chief.api.problem import BadRequest, NotAcceptable
from company.chief.api.ranges import parse_range_untrusted
from company.chief.api.tus import checksum_untrusted, metadata_untrusted
from company.chief.api.uploads import kind_untrusted
from company.chief.facade import Invalid
from company.chief.logs import parse_log_untrusted, tails_untrusted
from company.chief.network.contacts import contact_key, contact_of_untrusted, contact_payload
from company.chief.network.questions import open_answer_untrusted, open_question_untrusted
from company.chief.outcome_cut import cut_outcome_untrusted
from company.chief.rest_join import held_untrusted, join_untrusted
from company.chief.rest_workers import _digest_untrusted
from company.chief.rest_workers import messages_untrusted as messages_of_a_worker_untrusted
from company.chief.segments import header_of_untrusted
from company.chief.sessions import machine_untrusted
from company.chief.tree import extract_tar_untrusted
from company.client.download import unpack_untrusted
from company.cluster import wire as cluster
from company.errors import CompanyError
from company.http_pass import check_pass_untrusted, make_pass
from company.package import processor_archive, processor_files_untrusted, read_archive_untrusted, tidy_files_untrusted
from company.package.functions import SourceError, parse_source_untrusted
from company.package.manifest import ManifestError, parse_manifest_untrusted
from company.sandbox import wire
from company.sandbox.checks import check_frame_untrusted
from company.ticket import TICKET_TYPE, Ticket, open_ticket_untrusted, sign_ticket
from company.tokens import JoinToken, encode_token, parse_token_untrusted
from company.views import JobSubmit
from company.wheel_list import ENVELOPE_TYPE, NO_NETWORK, open_wheels_untrusted
from company.worker.batch import Batch, JobSpec
from company.worker.blob_sink import BlobSink
from company.worker.frames import Expected, outcome_untrusted, words_untrusted
from company.worker.rest import messages_untrusted
from company.worker.results import Part
from p2p.base.clock import UnixTime
from p2p.base.codec import decode_value_untrusted, encode_value
from p2p.base.envelope import open_untrusted, seal
from p2p.base.errors import MalformedMessage, UsageError
from p2p.base.frames import Frame, FrameParser, encode_frame_of, parse_frame_untrusted
from p2p.base.ids import digest
from p2p.base.keys import Identity, company_id_text
from p2p.base.schema import parse_any_untrusted
from p2p.dht.advertisement import Advertisement, advertisement_of_untrusted, encode_advertisement, listing_of_untrusted, shard_key
from p2p.dht.packets import Sealer
from p2p.dht.records import Record, open_equivocation_untrusted, open_record_untrusted, sign_record
from p2p.dht.routing import saved_contacts_untrusted
from p2p.dht.tracker import KEY as TRACKER_KEY
from p2p.dht.tracker import (
    TrackerBook,
    make_announcement,
    open_announcement_untrusted,
    peers_json,
    peers_of_json_untrusted,
)
from p2p.net.hello import Refused, refusal_facts_untrusted
from p2p.net.tls import key_of_certificate_untrusted, peer_certificate

ROOT = Path(__file__).resolve().parents[2]
ME = Identity(b"m" * 32)
NET = b"n" * 16


def frame(header: list[object], *items: bytes) -> bytes:
    head, body = encode_frame_of(header, items)
    return head + body


OUTCOME = m.Outcome(5, "j-1", 0, 2, True, 1, 1, 1, 0, (), b"")
OUTCOME_ITEMS = (b"\0\1", struct.pack("<2I", 3, 4), b"", encode_value(1), encode_value({"type": "E", "message": "m"}))
CHILD_OUTCOME = [wire.OUTCOME, 5, 0, 2, True, 1, 1, 1, 0, []]
MACHINE = m.Machine("lab", 2, 2, 1, "3.11", "Linux", "bubblewrap", False, None, None, "0")
VALUES = {"a": (1, 2**80, {3}), "n": np.arange(4.0), "d": Decimal("1.5"), "b": b"x", "f": frozenset([1]), 7: [None, True, 1j]}


SPEC = cluster.encode_spec(
    JobSpec("j", b"", {"processor/main.py": b"x"}, 1.0, 1, {"entry": "main.py"}), allow_none=False, requirements=("a",)
)
BATCH = cluster.encode_batch(Batch(1, 0, "j", 0, 1, 1, np.array([3], dtype="<u4"), b"abc"))
PARTS = cluster.encode_parts([Part(5, OUTCOME, np.array([3], dtype="<u4"), b"abc")])


def batch_of_a_cluster(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        return cluster.decode_batch_untrusted(data, Path(folder))


def tar_bytes() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("dir/a.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


def zip_bytes() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("split.py", "def split(data): yield 1")
        archive.writestr("processor/main.py", "def process(f): return f")
    return out.getvalue()


def as_frame(data: bytes, use: Callable[[Frame], object]) -> object:
    return use(parse_frame_untrusted(data))


def one_message(data: bytes) -> object:
    parsed = parse_frame_untrusted(data)
    return parse_any_untrusted(m.MESSAGES, parsed.header)


def outcome(data: bytes) -> object:
    parsed = parse_frame_untrusted(data)
    message = m.Outcome.parse_untrusted(parsed.header)
    return cut_outcome_untrusted(message, parsed).details(message.first)


def extract_tar(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        return extract_tar_untrusted(io.BytesIO(data), Path(folder), max_bytes=1 << 20, max_files=100)


def unpack(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "a.zip"
        archive.write_bytes(data)
        return unpack_untrusted(archive, Path(folder) / "out")


def in_pieces(data: bytes) -> object:
    parser = FrameParser(max_body=1 << 16)
    return [parser.feed_untrusted(data[at : at + 7]) for at in range(0, len(data), 7)]


def http_pass(data: bytes) -> None:
    check_pass_untrusted(text(data), chief_key=ME.public, worker_key=b"w" * 32, now=UnixTime(1000))


def text(data: bytes) -> str:
    return data.decode("latin-1")


@dataclass(frozen=True)
class Case:
    covers: str  # module:function
    call: Callable[[bytes], object]
    samples: tuple[bytes, ...]
    errors: tuple[type[BaseException], ...] = (MalformedMessage,)


BODY, SIGNATURE = seal(ME, "test", NET, [1, b"x", "y"])
ZIP, TAR = zip_bytes(), tar_bytes()
PROCESSOR = {"processor/main.py": b"def process(f): return f", "package.toml": b'name = "p"'}
HTTP_PASS = make_pass(ME, b"w" * 32, now=UnixTime(1000))
TOKEN = encode_token(JoinToken(addresses=("127.0.0.1:1",), chief_key=ME.public, role="worker", expires=None, id="abc", secret=b"s" * 16))
RECORD = ["j-1", 0, 2, 0, 5, b"i" * 16, b"d" * 16, [[0, 3, b"b" * 32]], 77]
WHEELS = seal(ME, ENVELOPE_TYPE, NO_NETWORK, [["a>=1"], [["a-1-py3-none-any.whl", 3, b"w" * 32]]])
JOIN = json.dumps(
    {"token": "t", "name": "n", "slots": 1, "http": "http://127.0.0.1:1", "callback": "0" * 64, "machine": MACHINE.as_array()}
)
HTTP: tuple[type[BaseException], ...] = (BadRequest, Invalid, NotAcceptable)


TICKET = Ticket(
    ME.public, b"w" * 32, b"c" * 32, b"b" * 32, (("127.0.0.1", 1),), ((b"r" * 32, "h", 2),), 2, 60, b"p" * 32, 64, 16, 5, 60, 1, 1000, 1060
)  # fmt: skip
TICKET_SIGNED = sign_ticket(ME, NET, TICKET)


def signed_ticket(data: bytes) -> object:
    """A lender that signs nonsense: what lies behind the signature."""
    try:
        body, signature = seal(ME, TICKET_TYPE, NET, msgpack.unpackb(data))
    except (TypeError, ValueError, UsageError, msgpack.UnpackException):
        return None  # not even a chief can sign this
    return open_ticket_untrusted(ME.public, NET, body, signature)


def wheels(data: bytes) -> object:
    return open_wheels_untrusted(ME.public, ["a>=1"], data[:-64], data[-64:])


def signed_wheels(data: bytes) -> object:
    """A chief that signs nonsense: what lies behind the signature."""
    try:
        rows = decode_value_untrusted(data)
        body, signature = seal(ME, ENVELOPE_TYPE, NO_NETWORK, [["a>=1"], rows])
    except (TypeError, ValueError, UsageError):
        return None  # not even a chief can sign this
    return open_wheels_untrusted(ME.public, ["a>=1"], body, signature)


def join(data: bytes) -> object:
    body = json_untrusted(data)
    return join_untrusted(body, "127.0.0.1") if isinstance(body, dict) else None


def blob(data: bytes) -> object:
    with BlobSink(Path(os.devnull), 3) as sink:
        for at in range(0, len(data), 5):
            sink.feed_untrusted(data[at : at + 5])
        return sink.digest()


SPARE = "spare/v1/x86_64/py3.11/none"


def listing(payload: bytes) -> object:
    """A company that signs nonsense under its own key."""
    return listing_of_untrusted(Record(shard_key(SPARE, 0, 0), ME.public, "spare", 1, UnixTime(9), payload, b""), SPARE)


def dht_record(payload: bytes, kind: str = "spare") -> bytes:
    return sign_record(ME, NET, key=b"k" * 20, kind=kind, sequence=1, expires=UnixTime(9), payload=payload).raw


def announced(payload: bytes) -> object:
    """A company that signs nonsense for a tracker."""
    try:
        record = sign_record(ME, NET, key=TRACKER_KEY, kind="tracker", sequence=1, expires=UnixTime(9), payload=payload)
    except UsageError:
        return None
    return open_announcement_untrusted(msgpack.packb([record.raw, []]), NET)


ANNOUNCEMENT = make_announcement(ME, NET, dht=(("127.0.0.1", 1),), rpc=(("::1", 2),), sequence=1, expires=UnixTime(1800))
TRACKER = TrackerBook(NET, random.Random(1))
TRACKER.announce(ANNOUNCEMENT, "127.0.0.1", UnixTime(1))
TRACKED = peers_json(TRACKER, UnixTime(1))
RECORDS = dht_record(b"a"), dht_record(b"b")


def dht_request(body: bytes) -> object:
    """A node that signs nonsense."""
    return SEALER.open_request_untrusted(SEALER._seal(0, b"i" * 20, b"t" * 8, body))


def dht_reply(body: bytes) -> object:
    """A node that answers nonsense to a read; to the other methods too."""
    data = SEALER._seal(1, b"i" * 20, b"t" * 8, body)
    for method in (1, 2, 4):
        with contextlib.suppress(MalformedMessage):
            SEALER.open_reply_untrusted(data, method)
    return SEALER.open_reply_untrusted(data, 3)


SEALER = Sealer(ME, NET)
DHT_REQUEST = SEALER.request(
    b"i" * 20, b"t" * 8, unix=5, to=b"n" * 20, flags=0, work=b"", method=3, arguments=[b"k" * 20, b"t" * 20, b"a" * 8, 2], size=0
)
DHT_REPLY = SEALER.reply(b"i" * 20, b"t" * 8, unix=5, part=0, parts=1, result=[b"c" * 52, b"", [RECORDS[0]], 1])
ADVERTISEMENT = encode_advertisement(Advertisement(capability=SPARE, endpoints=(("192.0.2.1", 1),), slots=1, pythons=("3.11",)))


def signed_question(data: bytes) -> object:
    """A company that asks nonsense."""
    try:
        fields = msgpack.unpackb(data)
        body, signature = seal(ME, "solicit-question", NET, fields)
    except Exception:  # noqa: BLE001 - not even it can sign this
        return None
    return open_question_untrusted(body, signature, NET, asker=ME.public, own=ME.public, now=UnixTime(5))


def signed_answer(data: bytes) -> object:
    """A company that answers nonsense."""
    try:
        body, signature = seal(ME, "solicit-answer", NET, msgpack.unpackb(data))
    except Exception:  # noqa: BLE001 - as above
        return None
    return open_answer_untrusted(body, signature, NET, question_body=b"q", asked=ME.public, round_trip_s=0.0)


def contact(payload: bytes) -> object:
    """A company that says nonsense of itself."""
    key = contact_key(company_id_text(ME.public))
    return contact_of_untrusted(Record(key, ME.public, "contact", 1, UnixTime(9), payload, b""))


QUESTION = msgpack.packb([1, ME.public, ME.public, b"n" * 16, SPARE, 1, 0, 0, 5, 35])
ANSWERED = msgpack.packb([1, digest(b"q"), ME.public, 1, 2, 3, 4, 5])
CONTACT = contact_payload("Lab", [("192.0.2.1", 1)], [], relays_for_others=True)

CASES = (
    Case("company/chief/network/questions.py:open_question_untrusted", signed_question, (QUESTION,)),
    Case("company/chief/network/questions.py:open_answer_untrusted", signed_answer, (ANSWERED,)),
    Case("company/chief/network/contacts.py:contact_of_untrusted", contact, (CONTACT,)),
    Case("p2p/dht/records.py:open_record_untrusted", lambda d: open_record_untrusted(d, NET), (RECORDS[0],)),
    Case(
        "p2p/dht/records.py:open_equivocation_untrusted",
        lambda d: open_equivocation_untrusted(d[: len(d) // 2], d[len(d) // 2 :], NET),
        (RECORDS[0] + RECORDS[1],),
    ),
    Case("p2p/dht/tracker.py:open_announcement_untrusted", lambda d: open_announcement_untrusted(d, NET), (ANNOUNCEMENT,)),
    Case("p2p/dht/tracker.py:open_announcement_untrusted", announced, (msgpack.packb([1, [["127.0.0.1", 5]], []]),)),
    Case("p2p/dht/tracker.py:peers_of_json_untrusted", lambda d: peers_of_json_untrusted(d, NET, UnixTime(0)), (TRACKED,)),
    Case("p2p/dht/advertisement.py:advertisement_of_untrusted", advertisement_of_untrusted, (ADVERTISEMENT,)),
    Case("p2p/dht/packets.py:_open_untrusted", SEALER.open_request_untrusted, (DHT_REQUEST,)),
    Case("p2p/dht/packets.py:open_request_untrusted", dht_request, (DHT_REQUEST[125:],)),
    Case("p2p/dht/packets.py:open_reply_untrusted", dht_reply, (DHT_REPLY[125:],)),
    Case("p2p/dht/routing.py:saved_contacts_untrusted", saved_contacts_untrusted, (msgpack.packb([1, [[b"i" * 20, b"\x7f\0\0\1\0\7"]]]),)),
    Case("p2p/dht/advertisement.py:listing_of_untrusted", listing, (ADVERTISEMENT,)),
    Case(
        "company/ticket.py:open_ticket_untrusted",
        lambda d: open_ticket_untrusted(ME.public, NET, d[:-64], d[-64:]),
        (TICKET_SIGNED[0] + TICKET_SIGNED[1],),
    ),
    Case("company/ticket.py:open_ticket_untrusted", signed_ticket, (msgpack.packb(TICKET.as_array()),)),
    Case("company/wheel_list.py:open_wheels_untrusted", wheels, (WHEELS[0] + WHEELS[1],)),
    Case("company/wheel_list.py:_wheel_untrusted", signed_wheels, (encode_value([["a-1-py3-none-any.whl", 3, b"w" * 32]]),)),
    Case("company/cluster/wire.py:decode_spec_untrusted", cluster.decode_spec_untrusted, (SPEC,)),
    Case("company/cluster/wire.py:decode_batch_untrusted", batch_of_a_cluster, (BATCH,)),
    Case("company/cluster/wire.py:decode_parts_untrusted", cluster.decode_parts_untrusted, (PARTS,)),
    Case("company/cluster/wire.py:_sizes_untrusted", lambda d: cluster._sizes_untrusted(d[:8], d[8:]), (b"\1\0\0\0\2\0\0\0abc",)),
    Case("company/cluster/wire.py:_unpack_untrusted", cluster._unpack_untrusted, (PARTS,)),
    Case("company/cluster/wire.py:_array_untrusted", lambda d: cluster._array_untrusted(d, (int, str)), (msgpack.packb([1, "a"]),)),
    Case("company/cluster/wire.py:_typed_untrusted", lambda d: cluster._typed_untrusted([d], (bytes,)), (b"x",)),
    Case("company/chief/rest_join.py:join_untrusted", join, (JOIN.encode(),), HTTP),
    Case("company/chief/rest_join.py:held_untrusted", held_untrusted, (b'{"accepted": 0, "held": [[7, "j", 0, 3, "running"]]}', b"{}")),
    Case("company/worker/blob_sink.py:feed_untrusted", blob, (frame([31], b"abc"),)),
    Case(
        "company/chief/rest_workers.py:messages_untrusted", messages_of_a_worker_untrusted, (frame(OUTCOME.as_array(), *OUTCOME_ITEMS) * 2,)
    ),
    Case("company/chief/rest_workers.py:_digest_untrusted", lambda d: _digest_untrusted(text(d)), (b"ab" * 32,), HTTP),
    Case("company/chief/logs.py:tails_untrusted", lambda d: tails_untrusted(d, [1], max_bytes=10), (msgpack.packb([1, 2, b"hello"]) * 3,)),
    Case("p2p/base/codec.py:decode_value_untrusted", decode_value_untrusted, (encode_value(VALUES),)),
    Case("p2p/base/frames.py:feed_untrusted", in_pieces, (frame([1, "x"], b"abc", b""),)),
    Case("p2p/base/frames.py:parse_frame_untrusted", parse_frame_untrusted, (frame([1, "x"], b"abc", b""),)),
    Case("p2p/base/frames.py:_parse_untrusted", parse_frame_untrusted, (frame([0]),)),
    Case("p2p/base/schema.py:parse_untrusted", one_message, tuple(frame(x.as_array()) for x in (OUTCOME, MACHINE, m.Recall(3)))),
    Case("p2p/base/schema.py:parse_any_untrusted", one_message, (frame(m.Resume("w", ((1, "j", 0, 1, "running"),)).as_array()),)),
    Case("p2p/base/envelope.py:open_untrusted", lambda d: open_untrusted(ME.public, "test", NET, d[:-64], d[-64:]), (BODY + SIGNATURE,)),
    Case("p2p/net/hello.py:refusal_facts_untrusted", lambda d: refusal_facts_untrusted(Refused("c", "t", d)), (encode_value({"a": 1}),)),
    Case(
        "p2p/net/tls.py:key_of_certificate_untrusted",
        key_of_certificate_untrusted,
        (ssl.PEM_cert_to_DER_cert(peer_certificate(ME)[0].decode()),),
    ),
    Case("company/http_pass.py:check_pass_untrusted", http_pass, (HTTP_PASS.encode(),)),
    Case("company/tokens.py:parse_token_untrusted", lambda d: parse_token_untrusted(text(d)), (TOKEN.encode(),)),
    Case("company/tokens.py:_of_body_untrusted", lambda d: parse_token_untrusted("cmpw1." + text(d)), (TOKEN.encode()[6:],)),
    Case(
        "company/sandbox/checks.py:check_frame_untrusted",
        lambda d: as_frame(d, check_frame_untrusted),
        (frame(CHILD_OUTCOME, *OUTCOME_ITEMS),),
    ),
    Case(
        "company/chief/sessions.py:machine_untrusted",
        lambda d: as_frame(d, machine_untrusted),
        (frame([1], msgpack.packb(MACHINE.as_array())),),
    ),
    Case("company/chief/outcome_cut.py:cut_outcome_untrusted", outcome, (frame(OUTCOME.as_array(), *OUTCOME_ITEMS),)),
    Case("company/chief/logs.py:parse_log_untrusted", parse_log_untrusted, (msgpack.packb([1, 2, b"hello"]) * 3,)),
    Case("company/chief/segments.py:header_of_untrusted", lambda d: as_frame(d, header_of_untrusted), (frame(RECORD, b"a", b"b"),)),
    Case("company/chief/tree.py:extract_tar_untrusted", extract_tar, (TAR,), (MalformedMessage, OSError)),
    Case(
        "company/worker/frames.py:outcome_untrusted",
        lambda d: as_frame(d, lambda f: outcome_untrusted(f, Expected(5, 0, 2))),
        (frame(CHILD_OUTCOME, *OUTCOME_ITEMS),),
    ),
    Case(
        "company/worker/frames.py:_blobs_untrusted",
        lambda d: as_frame(d, lambda f: outcome_untrusted(f, Expected(5, 0, 2))),
        (frame([*CHILD_OUTCOME[:-1], [[0, 9]]], b"\0\0", b"\0" * 8, b"", b"", b"x"),),
    ),
    Case(
        "company/worker/frames.py:words_untrusted",
        lambda d: as_frame(d, lambda f: words_untrusted(f, (int, int, str, float), 0)),
        (frame([wire.STATUS, 5, 1, "half", 0.5]),),
    ),
    Case(
        "company/worker/frames.py:_plain_untrusted",
        lambda d: as_frame(d, lambda f: outcome_untrusted(f, Expected(5, 0, 2))),
        (frame(CHILD_OUTCOME, *OUTCOME_ITEMS),),
    ),
    Case("company/worker/rest.py:messages_untrusted", messages_untrusted, (frame(m.Recall(3).as_array()) * 2,)),
    Case(
        "company/package/archive.py:read_archive_untrusted", lambda d: read_archive_untrusted(io.BytesIO(d), max_bytes=1 << 20), (ZIP, TAR)
    ),
    Case("company/package/archive.py:tidy_files_untrusted", lambda d: tidy_files_untrusted({text(d): b"x"}), (b"processor/main.py",)),
    Case(
        "company/package/digests.py:processor_files_untrusted",
        lambda d: processor_files_untrusted(d, b"0" * 32),
        (processor_archive(PROCESSOR),),
    ),
    Case(
        "company/package/functions.py:parse_source_untrusted",
        parse_source_untrusted,
        (b"def f(a, *, b=1):\n    return a\n",),
        (SourceError,),
    ),
    Case(
        "company/package/manifest.py:parse_manifest_untrusted",
        parse_manifest_untrusted,
        (b'name = "a"\nmemory = "1GiB"\n',),
        (ManifestError,),
    ),
    Case("company/client/download.py:unpack_untrusted", unpack, (ZIP,), (CompanyError,)),
    Case("company/chief/api/bodies.py:json_untrusted", json_untrusted, (b'{"a": [1, 2.5, null]}',), HTTP),
    Case("company/chief/api/bodies.py:fields_untrusted", fields_untrusted, (b"a=1&params.n=5",), HTTP),
    Case(
        "company/chief/api/bodies.py:convert_untrusted",
        lambda d: convert_untrusted(json_untrusted(d), JobSubmit, strict=True),
        (b'{"package": "a", "dataset": "b", "priority": 3}',),
        HTTP,
    ),
    Case(
        "company/chief/api/filenames.py:package_files_untrusted", lambda d: package_files_untrusted({text(d): b""}), (b"a/split.py",), HTTP
    ),
    Case(
        "company/chief/api/ranges.py:parse_range_untrusted",
        lambda d: parse_range_untrusted(text(d), 100),
        (b"bytes=0-5", b"bytes=-7"),
        HTTP,
    ),
    Case("company/chief/api/tus.py:metadata_untrusted", lambda d: metadata_untrusted(text(d)), (b"name YWJj,kind ZmlsZQ==",), HTTP),
    Case(
        "company/chief/api/tus.py:checksum_untrusted", lambda d: checksum_untrusted(text(d)), (b"sha1 qUqP5cyxm6YcTAhz05Hph5gvu9M=",), HTTP
    ),
    Case("company/chief/api/uploads.py:kind_untrusted", lambda d: kind_untrusted(text(d)), (b"file",), HTTP),
)

# Tested with their streams and files where they live, not as functions of bytes.
ELSEWHERE = {
    "simulator/stand_in.py:open_untrusted": "tests/unit/test_contract_export.py",  # what it calls where its memo has nothing
    "p2p/contracts/export.py:read_export_untrusted": "tests/unit/test_contract_export.py",
    "p2p/contracts/signing.py:open_untrusted": "tests/unit/test_contract_export.py",
    "p2p/contracts/signing.py:open_signed_untrusted": "tests/unit/test_contract_export.py",
    "p2p/contracts/signing.py:split_wire_untrusted": "tests/unit/test_contract_export.py",
    "p2p/contracts/terms.py:unpack_untrusted": "tests/unit/test_contract_export.py",
    "p2p/contracts/terms.py:array_untrusted": "tests/unit/test_contract_export.py",
    "p2p/contracts/forks.py:verify_fork_untrusted": "tests/unit/test_contract_export.py",
    "p2p/contracts/chain.py:read_half_untrusted": "tests/unit/test_contract_export.py",
    "company/chief/contracts/trust.py:halves_untrusted": "tests/unit/test_chief_contracts.py",
    "company/chief/contracts/trust.py:head_untrusted": "tests/unit/test_chief_contracts.py",
    "p2p/contracts/book.py:about_untrusted": "tests/unit/test_contract_export.py",
    "company/chief/call_stream.py:append_untrusted": "tests/unit/test_call_stream.py",
    "company/chief/gate.py:_parse_untrusted": "tests/unit/test_gate.py",
    "company/local_engine/results.py:add_untrusted": "tests/e2e/test_local.py",
    "p2p/net/channel.py:read_frame_untrusted": "tests/unit/test_rpc_hostile.py",
    "p2p/net/http_get.py:_read_request_untrusted": "tests/unit/test_rpc_hostile.py",
    "company/sandbox/spool.py:add_untrusted": "tests/unit/test_sandbox_spool.py",
    "company/worker/large.py:on_chunk_untrusted": "tests/unit/test_worker_service.py",
    "company/worker/large.py:take_untrusted": "tests/unit/test_worker_service.py",
}


def mutated(sample: bytes, seed: int) -> bytes:
    """The sample with a few faults in it; the seed says which."""
    rng = random.Random(seed)
    data = bytearray(sample)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if data:
                data[min(at, len(data) - 1)] = rng.randrange(256)
            case 1 if data:
                data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.randint(1, 9)]
            case 3:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
            case 4:
                data[at:at] = data[at : at + rng.randint(1, 32)]
            case _:
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\xdd\xff\xff\xff"])
    return bytes(data)


def check(case: Case, data: bytes) -> None:
    try:
        case.call(data)
    except case.errors:
        pass


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.covers)
def test_a_valid_sample_is_taken(case: Case) -> None:
    if "processor_files" in case.covers or "_blobs" in case.covers:
        pytest.skip("its samples are refused for what they say, not for their form")
    for sample in case.samples:
        case.call(sample)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.covers)
@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")), deadline=None)
@given(data=st.binary(max_size=400), seeds=st.lists(st.integers(0, 2**63), min_size=4, max_size=4))
def test_whatever_comes_it_is_taken_or_refused_and_nothing_else(case: Case, data: bytes, seeds: list[int]) -> None:
    check(case, data)
    for seed in seeds:
        for sample in case.samples:
            check(case, mutated(sample, seed))


def test_seeds_that_failed_once_stay_fixed() -> None:
    """(case, sample, seed): found by FUZZ_EXAMPLES=1500."""
    for covers, seed in (("company/client/download.py:unpack_untrusted", 5942),):  # a member that says it is encrypted
        case = next(c for c in CASES if c.covers == covers)
        for sample in case.samples:
            check(case, mutated(sample, seed))


def test_every_untrusted_function_has_a_case() -> None:
    found: set[str] = set()
    for folder in ("p2p", "company", "simulator"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.endswith("_untrusted"):
                    found.add(f"{path.relative_to(ROOT).as_posix()}:{node.name}")
    assert found == {case.covers for case in CASES} | set(ELSEWHERE)
    for place in ELSEWHERE.values():
        assert (ROOT / place).is_file()
