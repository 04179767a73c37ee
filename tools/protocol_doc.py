"""Make docs/protocol.md from the message types and the docstrings that say what travels (I/O: writes that page).

``python -m tools.protocol_doc`` writes it; with ``--check`` it only exits with 1 when the page is not up to date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from company import messages, tokens
from company.chief import segments
from company.chief.api.workers import worker_endpoints
from company.package import signing
from company.peer_messages import PEER_MESSAGES
from company.sandbox import wire
from company.worker import rest
from p2p.base import codec, frames
from p2p.base.schema import Message
from p2p.dht import advertisement, packets, records
from p2p.net import rpc
from tools import protocol_peers

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/protocol.md"
TEMPLATE = Path(__file__).with_name("protocol.template.md")

CALLER, SERVER, BOTH = "caller → server", "server → caller", "both ways"
UP, DOWN = "worker → chief", "chief → worker"
# direction, and what the other side answers or refuses with besides malformed-message
ROUTES: Mapping[type[Message], tuple[str, str]] = {
    messages.Hello: (CALLER, "`Challenge`; refused: `version-mismatch`, `refused`"),
    messages.Challenge: (SERVER, "`Prove`"),
    messages.Prove: (CALLER, "`Welcome`; refused: `bad-proof`"),
    messages.Welcome: (SERVER, "–"),
    messages.Refused: (BOTH, "the sender closes the channel after it"),
    messages.Machine: ("part of Join and Resume", "–"),
    messages.Join: (
        UP,
        "`Joined`; refused: `token-unknown`, `token-expired`, `token-revoked`, `token-used-up`, `token-wrong-role`, `too-many-workers`",
    ),
    messages.Joined: (DOWN, "–"),
    messages.Resume: (UP, "`Resumed`; refused: `worker-unknown`, `worker-removed`"),
    messages.Resumed: (DOWN, "the worker drops what is named in `drop`"),
    messages.JobIs: (DOWN, "`JobBlocked` where it cannot run it"),
    messages.JobOver: (DOWN, "–"),
    messages.NeedProcessor: (UP, "`ProcessorIs`"),
    messages.ProcessorIs: (DOWN, "`JobBlocked` with the reason where digest, signature or check fail"),
    messages.JobBlocked: (UP, "its fragments go to others"),
    messages.Run: (DOWN, "`Outcome` or `Failed`"),
    messages.Outcome: (UP, "`Ack` once it is on disk; `Stale`"),
    messages.Failed: (UP, "`Ack`; `Stale`"),
    messages.Ack: (DOWN, "–"),
    messages.Stale: (DOWN, "–"),
    messages.Recall: (DOWN, "`Recalled`"),
    messages.Recalled: (UP, "–"),
    messages.Cancel: (DOWN, "–"),
    messages.SlotState: (UP, "–"),
    messages.Status: (UP, "–"),
    messages.Artifact: (UP, "–"),
    messages.Ping: (UP, "`Pong`; a side that is silent for some heartbeats is given up"),
    messages.Pong: (DOWN, "–"),
    messages.Drain: (DOWN, "`Bye` when all is handed in, unless `pause`"),
    messages.Undrain: (DOWN, "–"),
    messages.Bye: (BOTH, "the channel closes"),
    messages.Guest: (
        "lent worker → borrower's chief",
        "`Resumed`; refused: `ticket-refused`, `contract-unknown`, `contract-over`, `slots-exceeded`",
    ),
    messages.Second: (DOWN, "`Seconded`"),
    messages.Unsecond: (DOWN, "`Seconded` once nothing runs any more"),
    messages.Seconded: (UP, "`SecondedHeard` once its last is on disk; `Unsecond` where the chief knows no such contract"),
    messages.SecondedHeard: (DOWN, "–"),
    messages.BlobGet: (UP + ", bulk", "`BlobPart`s; refused: `stale-token`, `not-large`"),
    messages.BlobPart: (BOTH + ", bulk", "–"),
    messages.BlobPut: (UP + ", bulk", "`BlobKept` after the last part; refused: `stale-token`"),
    messages.BlobKept: (DOWN + ", bulk", "–"),
    messages.WheelsGet: (UP + ", bulk", "`WheelsAre`; refused: see docs/reasons.md#packages"),
    messages.WheelsAre: (DOWN + ", bulk", "the worker checks the signature before it reads the list"),
    messages.WheelGet: (UP + ", bulk", "`BlobPart`s; the worker compares the digest"),
}
_VALUES = (
    ("_TUPLE", "tuple", "the items as an array"),
    ("_BIGINT", "int outside 64 bits", f"two's complement, big endian, at most {codec.MAX_BIGINT_BYTES >> 20} MiB"),
    ("_COMPLEX", "complex", "[real, imaginary]"),
    ("_DECIMAL", "Decimal", "its text"),
    ("_SET", "set", "the items as an array"),
    ("_FROZENSET", "frozenset", "the items as an array"),
    ("_DATE", "date", "ISO 8601 text"),
    ("_DATETIME", "datetime", "[ISO 8601 text, name of the time zone or nil, fold]"),
    ("_TIME", "time", "ISO 8601 text"),
    ("_TIMEDELTA", "timedelta", "[days, seconds, microseconds]"),
    ("_ARRAY", "numpy array", "[dtype, shape, bytes in C order]; no object arrays, at most 32 dimensions"),
    ("_SCALAR", "numpy scalar", "[dtype, bytes]"),
)


def message_section(cls: type[Message]) -> str:
    """One message: code, direction, words, fields with their bounds, answers."""
    direction, answers = ROUTES[cls] if cls in ROUTES else protocol_peers.ROUTES[cls]
    lines = [f"### {cls.code} {cls.__name__} ({direction})", "", inspect.getdoc(cls) or "", ""]
    if rows := cls.field_table():
        lines += ["| field | bound |", "|---|---|", *(f"| `{name}` | {bound} |" for name, bound in rows), ""]
    lines.append(f"Answer: {answers}.")
    return "\n".join(lines)


def rows(pairs: list[tuple[str, str]]) -> str:
    """The body of a table of two columns."""
    return "\n".join(f"| {left} | {right} |" for left, right in pairs)


def child_constants() -> str:
    """Codes and sizes of the child protocol."""
    names = [n for n, value in vars(wire).items() if n.isupper() and type(value) is int]
    return rows([(f"`{name}`", f"{getattr(wire, name):,}") for name in names])


def rest_calls() -> str:
    """The endpoints tagged for workers."""
    found = [e for e in worker_endpoints() if e.tag == "fragments"]
    lines = [f"| `{e.method} {e.pattern}` | {e.need} | {', '.join(e.query) or '–'} | {e.summary} |" for e in found]
    return "\n".join(["| call | token of | query | what |", "|---|---|---|---|", *lines])


def prose(text: str) -> str:
    """A docstring's text without the mark of its kind."""
    return re.sub(r" \((?:pure|I/O)[^()]*\)(?=[.:])", "", inspect.cleandoc(text)).replace("::\n", ":\n")


