"""Run one fragment of a job here: the same package, the same input, the same parameters (I/O).

Two ways: in the sandbox as a worker would, or plainly in this process, where a debugger can stop in it. The second gives the package
all rights of the user who calls it, so it is only done when that user asked for it.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from company.client.transport import path_of
from company.errors import ConflictError
from p2p.base.codec import decode_value_untrusted
from p2p.base.record import record

if TYPE_CHECKING:
    from company.client.client import Client
    from company.client.job import Job


@record
class Case:
    """All that one call of ``process`` needs."""

    job: str
    fragment: int
    package_dir: Path
    entry: str  # below processor/
    params: Mapping[str, Any]
    raw_input: bytes  # codec
    time_limit_s: float | None = None  # the job's, where it has its own
    memory_bytes: int | None = None


def fetch(client: Client, job: Job, fragment: int, folder: Path) -> Case:
    """Fetch package and input of one fragment into ``folder``. Raises `NotFoundError` when the input was not kept."""
    from company.package.archive import read_archive_untrusted

    raw_input = job.fragment_input(fragment)
    answer = client.transport.request("GET", path_of("packages", str(job.view["package"]), "archive"))
    archive = folder / "package.zip"
    archive.write_bytes(answer.body)
    package_dir = folder / "package"
    for name, content in read_archive_untrusted(archive, strip=False).items():
        target = package_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return Case(
        job.id, fragment, package_dir, _entry(package_dir), dict(job.view.get("params") or {}), raw_input,
        job.view.get("time_limit_s") or None, job.view.get("memory_bytes") or None,
    )  # fmt: skip


def run_in_sandbox(case: Case) -> Any:
    """Run it as a worker would, with what it prints on standard error. Raises `FragmentsFailed` when it fails here too."""
    from company.one_fragment import run_fragment

    return run_fragment(
        case.package_dir, case.raw_input, case.params, case.fragment, time_limit_s=case.time_limit_s, memory_bytes=case.memory_bytes
    )


def run_in_process(case: Case) -> Any:
    """Run it here, with all rights of this user; an exception passes through as it is."""
    process = load_process(case)
    fragment = decode_value_untrusted(case.raw_input)
    return process(fragment, **accepted(process, case.params))


def load_process(case: Case) -> Any:
    """The package's ``process`` function, imported from its files."""
    folder = case.package_dir / "processor"
    path = folder / case.entry
    if not path.is_file():
        raise ConflictError("no-processor", f"the package has no processor/{case.entry}")
    for place in (str(case.package_dir), str(folder)):
        if place not in sys.path:
            sys.path.insert(0, place)
    spec = importlib.util.spec_from_file_location("processor_main", path)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules["processor_main"] = module
    spec.loader.exec_module(module)
    process = getattr(module, "process", None)
    if not callable(process):
        raise ConflictError("no-processor", f"processor/{case.entry} has no function process")
    return process


def accepted(function: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a function names; all of them when it takes ``**kwargs``."""
    found = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in found):
        return dict(params)
    names = {p.name for p in list(found)[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {key: value for key, value in params.items() if key in names}


def _entry(package_dir: Path) -> str:
    from company.package.manifest import parse_manifest_untrusted

    manifest = package_dir / "package.toml"
    return parse_manifest_untrusted(manifest.read_bytes()).entry if manifest.is_file() else "main.py"
