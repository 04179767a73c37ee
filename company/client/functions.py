"""How a function travels: as the source of its modules where that can be, otherwise by cloudpickle, to own workers only (I/O).

A function of an importable module is named, and the module's source goes along in the package that the executor makes; a function of the
script itself, a lambda or a closure goes by value. What lies in site-packages is not sent: its distributions become the package's
requirements, at exactly the versions that are imported here, so that a difference is found when the job is submitted and not when it runs.
"""

from __future__ import annotations

import hashlib
import pickletools
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from company.client.imports import imports_of, paths_of
from company.package.functions import SourceError, parse_source_untrusted
from p2p.base.errors import UsageError
from p2p.base.record import record

MAX_SOURCE_BYTES = 8 << 20  # of all local modules together
MAX_SCANNED_BYTES = 4 << 20
MAX_FILES = 2000
ENTRY = "calls_entry.py"
_PROVIDED = frozenset(("company", "p2p", "numpy", "msgpack", "cloudpickle"))
_PLACES = ("site-packages", "dist-packages")
_STUB_SPLIT = b"def split(data):\n    yield from ()\n"
_STUB_MERGE = b"def merge(results, output):\n    return None\n"


class NotPortable(UsageError):
    """Something that cannot travel the way that was asked for. ``facts["value"]``: which."""


@dataclass(slots=True)
class Needs:
    """What a function needs where it runs. ``files``: sources, by path below processor/; ``requirements``: pinned distributions."""

    files: dict[str, bytes] = field(default_factory=dict)
    requirements: set[str] = field(default_factory=set)

    def covers(self, other: Needs) -> bool:
        """Whether everything of ``other`` is here, the same."""
        return other.requirements <= self.requirements and all(self.files.get(p) == c for p, c in other.files.items())

    def add(self, other: Needs) -> None:
        """Take what ``other`` has."""
        self.files |= other.files
        self.requirements |= other.requirements


@record
class Portable:
    """A function ready to travel. ``source``: a pickle, or "module:name" where no pickle may be used."""

    key: bytes
    source: bytes | str
    needs: Needs


def portable(fn: Callable[..., Any], *, safe: bool = False) -> Portable:
    """Make ``fn`` travel. ``safe``: without pickle, as strangers' workers get it. Raises `NotPortable`."""
    if safe:
        return _by_name(fn)
    source = dumps(fn)
    return Portable(hashlib.blake2b(source, digest_size=16).digest(), source, needs_of(module_names(source)))


def needs_of(modules: Iterable[str]) -> Needs:
    """What these modules need where they are imported. Raises `NotPortable` for one that cannot travel."""
    needs = Needs()
    _gather(set(modules), needs)
    return needs


def dumps(value: Any) -> bytes:
    """Pickle by cloudpickle. Raises `NotPortable` naming the value."""
    import cloudpickle

    try:
        packed: bytes = cloudpickle.dumps(value, 5)
    except Exception as error:
        text = f"{_named(value)} cannot be sent to a worker: {type(error).__name__}: {error}"
        raise NotPortable("not-picklable", text[:1000], value=_named(value)) from error
    return packed


def _by_name(fn: Callable[..., Any]) -> Portable:
    module_name, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "")
    module = sys.modules.get(str(module_name))
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if module is None or found is not fn:
        text = f"{_named(fn)} can only be sent by pickle, which goes to own workers alone; strangers' workers get a function of a module"
        raise NotPortable("needs-pickle", text, hint="move it to the top level of a module, or say where='own'", value=_named(fn))
    if module_name == "__main__":
        text = f"{_named(fn)} is defined in the script itself, which can only be sent by pickle, to own workers alone"
        raise NotPortable("needs-pickle", text, hint="move it into a module beside the script", value=_named(fn))
    source = f"{module_name}:{name}"
    return Portable(hashlib.blake2b(source.encode(), digest_size=16).digest(), source, needs_of([str(module_name)]))


def check_safe(value: Any, where: str) -> None:
    """Raise `NotPortable` naming the part of ``value`` that the codec cannot carry; ``where``: what it is called."""
    from p2p.base.codec import CodecError, encode_value

    try:
        encode_value(value)
        return
    except CodecError as error:
        parts: Iterable[tuple[str, Any]] = ()
        if type(value) in (list, tuple):
            parts = ((f"{where}[{i}]", item) for i, item in enumerate(value))
        elif type(value) is dict:
            parts = ((f"{where}[{key!r}]", item) for key, item in value.items())
        for name, item in parts:
            check_safe(item, name)
        text = f"{where}: {error}; only pickle can carry it, and pickle goes to own workers alone"
        raise NotPortable("needs-pickle", text, hint="say where='own'", value=where) from None


# ---- modules ----------------------------------------------------------------------------------------------------------
def module_names(packed: bytes) -> set[str]:
    """The imported modules that opening a pickle would import: those of its globals, and those that cloudpickle imports by name.

    Only these: the ``__module__`` that a function by value carries along is a word, and what that module imports is not needed.
    """
    found: set[str] = set()
    strings: list[str] = []  # in the order in which they come onto the stack; what is fetched from the memo comes again
    memo: dict[int, str] = {}
    last = ""  # the string that was pushed by the opcode before
    is_import = False
    try:
        for opcode, argument, _ in pickletools.genops(packed[:MAX_SCANNED_BYTES]):
            name = opcode.name
            if name == "MEMOIZE":
                memo[len(memo)] = last
                continue
            last = ""
            if type(argument) is str and "UNICODE" in name:
                last = argument
            elif name in ("BINGET", "LONG_BINGET"):
                last = memo.get(int(argument or 0), "")
            elif name == "STACK_GLOBAL" and len(strings) >= 2:
                found.add(strings[-2])
                is_import = strings[-1] == "subimport"
                strings.clear()
                last = "\0subimport" if is_import else ""  # as a memo entry it stands for the function
            elif name == "GLOBAL":
                found.add(str(argument).split(" ")[0])
            if last == "\0subimport":
                is_import = True
            elif last:
                if is_import:
                    found.add(last)
                    is_import = False
                strings.append(last)
    except ValueError:  # cut off above
        pass
    return {name for name in found if name in sys.modules}


