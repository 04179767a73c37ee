"""Resumable uploads, tus 1.0: create, ask for the offset, go on from there (I/O: through the chief).

Extensions: creation, creation-with-upload, termination, expiration, checksum. An upload that is complete becomes a dataset or, with
``kind package`` in its metadata, a package; `GET` on its address then tells the digest.
Source: tus resumable upload protocol 1.0.0, tus.io/protocols/resumable-upload.
"""

from __future__ import annotations

import base64
import binascii
from email.utils import formatdate
from typing import Final

from company import views
from company.chief.api.bodies import is_multipart
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import BadRequest, NotAcceptable
from company.chief.api.replies import json_reply
from company.chief.api.uploads import upload_data
from company.chief.facade import Conflict, TooLarge
from p2p.net.http_types import Request, Response

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,termination,expiration,checksum"
CHECKSUMS: Final = {"sha1": 20, "sha256": 32}
CHUNK_TYPE: Final = "application/offset+octet-stream"
MAX_METADATA_CHARS: Final = 8192


async def options(call: Call) -> Response:
    """What this server can do."""
    headers = {"Tus-Resumable": VERSION, "Tus-Version": VERSION, "Tus-Extension": EXTENSIONS, "Tus-Checksum-Algorithm": ",".join(CHECKSUMS)}
    limit = _limit(call)
    return Response(204, headers | ({"Tus-Max-Size": str(limit)} if limit is not None else {}))


async def upload_or_create(call: Call) -> Response:
    """A whole body, or the creation of a resumable upload: the header Tus-Resumable tells which."""
    if "Tus-Resumable" not in call.request.headers:
        return await upload_data(call)
    return await create(call)


async def create(call: Call) -> Response:
    """Begin an upload; a body of tus's media type is its first piece."""
    request = call.request
    _check_version(request)
    if is_multipart(request) or "Upload-Defer-Length" in request.headers:
        raise BadRequest("upload-length-missing", "Say the length of the whole upload in Upload-Length; deferring it is not offered.")
    length = _number(request, "Upload-Length")
    limit = _limit(call)
    if limit is not None and length > limit:
        raise TooLarge("data-too-large", f"The upload has {length} bytes; this chief accepts {limit}.", limit=limit, actual=length)
    upload_id = await call.chief.create_upload(
        length=length, meta=metadata_untrusted(request.headers.get("Upload-Metadata", "")), by=call.by
    )
    headers = {"Location": f"/api/v1/uploads/{upload_id}"}
    if request.headers.get("Content-Type", "").partition(";")[0].strip() == CHUNK_TYPE:
        return await _append(call, upload_id, 0, 201, headers)
    _, _, expires = await call.chief.upload_offset(upload_id)
    headers["Upload-Expires"] = formatdate(expires, usegmt=True)
    return Response(201, headers | (await _finished(call, upload_id) if length == 0 else {}))


async def show(call: Call) -> Response:
    """How far an upload has come, for HEAD in headers as tus wants it; for GET with what it became."""
    return await (_head(call) if call.request.method == "HEAD" else _shown(call))


async def _head(call: Call) -> Response:
    _check_version(call.request)
    offset, length, expires = await call.chief.upload_offset(call.arg("upload"))
    headers = {"Upload-Offset": str(offset), "Upload-Expires": formatdate(expires, usegmt=True), "Cache-Control": "no-store"}
    return Response(200, headers | ({"Upload-Length": str(length)} if length is not None else {}))


async def patch(call: Call) -> Response:
    """The next piece."""
    request = call.request
    _check_version(request)
    if request.headers.get("Content-Type", "").partition(";")[0].strip() != CHUNK_TYPE:
        raise NotAcceptable(415, "chunk-type-wrong", f"A piece has the media type {CHUNK_TYPE}.")
    upload_id, offset = call.arg("upload"), _number(request, "Upload-Offset")
    at, _, _ = await call.chief.upload_offset(upload_id)
    if at != offset:
        raise Conflict(
            "offset-mismatch",
            f"The upload is at byte {at}; this piece begins at {offset}.",
            hint="Ask with HEAD and go on from there.",
            offset=at,
        )
    return await _append(call, upload_id, offset, 204, {})


async def _append(call: Call, upload_id: str, offset: int, status: int, headers: dict[str, str]) -> Response:
    now_at = await call.chief.append_upload(
        upload_id, offset, call.request.chunks(), checksum_untrusted(call.request.headers.get("Upload-Checksum"))
    )
    _, length, expires = await call.chief.upload_offset(upload_id)
    headers = headers | {"Upload-Offset": str(now_at), "Upload-Expires": formatdate(expires, usegmt=True)}
    return Response(status, headers | (await _finished(call, upload_id) if now_at == length else {}))


async def _finished(call: Call, upload_id: str) -> dict[str, str]:
    made = await call.chief.finish_upload(upload_id)
    if made is None:
        return {}
    return {"Company-Digest": made.digest, "Company-Kind": "package" if isinstance(made, views.PackageView) else "dataset"}


