"""Style sheets and scripts, read once at start; the list of files is closed, so no path can lead elsewhere (I/O: reads files at start)."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from company.chief.api.gate import Call, Endpoint
from company.chief.facade import NotFound
from p2p.net.http_types import Response

_FILES = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "vendor/htmx/htmx.min.js": "text/javascript; charset=utf-8",
    "vendor/htmx/LICENSE": "text/plain; charset=utf-8",
    "vendor/pico/pico.min.css": "text/css; charset=utf-8",
    "vendor/pico/LICENSE.md": "text/plain; charset=utf-8",
}
# three bars of a progress chart; here, since a file of its own would be the only one of its kind to be packaged
_ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="#0b7a75"><rect x="1" y="2" width="14" height="3"/>'
    b'<rect x="1" y="6.5" width="10" height="3"/><rect x="1" y="11" width="6" height="3"/></svg>'
)


class StaticFiles:
    """The files of the page, in memory (130 KiB)."""

    def __init__(self) -> None:
        root = files("company.web") / "static"
        self._contents = {name: root.joinpath(*name.split("/")).read_bytes() for name in _FILES}
        self._contents["icon.svg"] = _ICON
        self._types = {**_FILES, "icon.svg": "image/svg+xml"}
        self._tags = {name: f'"{hashlib.sha256(data).hexdigest()[:32]}"' for name, data in self._contents.items()}

    def address(self, name: str) -> str:
        """Where a page finds the file: with its digest, so that a new version is never mistaken for the old one."""
        return f"/static/{name}?v={self._tags[name][1:13]}"

    async def file(self, call: Call) -> Response:
        """One file; a browser asks again only for what changed."""
        name = call.arg("name")
        data = self._contents.get(name)
        if data is None:
            raise NotFound("file-unknown", f"No file {name[:100]!r}.")
        headers = {"ETag": self._tags[name], "Cache-Control": "public, max-age=3600"}
        if self._tags[name] in call.request.headers.get("If-None-Match", ""):
            return Response(304, headers, b"", self._types[name])
        return Response(200, headers, data, self._types[name])

    def endpoints(self) -> list[Endpoint]:
        """The routes."""
        return [Endpoint(method="GET", pattern="/static/{name:.+}", handler=self.file, need="open", summary="Static file", is_hidden=True)]
