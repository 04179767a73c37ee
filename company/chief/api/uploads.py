"""Whole uploads over REST: packages and datasets as plain bodies or multipart, streamed (I/O: through the chief).

Both are content-addressed, so sending one twice is harmless and answers 200 with what is already there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from company import views
from company.chief.api.auth import require
from company.chief.api.bodies import disposition_filename, is_multipart, one_chunk, read_object, small_part
from company.chief.api.filenames import package_files_untrusted
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import BadRequest
from company.chief.api.ranges import file_reply
from company.chief.api.replies import json_reply, list_reply
from company.chief.facade import TooLarge
from p2p.net.http_types import Part, Response

ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
MAX_PARTS: Final = 10_000
DEFAULT_PACKAGE_BYTES: Final = 100 << 20
KINDS: Final = ("file", "tree")


async def upload_package(call: Call) -> Response:
    """Store a package: an archive as body, or multipart with an archive or with the files themselves."""
    request = call.request
    if is_multipart(request):
        package, created = await package_from_parts(call, request.parts())
    else:
        package, created = await call.chief.add_package(
            request.chunks(),
            by=call.by,
            name=request.query.get("name") or _stem(disposition_filename(request)),
            signer=_hex(call, "Company-Signer", 32),
            signature=_hex(call, "Company-Signature", 64),
        )
    return json_reply(package, 201 if created else 200, {"Location": f"/api/v1/packages/{package.digest}"})


async def package_from_parts(call: Call, parts: AsyncIterator[Part]) -> tuple[views.PackageView, bool]:
    """Store what a multipart form brings; a field ``name`` names it."""
    limit = call.chief.limits().get("package_max_bytes", DEFAULT_PACKAGE_BYTES)
    name: str | None = call.request.query.get("name")
    files: dict[str, bytes] = {}
    size = 0
    async for part in parts:
        if part.filename is None:
            value = (await small_part(part)).decode(errors="replace").strip()
            name = value or name if part.name == "name" else name
            continue
        data = await small_part(part, limit - size)
        size += len(data)
        if part.filename or data:
            # the field's name is the path where it looks like one, since clients strip folders from file names
            files["/".join(p for p in (part.name if "." in part.name else part.filename).split("/") if p)] = data
        if len(files) > MAX_PARTS:
            raise TooLarge("too-many-files", f"A package may have {MAX_PARTS} files.", limit=MAX_PARTS, actual=len(files))
    if not files:
        raise BadRequest("package-missing", "The form brought no file.", hint="curl -F package=@package.zip, or one -F per file.")
    if len(files) == 1:
        path, data = next(iter(files.items()))
        if path.lower().endswith(ARCHIVES) or not path.endswith(".py"):
            return await call.chief.add_package(one_chunk(data), by=call.by, name=name or _stem(path))
    return await call.chief.add_package_files(package_files_untrusted(files), by=call.by, name=name)


async def upload_data(call: Call) -> Response:
    """Store a dataset: the body is the file, or with ``kind=tree`` a tar of a directory; or multipart with one file."""
    request = call.request
    kind = kind_untrusted(request.query.get("kind", "file"))
    if is_multipart(request):
        dataset, created = await _data_from_parts(call, kind)
    else:
        name = request.query.get("name") or disposition_filename(request) or "data"
        dataset, created = await call.chief.add_dataset(
            request.chunks(), by=call.by, name=name, kind=kind, expected_size=request.content_length
        )
    return json_reply(dataset, 201 if created else 200, {"Location": f"/api/v1/datasets/{dataset.digest}"})


async def _data_from_parts(call: Call, kind: str) -> tuple[views.DatasetView, bool]:
    name: str | None = call.request.query.get("name")
    stored: tuple[views.DatasetView, bool] | None = None
    async for part in call.request.parts():
        if part.filename is None:
            value = (await small_part(part)).decode(errors="replace").strip()
            if part.name == "name":
                name = value or name
            elif part.name == "kind":
                kind = kind_untrusted(value)
            continue
        if stored is not None:
            raise BadRequest(
                "several-files",
                "One file makes a dataset; the first was stored, the second refused.",
                hint="Send a directory as one tar with kind=tree: tar c DIR | curl --data-binary @- '…/upload/data?kind=tree'",
            )
        stored = await call.chief.add_dataset(part.chunks(), by=call.by, name=name or part.filename or "data", kind=kind)
    if stored is None:
        raise BadRequest("data-missing", "The form brought no file.", hint="curl -F data=@FILE")
    return stored


def kind_untrusted(text: str) -> str:
    """A kind of dataset. Raises `BadRequest`."""
    if text not in KINDS:
        raise BadRequest("kind-unknown", f"kind is file or tree (a tar of a directory), got {text[:40]!r}.")
    return text


def _stem(filename: str | None) -> str | None:
    """wordcount of wordcount.tar.gz."""
    if filename is None:
        return None
    base = filename.rsplit("/", 1)[-1]
    return next((base[: -len(end)] for end in ARCHIVES if base.lower().endswith(end)), base) or None


def _hex(call: Call, header: str, length: int) -> bytes | None:
    text = call.request.headers.get(header)
    if text is None:
        return None
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    require(len(value) == length, "signature-malformed", f"{header} must be {length} bytes in hex.")
    return value


async def list_packages(call: Call) -> Response:
    """All packages."""
    return list_reply(await call.chief.list_packages())


async def package(call: Call) -> Response:
    """One package."""
    return json_reply(await call.chief.package(call.arg("digest")))


async def package_archive(call: Call) -> Response:
    """The archive of a package."""
    return file_reply(call.request, await call.chief.package_archive(call.arg("digest")), immutable=True)


async def remove_package(call: Call) -> Response:
    """Remove a package that no job uses."""
    await call.chief.remove_package(call.arg("digest"), by=call.by)
    return Response(204)


async def list_datasets(call: Call) -> Response:
    """All datasets."""
    return list_reply(await call.chief.list_datasets())


async def dataset(call: Call) -> Response:
    """One dataset."""
    return json_reply(await call.chief.dataset(call.arg("digest")))


async def mark_dataset(call: Call) -> Response:
    """Mark a dataset private, so that it never leaves this company, or not."""
    args = await read_object(call.request)
    if set(args) != {"private"} or not isinstance(args["private"], bool):
        raise BadRequest("nothing-to-edit", "Say private: true or false.")
    return json_reply(await call.chief.mark_dataset(call.arg("digest"), args["private"], by=call.by))


async def remove_dataset(call: Call) -> Response:
    """Remove a dataset that no job uses."""
    await call.chief.remove_dataset(call.arg("digest"), by=call.by)
    return Response(204)


def upload_endpoints() -> list[Endpoint]:
    """What packages and datasets have; POST /upload/data is in `tus`, which shares its address."""
    made = [
        Endpoint(
            method="GET",
            pattern="/api/v1/packages",
            handler=list_packages,
            need="viewer",
            tag="packages",
            summary="List packages",
            answer=views.PackageView,
            is_list=True,
        ),
        Endpoint(
            method="GET",
            pattern="/api/v1/packages/{digest}",
            handler=package,
            need="viewer",
            tag="packages",
            summary="Show a package",
            answer=views.PackageView,
        ),
        Endpoint(
            method="GET",
            pattern="/api/v1/packages/{digest}/archive",
            handler=package_archive,
            need="viewer",
            tag="packages",
            summary="Download a package (Range)",
            answer="application/octet-stream",
        ),
        Endpoint(
            method="DELETE",
            pattern="/api/v1/packages/{digest}",
            handler=remove_package,
            need="submitter",
            tag="packages",
            summary="Remove an unused package",
            status=204,
        ),
        Endpoint(
            method="GET",
            pattern="/api/v1/datasets",
            handler=list_datasets,
            need="viewer",
            tag="datasets",
            summary="List datasets",
            answer=views.DatasetView,
            is_list=True,
        ),
        Endpoint(
            method="GET",
            pattern="/api/v1/datasets/{digest}",
            handler=dataset,
            need="viewer",
            tag="datasets",
            summary="Show a dataset",
            answer=views.DatasetView,
        ),
        Endpoint(
            method="PATCH",
            pattern="/api/v1/datasets/{digest}",
            handler=mark_dataset,
            need="submitter",
            tag="datasets",
            summary="Mark a dataset private, or not",
            body="application/json",
            answer=views.DatasetView,
        ),
        Endpoint(
            method="DELETE",
            pattern="/api/v1/datasets/{digest}",
            handler=remove_dataset,
            need="submitter",
            tag="datasets",
            summary="Remove an unused dataset",
            status=204,
        ),
    ]
    for pattern in ("/upload/module-package", "/api/v1/packages"):
        made.append(
            Endpoint(
                method="POST",
                pattern=pattern,
                handler=upload_package,
                need="submitter",
                tag="packages",
                query=("name",),
                summary="Upload a package: zip, tar or multipart",
                body="application/octet-stream",
                answer=views.PackageView,
                status=201,
            )
        )
    return made
