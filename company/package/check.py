"""Whether a package can work, before anything of it runs (pure).

Everything is read from the files: nothing is imported. All faults are reported at once, each with its file and line; what may be
meant but looks odd becomes a warning.
"""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Mapping
from typing import Any

from packaging.requirements import Requirement

from company.package.digests import MAX_PROCESSOR_BYTES, files_digest, processor_archive, processor_digest
from company.package.errors import PackageInvalid, TooLarge
from company.package.functions import Function, SourceError, find_functions, imported_modules, parse_source_untrusted
from company.package.manifest import Manifest, ManifestError, parse_manifest_untrusted
from company.package.paths import largest_text, size_text
from p2p.base.errors import UsageError
from p2p.base.record import record

MAX_PARSED_BYTES = 16 << 20  # of Python source; the rest is not looked at
OFFERED = frozenset(("numpy", "msgpack", "company"))  # importable in every sandbox
_ROLES = {"split": ("data",), "count": ("data",), "merge": ("results", "output"), "same": ("a", "b"), "process": ("fragment",)}


@record(kw_only=True)
class PackageInfo:
    """A package that passed the check."""

    name: str
    version: str
    python: str  # PEP 440 specifier, "" accepts any
    requirements: tuple[str, ...]
    memory_bytes: int
    time_limit_s: float  # per call of process
    entry: str  # path in the package: processor/main.py
    split_path: str  # split.py or Split.py
    processes: int  # how many processes a fragment may start; 0: none
    functions: tuple[str, ...]  # found among split count process merge same
    params: Mapping[str, tuple[str, ...]]  # per function: the job parameters it names
    required: Mapping[str, frozenset[str]]  # per function: those without a default
    accepts_any: frozenset[str]  # functions that take any parameter
    warnings: tuple[str, ...]
    size_bytes: int
    files: tuple[tuple[str, int], ...]  # path and size
    digest: bytes
    processor_digest: bytes


class _Report:
    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def error(self, path: str, line: int | None, detail: str) -> None:
        self.errors.append({"path": path, "line": line, "detail": detail})


def check_package(files: Mapping[str, bytes], *, default_name: str = "package", warnings: tuple[str, ...] = ()) -> PackageInfo:
    """Check the files of a package. ``default_name`` serves where package.toml gives none; ``warnings`` are those of reading.

    Raises `PackageInvalid` with every fault, or `TooLarge` for a processor that does not fit into one message.
    """
    report = _Report()
    manifest = _manifest(files, report)
    split_path = "Split.py" if "Split.py" in files and "split.py" not in files else "split.py"
    entry = "processor/" + manifest.entry
    trees = _parse_all(files, (split_path, "merge.py", entry), report)
    found: dict[str, Function] = {}
    for path, needed, optional in ((split_path, "split", ("count",)), ("merge.py", "merge", ("same",)), (entry, "process", ())):
        found |= _functions(path, needed, optional, files, trees, report)
    _warn_of_imports(files, trees, manifest, report)
    if report.errors:
        raise PackageInvalid(report.errors)
    _check_processor_size(files)
    return PackageInfo(
        name=manifest.name or default_name, version=manifest.version, python=manifest.python, requirements=manifest.requirements,
        memory_bytes=manifest.memory_bytes, time_limit_s=manifest.time_limit_s, processes=manifest.processes,
        entry=entry, split_path=split_path,
        functions=tuple(found),
        params={name: f.params[len(_ROLES[name]) :] for name, f in found.items()},
        required={name: f.required.intersection(f.params[len(_ROLES[name]) :]) for name, f in found.items()},
        accepts_any=frozenset(name for name, f in found.items() if f.accepts_any),
        warnings=(*warnings, *report.warnings), size_bytes=sum(map(len, files.values())),
        files=tuple((path, len(files[path])) for path in sorted(files)),
        digest=files_digest(files), processor_digest=processor_digest(files),
    )  # fmt: skip


def check_params(info: PackageInfo, params: Mapping[str, Any]) -> None:
    """Refuse parameters that no function names, and missing ones. Raises `UsageError` unknown-parameter or missing-parameter."""
    known = sorted({name for names in info.params.values() for name in names})
    for name in params:
        if name not in known and not info.accepts_any:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else ("it knows " + ", ".join(known) if known else "it takes none")
            raise UsageError("unknown-parameter", f"package {info.name} has no parameter {name!r}", hint=hint, parameter=name, known=known)
    for function, required in info.required.items():
        for name in sorted(required):
            if name not in params:
                text = f"{function} needs parameter {name!r}"
                raise UsageError("missing-parameter", text, hint=f"add -p {name}=…", parameter=name, function=function)


