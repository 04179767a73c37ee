"""Parts of files and conditions on them (pure; the server sends the slice).

The strong ETag is the content's SHA-256, so a resumed download can never join two different results. `aiohttp.web.FileResponse` answers
206 to a stale If-Range ETag (seen in 3.14.5), which is why this is our own.
Source: RFC 9110 §13 (conditions, their order), §14 (ranges); RFC 9530 (Repr-Digest).
"""

from __future__ import annotations

import base64
import re

from company.chief.api.problem import NotAcceptable
from company.chief.api.replies import attachment
from company.chief.facade import StoredFile
from p2p.net.http_types import FileSlice, Request, Response

_RANGE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*")
_TAG = re.compile(r'(W/)?"([^"]*)"')


def file_reply(request: Request, file: StoredFile, *, immutable: bool = False) -> Response:
    """The file, the part asked for, or 304. Raises `NotAcceptable` with 412 or 416."""
    etag = f'"{file.digest}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable" if immutable else "private, no-cache",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file.digest)).decode()}:",
        "Content-Disposition": attachment(file.name),
        "Content-Security-Policy": "default-src 'none'; sandbox",  # a module's HTML must never run as ours
    }
    wanted = request.headers.get("If-Match")
    if wanted is not None and not is_listed(wanted, file.digest, weak=False):
        raise NotAcceptable(412, "precondition-failed", "The file is not the one that If-Match names.", etag=etag)
    known = request.headers.get("If-None-Match")
    if known is not None and is_listed(known, file.digest, weak=True):
        return Response(304, headers, b"", file.media_type)
    part = None
    asked = request.headers.get("Range")
    if asked is not None and is_same_for_range(request.headers.get("If-Range"), file.digest):
        part = parse_range_untrusted(asked, file.size)
    if part is None:
        return Response(200, headers, FileSlice(file.path, 0, file.size), file.media_type)
    start, length = part
    headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{file.size}"
    return Response(206, headers, FileSlice(file.path, start, length), file.media_type)


def parse_range_untrusted(header: str, size: int) -> tuple[int, int] | None:
    """(start, length) of a single byte range; nil for one that must be ignored, then the whole is sent. Raises `NotAcceptable` 416.

    Several ranges are ignored too, which RFC 9110 §14.2 allows: no client of ours asks for them, and they multiply work.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size - 1
        if int(last) == 0:
            start = size
    else:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise NotAcceptable(
            416, "range-not-satisfiable", f"The file has {size} bytes; the range {header[:60]!r} begins behind its end.", size=size
        )
    return start, end - start + 1


def is_same_for_range(if_range: str | None, digest: str) -> bool:
    """Whether a Range may be honoured: no If-Range, or exactly this strong tag. A date never matches: we give no Last-Modified."""
    return if_range is None or if_range.strip() == f'"{digest}"'


def is_listed(header: str, digest: str, *, weak: bool) -> bool:
    """Whether a list of entity tags holds this digest; ``weak``: W/ tags count too."""
    if header.strip() == "*":
        return True
    return any(tag == digest and (weak or not mark) for mark, tag in _TAG.findall(header))
