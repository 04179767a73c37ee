"""A chief as a Python program or the command line sees it: one method per thing it can be asked (I/O through `Transport`).

Methods return the JSON views of `company.views` as plain maps, jobs as `Job`. Not thread-safe: one client per thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import quote

from company.client.address import ChiefAddress, find_chief
from company.client.transport import Transport, path_of
from company.paths import Home
from p2p.base.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from company.client.contracts import ContractsClient
    from company.client.engine_run import EngineRun
    from company.client.job import Job
    from company.client.network import NetworkClient
    from company.client.source import Progress


def _key() -> str:
    """A new idempotency key. `secrets` would bring six modules that a short command needs for nothing else."""
    return os.urandom(16).hex()


class Client:
    """One chief. ``state``: a directory for what must survive this process (unfinished uploads)."""

    def __init__(self, address: ChiefAddress, *, state: Path | None = None) -> None:
        self.transport = Transport(address)
        self._state = state

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.transport.address.url}>"

    def close(self) -> None:
        """Close the connection."""
        self.transport.close()

    @property
    def home(self) -> Path | None:
        """The home that this client belongs to, nil for one that keeps nothing."""
        return self._state.parent if self._state is not None else None

    # -- the company
    def company(self) -> dict[str, Any]:
        """The company itself."""
        return dict(self.transport.json("GET", "/api/v1/company"))

    def doctor(self) -> list[dict[str, Any]]:
        """The chief's checks: id, verdict, text, fix, link."""
        return _items(self.transport.json("GET", "/api/v1/doctor", timeout_s=120.0))

    def explain(self, ref: str) -> list[dict[str, Any]]:
        """Why a job, JOB/FRAGMENT or worker is where it is."""
        return _items(self.transport.json("GET", "/api/v1/explain/" + quote(ref, safe="/")))

    def login_link(self) -> str:
        """A one-time link to the web page, at the address by which this client reaches the chief."""
        return self.transport.address.url + str(self.transport.json("POST", "/api/v1/login-links", {})["path"])

    def stop(self) -> None:
        """Ask the chief to stop."""
        self.transport.request("POST", "/api/v1/admin/stop", body=b"")

    def backup(self, target: Path) -> dict[str, Any]:
        """Have the chief write a backup to a path on its own machine."""
        return dict(self.transport.json("POST", "/api/v1/admin/backup", {"path": str(target)}, timeout_s=3600.0))

    @property
    def contracts(self) -> ContractsClient:
        """Contracts with other companies, and their reputation."""
        from company.client.contracts import ContractsClient

        return ContractsClient(self.transport)

    @property
    def network(self) -> NetworkClient:
        """Other companies: what is known of them, lending, searching."""
        from company.client.network import NetworkClient

        return NetworkClient(self.transport)

    # -- packages
    def upload_package(self, path: Path | str, *, name: str | None = None) -> dict[str, Any]:
        """Check, sign and send a package directory or archive; returns its view with ``new``.

        Signed with this client's own key where the client has a directory to keep one. Raises `InvalidError` or what the check raises.
        """
        from company.client.package_bundle import bundle_of

        bundle = bundle_of(Path(path), name)
        headers = {"Content-Type": "application/zip", "Idempotency-Key": _key()}
        if self._state is not None:
            headers |= bundle.signature_headers(self._state / "identity" / "key")
        query = {"name": bundle.name}
        path_ = "/upload/module-package"
        answer = self.transport.request("POST", path_, query=query, body=bundle.content, headers=headers, timeout_s=300.0)
        return dict(answer.json()) | {"new": answer.status == 201}

    def packages(self) -> dict[str, Any]:
        """All packages."""
        return dict(self.transport.json("GET", "/api/v1/packages"))

    def package(self, ref: str) -> dict[str, Any]:
        """One package, by digest, unique prefix of it, or name."""
        return dict(self.transport.json("GET", path_of("packages", ref)))

    def remove_package(self, ref: str) -> None:
        """Forget a package that no job uses."""
        self.transport.request("DELETE", path_of("packages", ref))

    # -- datasets
    def upload_data(self, path: Path | str, *, name: str | None = None, progress: Progress | None = None) -> dict[str, Any]:
        """Send a file, or a directory as a tree; what is there already is not sent again. Memory stays flat."""
        from company.client.source import open_source
        from company.client.upload import upload_dataset

        source = open_source(Path(path), name)
        state = self._state / "uploads" if self._state is not None else None
        view, created = upload_dataset(self.transport, source, state=state, progress=progress)
        return view | {"new": created}

    def datasets(self) -> dict[str, Any]:
        """All datasets."""
        return dict(self.transport.json("GET", "/api/v1/datasets"))

    def dataset(self, ref: str) -> dict[str, Any]:
        """One dataset, by digest, unique prefix of it, or name."""
        return dict(self.transport.json("GET", path_of("datasets", ref)))

    def mark_dataset(self, ref: str, *, private: bool) -> dict[str, Any]:
        """Mark a dataset private: nothing of it ever leaves the company, whatever a job says. Raises `ConflictError` while one may."""
        return dict(self.transport.json("PATCH", path_of("datasets", ref), {"private": private}))

    def remove_dataset(self, ref: str) -> None:
        """Forget a dataset that no job uses."""
        self.transport.request("DELETE", path_of("datasets", ref))

    # -- jobs
    @overload
    def submit(
        self, package: Path | str, data: Path | str, *, engine: Literal["company"] = ..., params: Mapping[str, Any] | None = ...,
        progress: Progress | None = ..., idempotency_key: str | None = ..., **options: Any,
    ) -> Job: ...  # fmt: skip

    @overload
    def submit(
        self, package: Path | str, data: Path | str, *, engine: Literal["local", "dask", "ray"], address: str | None = ...,
        params: Mapping[str, Any] | None = ..., progress: Progress | None = ..., **options: Any,
    ) -> EngineRun: ...  # fmt: skip

    def submit(
        self, package: Path | str, data: Path | str, *, engine: str = "company", address: str | None = None,
        params: Mapping[str, Any] | None = None, progress: Progress | None = None, idempotency_key: str | None = None, **options: Any,
    ) -> Job | EngineRun:  # fmt: skip
        """Submit a job. ``package`` and ``data``: a path here, or a digest or name at the chief.

        ``options``: the further fields of `company.views.JobSubmit`, such as name, where, priority, max_fails, time_limit_s.
        ``engine``: "local", or "dask" and "ray" with the ``address`` of a cluster of yours: the same package there, without the chief.
        """
        from company.client.job import Job

        if engine != "company":
            from company.client.engine_run import submit_to_engine

            return submit_to_engine(engine, package, data, address=address, params=params, progress=progress, options=options)
        if address is not None:
            raise UsageError("engine-address", "engine 'company' takes no address", hint="connect() to the chief that you mean")
        package_ref, data_ref = str(package), str(data)
        has_package, has_data = is_here(package), is_here(data)  # what is missing is said before anything is sent
        if has_package:
            package_ref = str(self.upload_package(package)["digest"])
        if has_data:
            data_ref = str(self.upload_data(data, progress=progress)["digest"])
        body = {"package": package_ref, "dataset": data_ref, "params": dict(params or {})}
        body |= {key: value for key, value in options.items() if value is not None}
        headers = {"Idempotency-Key": idempotency_key or _key()}
        return Job(self, self.transport.json("POST", "/api/v1/jobs", body, headers=headers))

    def job(self, ref: str = "last") -> Job:
        """One job, by id, unique prefix of it, or "last"."""
        from company.client.job import Job

        return Job(self, self.transport.json("GET", path_of("jobs", ref)))

    def future(self, ref: str) -> Future[Any]:
        """The future with this id (`company.Future.id`), submitted by whatever process: its result waits at the chief."""
        from company.client.future import attach

        return attach(self, ref)

    def jobs(self, *, state: str | None = None, owner: str | None = None, limit: int = 50, offset: int = 0) -> dict[str, Any]:
        """Jobs, newest first: items, total, returned, truncated."""
        query = {"state": state, "owner": owner, "limit": limit, "offset": offset}
        return dict(self.transport.json("GET", "/api/v1/jobs", query=query))

    # -- workers and tokens
    def workers(self) -> dict[str, Any]:
        """All workers."""
        return dict(self.transport.json("GET", "/api/v1/workers"))

    def change_worker(self, ref: str, action: str) -> dict[str, Any]:
        """pause, resume, drain, quarantine, release or rm."""
        if action == "rm":
            self.transport.request("DELETE", path_of("workers", ref))
            return {}
        found = self.transport.json("POST", path_of("workers", ref, action), {})
        return dict(found or {})

    def create_token(self, role: str, *, ttl_s: float = 86400.0, uses: int = 1, label: str = "") -> dict[str, Any]:
        """A new token with its secret, which is shown this once."""
        body = {"role": role, "label": label, "ttl_s": ttl_s, "uses": uses}
        return dict(self.transport.json("POST", "/api/v1/tokens", body, headers={"Idempotency-Key": _key()}))

    def tokens(self) -> dict[str, Any]:
        """All tokens, without secrets."""
        return dict(self.transport.json("GET", "/api/v1/tokens"))

    def revoke_token(self, token_id: str) -> None:
        """End a token."""
        self.transport.request("DELETE", path_of("tokens", token_id))