def _manifest(files: Mapping[str, bytes], report: _Report) -> Manifest:
    content = files.get("package.toml")
    if content is None:
        return Manifest()
    try:
        return parse_manifest_untrusted(content)
    except ManifestError as error:
        for line, detail in error.faults:
            report.error("package.toml", line, detail)
        return Manifest()


def _parse_all(files: Mapping[str, bytes], needed: tuple[str, ...], report: _Report) -> dict[str, ast.Module]:
    trees: dict[str, ast.Module] = {}
    room = MAX_PARSED_BYTES
    paths = [path for path in needed if path in files] + sorted(path for path in files if path.endswith(".py") and path not in needed)
    for path in paths:
        room -= len(files[path])
        if room < 0:
            report.warnings.append(f"more than {size_text(MAX_PARSED_BYTES)} of Python source; {path} and what follows was not checked")
            break
        try:
            trees[path] = parse_source_untrusted(files[path])
        except SourceError as error:
            report.error(path, error.line, error.detail)
    return trees


def _functions(
    path: str, needed: str, optional: tuple[str, ...], files: Mapping[str, bytes], trees: Mapping[str, ast.Module], report: _Report
) -> dict[str, Function]:
    if path not in files:
        near = difflib.get_close_matches(path, files, n=1, cutoff=0.7)
        report.error(path, None, f"this file is missing; it must define {_form(needed)}" + (f"; there is {near[0]}" if near else ""))
        return {}
    if path not in trees:
        return {}  # its syntax error is in the report
    found = find_functions(trees[path], path, (needed, *optional))
    if needed not in found:
        report.error(path, None, f"it does not define {_form(needed)}")
    for function in found.values():
        _check_signature(function, report)
    return found


def _form(name: str) -> str:
    more = "" if name == "same" else ", **params"
    return f"{name}({', '.join(_ROLES[name])}{more})"


def _check_signature(function: Function, report: _Report) -> None:
    if not function.is_checked:
        where = f"{function.path}, line {function.line}"
        report.warnings.append(f"{where}: {function.name} is not defined by def, so its parameters were not checked")
        return
    name, path, line = function.name, function.path, function.line
    given = len(_ROLES[name])
    if function.positional < given and not function.has_varargs:
        has = f"({', '.join(function.params)})"
        many = "argument" if given == 1 else "arguments"
        report.error(path, line, f"{name} must accept {given} positional {many}, as in {_form(name)}; it has {has}")
    if function.positional_only.intersection(function.params[given:]):
        report.error(path, line, f"{name}: the job's parameters are given by name; no more than {given} may be positional-only")
    if name == "same" and function.required.difference(function.params[:2]):
        report.error(path, line, "same is called with two results and nothing else")
    if function.is_async:
        report.error(path, line, f"{name} must be an ordinary function; write def instead of async def")
        return
    if name in ("process", "count", "same", "merge") and function.is_generator:
        report.error(path, line, f"{name} must return its value, but it contains yield")
    elif name == "split" and not function.is_generator and not function.returns_value:
        report.error(path, line, "split must yield fragments, or return an iterable of them")
    elif name in ("count", "same") and not function.returns_value:
        report.error(path, line, f"{name} must return a value")
    elif name == "process" and not function.returns_value:
        report.warnings.append(f"{path}, line {line}: process returns nothing, so every result will be None")


def _warn_of_imports(files: Mapping[str, bytes], trees: Mapping[str, ast.Module], manifest: Manifest, report: _Report) -> None:
    own = {path.split("/")[-1].removesuffix(".py") for path in files if path.endswith(".py")}
    own |= {folder for path in files for folder in path.split("/")[:-1]}
    asked = {Requirement(text).name.lower().replace("-", "_").replace(".", "_") for text in manifest.requirements}
    warned: set[str] = set()
    for path, tree in trees.items():
        for module, line in imported_modules(tree).items():
            if module in sys.stdlib_module_names or module in OFFERED or module in own or module.lower() in asked or module in warned:
                continue
            if asked:  # a distribution may carry a module of another name (scikit-learn: sklearn), so this is all that can be said
                continue
            warned.add(module)
            report.warnings.append(f"{path}, line {line}: imports {module}, which is in no requirement of package.toml")


def _check_processor_size(files: Mapping[str, bytes]) -> None:
    size = len(processor_archive(files))
    if size > MAX_PROCESSOR_BYTES:
        largest = sorted(((p, len(d)) for p, d in files.items() if p.startswith("processor/")), key=lambda item: (-item[1], item[0]))[:5]
        text = f"the processor packs to {size_text(size)}, the limit is {size_text(MAX_PROCESSOR_BYTES)}; put large data into the dataset"
        text += f"; largest files: {largest_text(largest)}"
        raise TooLarge("package-too-large", text, limit=MAX_PROCESSOR_BYTES, actual=size, largest=[list(item) for item in largest])
