"""The page Submit: package and data chosen or uploaded, and the job made of them, in one form without JavaScript (I/O).

The form's parts come in the order of its fields and are stored as they come: the CSRF token is the first field, so nothing is stored for
a stranger's page. What was stored stays stored when a later part is refused, and is then chosen in the form shown again.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from company import views
from company.chief.api.bodies import convert_untrusted, params_from_fields, small_part
from company.chief.api.filenames import package_files_untrusted
from company.chief.api.gate import Call, Endpoint
from company.chief.api.problem import BadRequest, Problem, problem_of
from company.chief.api.uploads import DEFAULT_PACKAGE_BYTES, MAX_PARTS
from company.chief.facade import TooLarge
from company.config import parse_params, parse_size_bytes
from company.foreign_words import foreign_words
from company.web.pages import Pages, redirect
from company.web.trees import TarSpool
from p2p.base.errors import ParallelError
from p2p.net.http_types import BodyTooLarge, Part, Response

DEFAULT_DATA_BYTES: Final = 1 << 40
FIELDS: Final = frozenset(
    {
        "package", "dataset", "name", "params", "where", "borrow", "priority", "max_fails", "time_limit_s", "memory", "data_name",
        "yes_foreign",
    }
)  # fmt: skip


@dataclass(slots=True)
class _Read:
    """What the form has brought so far."""

    fields: dict[str, str] = field(default_factory=dict)
    package_files: dict[str, bytes] = field(default_factory=dict)
    package_bytes: int = 0
    package: views.PackageView | None = None
    dataset: views.DatasetView | None = None


class SubmitPages:
    """The page Submit. ``scratch``: where several files are joined before they are stored."""

    def __init__(self, pages: Pages, scratch: Path | None) -> None:
        self._pages = pages
        self._scratch = scratch

    async def form(self, call: Call) -> Response:
        """The empty form; ``package`` and ``dataset`` in the query choose."""
        chosen = {key: call.request.query.get(key, "") for key in ("package", "dataset")}
        return await self._show(call, chosen, None)

    async def _show(self, call: Call, fields: dict[str, str], problem: Problem | None) -> Response:
        return self._pages.show(
            call,
            "submit.html",
            problem.status if problem else 200,
            packages=await call.chief.list_packages(),
            datasets=await call.chief.list_datasets(),
            fields=dict.fromkeys(FIELDS, "") | fields,
            problem=problem,
            foreign=foreign_words("any")[1:],
            limits=call.chief.limits(call.by),
        )

    async def submit(self, call: Call) -> Response:
        """Store what the form brings, make the job, go to its page."""
        parts = call.request.parts()
        await _check_first_part(call, parts)
        read = _Read()
        try:
            with tempfile.TemporaryFile(dir=self._scratch) as file:
                limits = call.chief.limits(call.by)
                room = min(limits.get("dataset_max_bytes", DEFAULT_DATA_BYTES), limits.get("quota_left_bytes", DEFAULT_DATA_BYTES))
                await self._read(call, parts, read, TarSpool(file, room))
            job = await call.chief.submit(_request_of(read), by=call.by)
        except (ParallelError, BodyTooLarge) as error:
            if read.package is not None:
                read.fields["package"] = read.package.digest
            if read.dataset is not None:
                read.fields["dataset"] = read.dataset.digest
            return await self._show(call, read.fields, problem_of(error, call.request.path))
        return redirect(f"/jobs/{quote(job.id, safe='')}")

    async def _read(self, call: Call, parts: AsyncIterator[Part], read: _Read, tree: TarSpool) -> None:
        """Take the parts one by one, then join what was loose."""
        async for part in parts:
            if part.filename is None:
                if part.name in FIELDS:
                    read.fields[part.name] = (await small_part(part)).decode(errors="replace").strip()
            elif part.filename:  # a file field left empty comes with an empty name
                await self._file(call, part, read, tree)
        if read.package_files and read.package is None:
            files = package_files_untrusted(read.package_files)
            read.package, _ = await call.chief.add_package_files(files, by=call.by, name=_folder_of(read.package_files))
        if tree.count and read.dataset is None:
            name = read.fields.get("data_name") or "files"
            read.dataset, _ = await call.chief.add_dataset(tree.chunks(), by=call.by, name=name, kind="tree")

    async def _file(self, call: Call, part: Part, read: _Read, tree: TarSpool) -> None:
        filename = part.filename or ""
        if part.name == "package_archive":
            read.package, _ = await call.chief.add_package(part.chunks(), by=call.by, name=filename.split(".")[0] or None)
        elif part.name == "package_files":
            limit = call.chief.limits().get("package_max_bytes", DEFAULT_PACKAGE_BYTES)
            if len(read.package_files) >= MAX_PARTS:
                raise TooLarge("too-many-files", f"A package may have {MAX_PARTS} files.", limit=MAX_PARTS, actual=MAX_PARTS + 1)
            data = await small_part(part, limit - read.package_bytes)
            read.package_bytes += len(data)
            read.package_files[filename] = data
        elif part.name == "data_file":
            name = read.fields.get("data_name") or filename
            read.dataset, _ = await call.chief.add_dataset(part.chunks(), by=call.by, name=name, kind="file")
        elif part.name == "data_files":
            await tree.add(part)

    def endpoints(self) -> list[Endpoint]:
        """The routes."""
        return [
            Endpoint(method="GET", pattern="/jobs/new", handler=self.form, need="submitter", summary="Submit", is_hidden=True),
            Endpoint(
                method="POST", pattern="/jobs/new", handler=self.submit, need="submitter", summary="Submit", is_hidden=True, csrf="later"
            ),
        ]


async def _check_first_part(call: Call, parts: AsyncIterator[Part]) -> None:
    first = await anext(parts, None)
    if first is None or first.name != "csrf":
        raise BadRequest(
            "form-malformed", "The form does not begin with its token.", hint="Load the page again and send the form once more."
        )
    call.auth.check_csrf(call.request, (await small_part(first, 256)).decode(errors="replace").strip())


def _request_of(read: _Read) -> views.JobSubmit:
    """The job that the form asks for. Raises `BadRequest`, `Invalid` or `UsageError`."""
    fields = read.fields
    package = read.package.digest if read.package else fields.get("package", "")
    dataset = read.dataset.digest if read.dataset else fields.get("dataset", "")
    if not package or not dataset:
        what = "package" if not package else "dataset"
        raise BadRequest(f"{what}-missing", f"Choose a {what} or upload one.")
    body: dict[str, Any] = {"package": package, "dataset": dataset}
    body |= {key: fields[key] for key in ("name", "where", "borrow", "priority", "max_fails", "time_limit_s") if fields.get(key)}
    body["yes_foreign"] = fields.get("yes_foreign") == "1"
    if fields.get("memory"):
        body["memory_bytes"] = parse_size_bytes(fields["memory"])
    text = fields.get("params", "")
    if text.startswith("{"):
        body |= params_from_fields({"params": text})
    elif text:
        body["params"] = parse_params(line.strip() for line in text.splitlines() if line.strip())
    return convert_untrusted(body, views.JobSubmit, strict=False)


def _folder_of(files: dict[str, bytes]) -> str | None:
    """The name of the folder that a browser sent, or nil for loose files."""
    tops = {path.split("/", 1)[0] for path in files}
    return tops.pop() if len(tops) == 1 and all("/" in path for path in files) else None