def connect(url: str | None = None, token: str | None = None, *, home: Path | str | None = None) -> Client:
    """A client of the chief at ``url``, or of the one found by $COMPANY_URL, this home or `company login`.

    Raises `ChiefUnreachable` when none is known; the first call finds out whether it answers.
    """
    environ = dict(os.environ)
    if token is not None:
        environ["COMPANY_TOKEN"] = token
    place = Home.locate(home, environ).root
    return Client(find_chief(place, environ, url=url), state=place / "client")


def is_here(what: Path | str) -> bool:
    """Whether a path of this machine is meant. Raises `UsageError` for one that is written as a path and is not there."""
    if isinstance(what, Path) or Path(what).exists():
        if not Path(what).exists():
            raise UsageError("no-such-path", f"{what} is not there")
        return True
    if what.startswith((".", "/", "~")) or "/" in what:
        raise UsageError("no-such-path", f"{what} is not there", hint="a name or digest at the chief has no slash")
    return False


def _items(found: Any) -> list[dict[str, Any]]:
    return list(found["items"] if isinstance(found, Mapping) else found)


def pick(items: Iterable[dict[str, Any]], ref: str, *, key: str = "id") -> list[dict[str, Any]]:
    """The items whose ``key`` or name is ``ref`` or whose ``key`` begins with it."""
    found = list(items)
    exact = [item for item in found if ref in (item.get(key), item.get("name"))]
    return exact or [item for item in found if str(item.get(key, "")).startswith(ref)]
