"""What runs a client's calls inside the sandbox: shipped as the processor of the package that an executor makes (I/O).

Needs the standard library alone, and cloudpickle (shipped beside it) for what was pickled by value. Pickles are opened here, in a sandbox
of the company that sent them, and nowhere else but by the client that gets its own results back. An exception of a call is a result of
that call: its neighbours in the same fragment keep theirs.
"""

from __future__ import annotations

import importlib
import io
import pickle
import reprlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ONE, STAR, FULL = 0, 1, 2  # fn(x), fn(*args), fn(*args, **kwargs)
SAFE, ECHO = 8, 16  # values by the codec, no pickle; what is printed comes back with the result
SLICED = 32  # calls that take longer than was thought are left for another fragment: fewer values come back than calls came
SLICE_NS = 500_000_000  # twice what the longest chunk is to take
STEP_NS, MAX_STEP = 1_000_000, 256  # between two looks at the clock
MAX_FUNCTIONS = 64
MAX_TEXT = 12_000
_functions: dict[bytes, Callable[..., Any]] = {}


def process(fragment: list[Any]) -> list[Any]:
    """Run the calls of one fragment: ``[key, function, kind, payload]`` gives ``[ns, failed positions, payload, printed]``."""
    key, source, kind, payload = fragment
    printed = io.StringIO()
    before = sys.stdout
    if kind & ECHO:
        sys.stdout = printed
    started = time.monotonic_ns()
    try:
        fn = _function(key, source, bool(kind & SAFE))
        calls = payload if kind & SAFE else pickle.loads(payload)
    except BaseException as error:  # noqa: BLE001 - told to every call of the fragment
        return [time.monotonic_ns() - started, None, _told(error, None, safe=bool(kind & SAFE)), printed.getvalue()]
    finally:
        sys.stdout = before
    if kind & ECHO:
        sys.stdout = printed
    try:
        until = started + SLICE_NS if kind & SLICED else None
        values, failed = _run(fn, kind & 3, calls, until, safe=bool(kind & SAFE))
    finally:
        sys.stdout = before
    took = time.monotonic_ns() - started
    return [took, failed, values if kind & SAFE else _pickled(values, failed), printed.getvalue()]


def _function(key: bytes, source: Any, safe: bool) -> Callable[..., Any]:
    fn = _functions.get(key)
    if fn is None:
        if source is None:
            source = (Path(__file__).parent / f"call_{key.hex()}.bin").read_bytes()
        if safe:
            module, _, name = (source if isinstance(source, str) else source.decode()).partition(":")
            fn = importlib.import_module(module)  # type: ignore[assignment]
            for part in name.split("."):
                fn = getattr(fn, part)
        else:
            fn = pickle.loads(source)
        assert fn is not None
        if len(_functions) >= MAX_FUNCTIONS:
            _functions.pop(next(iter(_functions)))
        _functions[key] = fn
    return fn


def _run(fn: Callable[..., Any], kind: int, calls: list[Any], until_ns: int | None, *, safe: bool) -> tuple[list[Any], list[int]]:
    """The values, with what is told of a failure in the place of those that failed. ``until_ns``: begin no call after it."""
    values: list[Any] = []
    add = values.append
    failed: list[int] = []
    step = len(calls) if until_ns is None else 1
    looked_ns = 0
    while len(values) < len(calls):
        part = calls[len(values) : len(values) + step]
        try:
            if kind == ONE:
                for call in part:
                    add(fn(call))
            elif kind == STAR:
                for call in part:
                    add(fn(*call))
            else:
                for args, kwargs in part:
                    add(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - SystemExit and its kind are this call's failure, too
            failed.append(len(values))
            add(_told(error, calls[len(values)], safe=safe))
        if until_ns is not None:
            now_ns = time.monotonic_ns()
            if now_ns >= until_ns:
                break
            step = min(2 * step, MAX_STEP) if now_ns - looked_ns < STEP_NS else 1
            looked_ns = now_ns
    return values, failed


def _told(error: BaseException, call: Any, *, safe: bool) -> list[Any]:
    """What the client learns of an exception: itself where it can be pickled, and its words."""
    packed = b""
    if not safe:
        try:
            packed = _dumps(error)
            pickle.loads(packed)  # many exceptions can be pickled and not opened again
        except BaseException:  # noqa: BLE001 - then its words must do
            packed = b""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)[:MAX_TEXT]
    except BaseException:  # noqa: BLE001 - a stranger's __str__
        message = "(its text could not be made)"
    return [packed, name, message, _traceback(error), _short(call)]


def _traceback(error: BaseException) -> str:
    try:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__ and "/company/sandbox/" not in f.filename]
        text = "".join(traceback.format_exception(type(error), error, None))
        lines = "Traceback (most recent call last):\n" + "".join(traceback.format_list(frames)) + text
        return lines[-MAX_TEXT:] + _locals(error)
    except BaseException as trouble:  # noqa: BLE001 - a stranger's objects
        return f"(no traceback: {type(trouble).__name__})"


def _locals(error: BaseException) -> str:
    """The variables of the innermost frame, shortened."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None or at.tb_frame.f_code.co_filename == __file__:
        return ""
    known = [f"  {name} = {_short(value)}" for name, value in list(at.tb_frame.f_locals.items())[:20] if not name.startswith("__")]
    return "Local variables where it was raised:\n" + "\n".join(known) + "\n" if known else ""


def _short(value: Any) -> str:
    shape = reprlib.Repr()
    shape.maxstring = shape.maxother = 200
    try:
        return shape.repr(value)[:400]
    except BaseException as error:  # noqa: BLE001 - a stranger's __repr__
        return f"(no repr: {type(error).__name__})"


def _dumps(value: Any) -> bytes:
    try:
        return pickle.dumps(value, 5)
    except Exception:  # noqa: BLE001 - classes of a script, lambdas: by value
        cloudpickle = importlib.import_module("cloudpickle")
        packed: bytes = cloudpickle.dumps(value, 5)
        return packed


def _pickled(values: list[Any], failed: list[int]) -> bytes:
    try:
        return _dumps(values)
    except Exception:  # noqa: BLE001 - one of them cannot travel: find out which
        for at, value in enumerate(values):
            if at not in failed:
                try:
                    _dumps(value)
                except Exception as error:  # noqa: BLE001
                    failed.append(at)
                    values[at] = _told(TypeError(f"the result cannot be pickled: {error}"), value, safe=False)
        return _dumps(values)