def fields() -> dict[str, str]:
    """What stands for each {{name}} of the template."""
    limits = rpc.RpcLimits()
    frame_limits = [("header", f"1..{frames.MAX_HEADER_BYTES} bytes"), ("n", f"at most {frames.MAX_COUNT:,}")]
    frame_limits += [("body", f"at most {frames.MAX_BODY_BYTES >> 20} MiB on a channel or in a REST body")]
    values = [(f"{getattr(codec, name)} | {kind}", content) for name, kind, content in _VALUES]
    return {
        "protocol": str(messages.PROTOCOL),
        "frame_limits": "| part | bound |\n|---|---|\n" + rows(frame_limits),
        "max_depth": str(codec.MAX_DEPTH),
        "codec": "| ext | type | content |\n|---|---|---|\n" + rows(values),
        "hello_bytes": str(rpc.HELLO_HEADER_BYTES),
        "handshake_s": f"{limits.handshake_s:g}",
        "connections": str(limits.connections),
        "per_address": str(limits.per_address),
        "messages": "\n\n".join(message_section(cls) for _, cls in sorted(messages.MESSAGES.items())),
        "peer_messages": "\n\n".join(message_section(cls) for _, cls in sorted(PEER_MESSAGES.items())),
        "inline_mib": str(wire.INLINE_BYTES >> 20),
        "child": "```\n" + prose(wire.__doc__ or "") + "\n```",
        "child_constants": child_constants(),
        "segments": prose(segments.__doc__ or "").partition("\n\n")[2],
        "rest": prose(rest.__doc__ or "").partition("\n\n")[2],
        "rest_calls": rest_calls(),
        "package_type": signing.ENVELOPE_TYPE,
        "prefixes": "`, `".join(sorted(set(tokens.PREFIXES.values()))),
        "token_chars": str(tokens.MAX_TEXT),
        "dht_packet": prose(packets.__doc__ or "").partition("\n\n")[2],
        "dht_record": prose(records.__doc__ or "").partition("\n\n")[2],
        "dht_advertisement": prose(advertisement.__doc__ or "").partition("\n\n")[2].strip(),
    }


def page() -> str:
    """The whole page."""
    known = fields()
    return re.sub(r"\{\{(\w+)\}\}", lambda found: known[found[1]], TEMPLATE.read_text("utf-8"))


def main(arguments: list[str]) -> int:
    """Write the page, or compare it with what the sources say now."""
    if "--check" not in arguments:
        PAGE.write_text(page(), "utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text("utf-8") == page():
        return 0
    print(f"{PAGE.relative_to(ROOT)} is not up to date: python -m tools.protocol_doc")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