async def _shown(call: Call) -> Response:
    upload_id = call.arg("upload")
    offset, length, expires = await call.chief.upload_offset(upload_id)
    made = await call.chief.finish_upload(upload_id) if offset == length else None
    kind = None if made is None else "package" if isinstance(made, views.PackageView) else "dataset"
    return json_reply({"id": upload_id, "offset": offset, "length": length, "expires": expires, "kind": kind, "result": made})


async def terminate(call: Call) -> Response:
    """Give an upload up."""
    _check_version(call.request)
    await call.chief.abort_upload(call.arg("upload"))
    return Response(204)


async def overridden(call: Call) -> Response:
    """POST with X-HTTP-Method-Override, for clients behind proxies that know no PATCH."""
    method = call.request.headers.get("X-HTTP-Method-Override", "").upper()
    if method == "PATCH":
        return await patch(call)
    if method == "DELETE":
        return await terminate(call)
    raise BadRequest("method-override-missing", "POST here needs X-HTTP-Method-Override: PATCH or DELETE.")


def metadata_untrusted(header: str) -> dict[str, str]:
    """Upload-Metadata as a map: comma-separated pairs of a key and base64 text. Raises `BadRequest`."""
    if len(header) > MAX_METADATA_CHARS:
        raise BadRequest("metadata-too-long", f"Upload-Metadata may have {MAX_METADATA_CHARS} characters.")
    meta: dict[str, str] = {}
    for pair in filter(None, (p.strip() for p in header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            meta[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise BadRequest("metadata-malformed", f"Upload-Metadata {key[:40]!r} is not base64 of UTF-8 text.") from None
    return meta


def checksum_untrusted(header: str | None) -> tuple[str, bytes] | None:
    """Upload-Checksum as (algorithm, digest). Raises `BadRequest`."""
    if header is None:
        return None
    name, _, value = header.strip().partition(" ")
    name = name.lower().replace("-", "")
    try:
        digest = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != CHECKSUMS.get(name, -1):
        raise BadRequest(
            "checksum-unsupported", f"Upload-Checksum is one of {', '.join(CHECKSUMS)} and a base64 digest, got {header[:60]!r}."
        )
    return name, digest


def _check_version(request: Request) -> None:
    """Raises `NotAcceptable` 412; the answer then says which version is spoken."""
    if request.headers.get("Tus-Resumable") != VERSION:
        raise NotAcceptable(412, "tus-version-wrong", f"Send the header Tus-Resumable: {VERSION}.", versions=[VERSION])


def _number(request: Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest(f"{header.lower()}-malformed", f"{header} must be a number of bytes, got {text[:40]!r}.")
    return int(text)


def _limit(call: Call) -> int | None:
    return call.chief.limits().get("dataset_max_bytes")


def tus_endpoints() -> list[Endpoint]:
    """POST /upload/data in both forms, and what resumable uploads have."""
    one = "/api/v1/uploads/{upload}"
    made = [
        Endpoint(
            method="GET",
            pattern=one,
            handler=show,
            need="submitter",
            tag="uploads",
            summary="State of a resumable upload; HEAD is tus 1.0",
            answer="application/json",
        ),
        Endpoint(
            method="PATCH",
            pattern=one,
            handler=patch,
            need="submitter",
            tag="uploads",
            summary="Next piece of an upload (tus 1.0)",
            body=CHUNK_TYPE,
            status=204,
        ),
        Endpoint(
            method="POST",
            pattern=one,
            handler=overridden,
            need="submitter",
            tag="uploads",
            summary="PATCH or DELETE by X-HTTP-Method-Override",
            body=CHUNK_TYPE,
            status=204,
        ),
        Endpoint(
            method="DELETE",
            pattern=one,
            handler=terminate,
            need="submitter",
            tag="uploads",
            summary="Give up an upload (tus 1.0)",
            status=204,
        ),
        Endpoint(
            method="POST",
            pattern="/api/v1/uploads",
            handler=create,
            need="submitter",
            tag="uploads",
            summary="Begin a resumable upload (tus 1.0)",
            status=201,
        ),
        Endpoint(
            method="OPTIONS",
            pattern="/api/v1/uploads",
            handler=options,
            need="open",
            tag="uploads",
            summary="What tus can do here",
            status=204,
        ),
        Endpoint(
            method="OPTIONS",
            pattern="/upload/data",
            handler=options,
            need="open",
            tag="uploads",
            summary="What tus can do here",
            status=204,
        ),
    ]
    for pattern in ("/upload/data", "/api/v1/datasets"):
        made.append(
            Endpoint(
                method="POST",
                pattern=pattern,
                handler=upload_or_create,
                need="submitter",
                tag="datasets",
                query=("name", "kind"),
                summary="Upload data: a streamed body, multipart, or tus creation",
                body="application/octet-stream",
                answer=views.DatasetView,
                status=201,
            )
        )
    return made
