"""A module package inside the sandbox: its files, its functions, its parameters, its tracebacks (I/O)."""

from __future__ import annotations

import functools
import os
import reprlib
import sys
import traceback  # now, although it is a third of what is imported: where memory is exhausted it could not be imported any more
import types
from _frozen_importlib import module_from_spec  # what importlib.util has, without all that it imports
from _frozen_importlib_external import spec_from_file_location

from company.sandbox.inside import reserve

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

MAX_TRACEBACK_BYTES = 12 << 10
MAX_MESSAGE_CHARS = 1000
_NAMES = ("split", "count", "process", "merge", "same")
_VAR_KEYWORDS = 0x08


class PackageError(Exception):
    """The package is not as it should be; the text says what is missing."""


def write_files(root: str, items: Sequence[bytes]) -> None:
    """Lay the package's files out under ``root``. items: path, content, path, content, …"""
    for path, content in zip(items[::2], items[1::2], strict=True):
        name = path.decode()
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise PackageError(f"refused the file name {name!r}")
        target = os.path.join(root, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content)


def import_module(root: str, role: str, entry: str) -> types.ModuleType:
    """Import the module of this role: split.py or Split.py, processor/<entry>, merge.py."""
    processor = os.path.join(root, "processor")
    if role == "process":
        sys.path[:0] = [processor, root]
        return _import_file(processor, (entry,))
    sys.path[:0] = [root, processor]
    names = ("split.py", "Split.py") if role == "split" else ("merge.py", "Merge.py")
    return _import_file(root, names)


def _import_file(folder: str, names: Sequence[str]) -> types.ModuleType:
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return _load_as(name[:-3].replace("/", "."), path)
    raise PackageError(f"the package has no {names[0] if len(names) == 1 else ' or '.join(names)}")


def _load_as(name: str, path: str) -> types.ModuleType:
    """Import one file under its own name, whatever else on the path is called so."""
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PackageError(f"{os.path.basename(path)} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def functions_of(module: types.ModuleType) -> list[str]:
    """Which of the agreed names this module has."""
    return [name for name in _NAMES if callable(getattr(module, name, None))]


def function(module: types.ModuleType, name: str) -> Callable[..., Any]:
    """The function ``name``. Raises `PackageError` in the user's words."""
    found = getattr(module, name, None)
    if not callable(found):
        raise PackageError(f"{os.path.basename(module.__file__ or '?')} has no function {name}")
    return found  # type: ignore[no-any-return]


def bind(fn: Callable[..., Any], params: Mapping[str, Any], *, positional: int) -> Callable[..., Any]:
    """``fn`` with the parameters it names; its first ``positional`` arguments stay open."""
    named, takes_all = _parameters(fn, positional)
    kept = {k: v for k, v in params.items() if takes_all or k in named}
    return functools.partial(fn, **kept) if kept else fn


def positional_count(fn: Callable[..., Any]) -> int:
    """How many arguments ``fn`` takes by position; 99 for ``*args``."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return 99
    return 99 if code.co_flags & 0x04 else int(code.co_argcount)


def _parameters(fn: Callable[..., Any], positional: int) -> tuple[frozenset[str], bool]:
    code = getattr(fn, "__code__", None)
    if code is not None and isinstance(fn, types.FunctionType) and not hasattr(fn, "__wrapped__"):
        names = code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
        skip = max(0, positional - code.co_posonlyargcount)
        return frozenset(names[skip:]), bool(code.co_flags & _VAR_KEYWORDS)
    import inspect  # 10 ms; only for callables that are not plain functions

    parameters = list(inspect.signature(fn).parameters.values())
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return frozenset(p.name for p in parameters[positional:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)), takes_all


def describe(error: BaseException, root: str) -> tuple[str, str, str]:
    """(type, message, traceback) of an exception, as its author should see it: without our frames."""
    reserve.give_up()
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)[:MAX_MESSAGE_CHARS]
    except BaseException:  # noqa: BLE001 - str() of a stranger's exception is a stranger's code
        message = "(its text could not be made)"
    if kind is MemoryError and not message:
        message = "the fragment needs more memory than its limit"
    try:
        text = _traceback(error, root)
    except BaseException:  # noqa: BLE001
        text = f"{name}: {message}\n"
    return name, message, text


def _traceback(error: BaseException, root: str) -> str:
    told = traceback.TracebackException.from_exception(error, limit=-60, compact=True)
    ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    hidden = (ours + "/company/", ours + "/p2p/", "<frozen importlib", "<string>")
    seen: set[int] = set()
    queue: list[traceback.TracebackException | None] = [told]
    while queue:
        one = queue.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(hidden)]
        for frame in one.stack:
            frame.filename = frame.filename.removeprefix(root + "/")
        queue += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
    text = "".join(told.format())
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) > MAX_TRACEBACK_BYTES:  # the end says most
        text = "…" + raw[-MAX_TRACEBACK_BYTES:].decode("utf-8", "replace")
    return text


def preview(value: Any, max_bytes: int) -> str:
    """The beginning of a value's repr."""
    shape = reprlib.Repr()
    shape.maxstring = shape.maxother = max_bytes
    shape.maxlist = shape.maxtuple = shape.maxdict = shape.maxset = 20
    try:
        return shape.repr(value)[:max_bytes]
    except BaseException as error:  # noqa: BLE001 - repr() of a stranger's value
        return f"(no preview: {type(error).__name__})"