def _gather(names: set[str], needs: Needs) -> None:
    """Add what the modules ``names`` need: all files of local packages, the requirements of what is imported from there in turn.

    Requirements only by way of imports: a package's web server may need twenty distributions, and its arithmetic none.
    """
    waiting, seen, read = sorted(names), set[str](), set[str]()
    by_top: dict[str, dict[str, bytes]] = {}
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in seen or top in sys.stdlib_module_names or top in _PROVIDED or top == "__main__":
            continue
        seen.add(name)
        module = sys.modules.get(top) or _find(top)
        if module is None:
            continue
        if _is_installed(module):
            requirement = _distribution_of(top)
            if requirement:
                needs.requirements.add(requirement)
            continue
        if not getattr(module, "__file__", None):  # a namespace package: only what is named, it may hold anything
            files = _one_module(name)
        else:
            files = by_top.get(top) or by_top.setdefault(top, _sources(top, module))
        needs.files.update(files)
        for inside, path, is_package in paths_of(name, files):
            if path not in read:
                read.add(path)
                try:
                    waiting += imports_of(parse_source_untrusted(files[path]), inside, is_package=is_package)
                except SourceError:
                    continue
    if sum(map(len, needs.files.values())) > MAX_SOURCE_BYTES or len(needs.files) > MAX_FILES:
        text = f"the local modules that the function needs have more than {MAX_SOURCE_BYTES >> 20} MiB of source"
        raise NotPortable("too-much-source", text, hint="install them as a distribution", value=", ".join(sorted(seen))[:300])


def _find(top: str) -> ModuleType | None:
    """A module that a local one imports and that is not imported here yet, without running it."""
    import importlib.util

    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    made = ModuleType(top)
    made.__file__ = spec.origin
    made.__path__ = list(spec.submodule_search_locations or ())
    if not made.__path__:
        del made.__path__
    return made


def _is_installed(module: ModuleType) -> bool:
    places = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
    return any(part in _PLACES for place in places for part in Path(place).parts)


def _one_module(name: str) -> dict[str, bytes]:
    """The file of one module of a namespace package."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if not file or not file.endswith(".py"):
        return {}
    path = name.replace(".", "/")
    return {f"{path}/__init__.py" if file.endswith("__init__.py") else f"{path}.py": Path(file).read_bytes()}


def _sources(top: str, module: ModuleType) -> dict[str, bytes]:
    """The Python files of one local module or package, by path below the import folder."""
    folders = [Path(place) for place in getattr(module, "__path__", ())]
    file = getattr(module, "__file__", None)
    if folders:
        found: dict[str, bytes] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*.py")):
                found[str(Path(top) / path.relative_to(folder))] = path.read_bytes()
                if len(found) > MAX_FILES:
                    break
        return found
    if file and file.endswith(".py") and Path(file).is_file():
        return {f"{top}.py": Path(file).read_bytes()}
    text = f"module {top} has no Python source here, so it cannot be sent along"
    raise NotPortable("no-source", text, hint="install it where the workers run, as a distribution", value=top)


_by_module: dict[str, list[str]] = {}


def _distribution_of(top: str) -> str:
    """``name==version`` of the distribution that carries module ``top``, "" where none says so."""
    from importlib import metadata

    if not _by_module:
        _by_module.update(metadata.packages_distributions())
    for name in _by_module.get(top, ()):
        return f"{name}=={metadata.version(name)}"
    return ""


# ---- the package ------------------------------------------------------------------------------------------------------
def package_files(
    needs: Needs, functions: Mapping[bytes, bytes], *, name: str, memory: str | None, time_limit_s: float | None, processes: int = 0
) -> dict[str, bytes]:
    """The module package that runs calls: our entry, cloudpickle, the sources, and functions that are too large for each fragment."""
    import cloudpickle

    own = Path(cloudpickle.__file__).parent
    files = {f"processor/cloudpickle/{p}": (own / p).read_bytes() for p in ("__init__.py", "cloudpickle.py")}
    files |= {f"processor/{path}": content for path, content in needs.files.items()}
    files |= {f"processor/call_{key.hex()}.bin": content for key, content in functions.items()}
    entry = (Path(__file__).parent / ENTRY).read_bytes()
    listed = ", ".join(f'"{r}"' for r in sorted(needs.requirements))
    lines = [
        f'name = "{name}"',
        f'entry = "{ENTRY}"',
        f'python = "=={sys.version_info[0]}.{sys.version_info[1]}.*"',
        f"requirements = [{listed}]",
    ]
    lines += [f'memory = "{memory}"'] if memory else []
    lines += [f'time_limit = "{time_limit_s:g}s"'] if time_limit_s else []
    lines += [f"processes = {processes}"] if processes else []
    return files | {
        f"processor/{ENTRY}": entry, "split.py": _STUB_SPLIT, "merge.py": _STUB_MERGE, "package.toml": ("\n".join(lines) + "\n").encode(),
    }  # fmt: skip


def _named(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{getattr(value, '__module__', '?')}.{name}"
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}"
