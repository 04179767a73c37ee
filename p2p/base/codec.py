"""Values as bytes: what fragments, results and parameters are made of (pure).

msgpack with extension types for what Python has and msgpack lacks. Type and value survive the trip: a tuple stays a tuple,
an int of any size stays exact, an array keeps dtype and shape. Never pickle. The sandboxed child imports this file alone
with msgpack, so it may import nothing else of ours at module level, and numpy only when an array is met.
"""

from __future__ import annotations

import msgpack

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_DEPTH = 64  # nesting across containers and extension types; msgpack's C packer stops at 511 of its own
MAX_BIGINT_BYTES = 1 << 20

_TUPLE, _BIGINT, _COMPLEX, _DECIMAL, _SET, _FROZENSET, _DATE, _DATETIME, _TIME, _TIMEDELTA, _ARRAY, _SCALAR = range(1, 13)


class CodecError(TypeError):
    """A value that cannot travel, named by its type."""


def _sub(value: Any, depth: int) -> bytes:
    if depth >= MAX_DEPTH:
        raise CodecError(f"value is nested deeper than {MAX_DEPTH} levels")
    packed: bytes = msgpack.packb(value, default=_default_at(depth + 1), strict_types=True, use_bin_type=True)
    return packed


def _default_at(depth: int) -> Callable[[Any], Any]:
    def default(value: Any) -> Any:
        return _extension(value, depth)

    return default


def _extension(value: Any, depth: int) -> Any:
    kind = type(value)
    ext = msgpack.ExtType
    if kind is tuple:
        return ext(_TUPLE, _sub(list(value), depth))
    if kind is int:
        length = (value.bit_length() + 8) // 8
        if length > MAX_BIGINT_BYTES:
            raise CodecError(f"int of {length} bytes; the limit is {MAX_BIGINT_BYTES}")
        return ext(_BIGINT, value.to_bytes(length, "big", signed=True))
    if kind is set:
        return ext(_SET, _sub(list(value), depth))
    if kind is frozenset:
        return ext(_FROZENSET, _sub(list(value), depth))
    if kind is complex:
        return ext(_COMPLEX, _sub([value.real, value.imag], depth))
    if kind is bytearray or kind is memoryview:
        return bytes(value)
    module = kind.__module__
    if module == "numpy":
        return _numpy_extension(value, depth)
    if module == "decimal" and kind.__name__ == "Decimal":
        return ext(_DECIMAL, str(value).encode())
    if module == "datetime":
        return _datetime_extension(value, depth)
    raise CodecError(
        f"a value of type {module}.{kind.__qualname__} cannot travel; use None, bool, int, float, complex, Decimal, str, "
        "bytes, list, tuple, set, dict, date, datetime, numpy scalars or arrays"
    )


def _datetime_extension(value: Any, depth: int) -> Any:
    import datetime as dt

    ext = msgpack.ExtType
    kind = type(value)
    if kind is dt.datetime:
        return ext(_DATETIME, _sub([value.isoformat(), getattr(value.tzinfo, "key", None), value.fold], depth))
    if kind is dt.date:
        return ext(_DATE, value.isoformat().encode())
    if kind is dt.time:
        return ext(_TIME, value.isoformat().encode())
    if kind is dt.timedelta:
        return ext(_TIMEDELTA, _sub([value.days, value.seconds, value.microseconds], depth))
    raise CodecError(f"a value of type datetime.{kind.__qualname__} cannot travel")


def _numpy_extension(value: Any, depth: int) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise CodecError("a numpy array of dtype object cannot travel; convert it to a list")
        contiguous = np.ascontiguousarray(value)
        return msgpack.ExtType(_ARRAY, _sub([_dtype_words(value.dtype), list(value.shape), contiguous.tobytes()], depth))
    if isinstance(value, np.generic) and not value.dtype.hasobject:
        return msgpack.ExtType(_SCALAR, _sub([_dtype_words(value.dtype), value.tobytes()], depth))
    raise CodecError(f"a value of type numpy.{type(value).__qualname__} cannot travel")


def _dtype_words(dtype: Any) -> Any:
    """A dtype as a str, or as a list of [name, dtype, shape] for structured ones."""
    if dtype.names is None:
        return dtype.str
    if dtype.isalignedstruct or dtype.itemsize != sum(dtype[n].itemsize for n in dtype.names):
        raise CodecError("a numpy structured dtype with padding cannot travel; use a packed one")
    return [[n, _dtype_words(dtype[n].base), list(dtype[n].shape)] for n in dtype.names]


def _dtype_from_words(words: Any, depth: int = 0) -> Any:
    import numpy as np

    if depth > 8:
        raise ValueError("dtype nested deeper than 8")
    if type(words) is str:
        if len(words) > 64 or "," in words or "O" in words:
            raise ValueError("dtype refused")
        return np.dtype(words)
    return np.dtype([(str(n), _dtype_from_words(d, depth + 1), tuple(s)) for n, d, s in words])


_pack_hot = msgpack.Packer(default=_default_at(0), strict_types=True, use_bin_type=True, autoreset=True).pack


def encode_value(value: Any) -> bytes:
    """Return the bytes of one value. Raises `CodecError` for a type or depth that cannot travel. Not thread-safe."""
    try:
        packed: bytes = _pack_hot(value)
        return packed
    except CodecError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(str(error)) from None


def _hook_at(depth: int) -> Callable[[int, bytes], Any]:
    def hook(code: int, data: bytes) -> Any:
        if depth >= MAX_DEPTH:
            raise ValueError(f"value is nested deeper than {MAX_DEPTH} levels")
        return _from_extension(code, data, depth)

    return hook


def _load(data: bytes, depth: int) -> Any:
    return msgpack.unpackb(data, ext_hook=_hook_at(depth + 1), strict_map_key=False, raw=False, use_list=True)


def _from_extension(code: int, data: bytes, depth: int) -> Any:
    if code == _TUPLE:
        return tuple(_load(data, depth))
    if code == _BIGINT:
        if len(data) > MAX_BIGINT_BYTES:
            raise ValueError("int too long")
        return int.from_bytes(data, "big", signed=True)
    if code == _SET:
        return set(_load(data, depth))
    if code == _FROZENSET:
        return frozenset(_load(data, depth))
    if code == _COMPLEX:
        real, imag = _load(data, depth)
        return complex(real, imag)
    if code == _DECIMAL:
        from decimal import Decimal

        return Decimal(bytes(data).decode())
    if code in (_DATE, _DATETIME, _TIME, _TIMEDELTA):
        return _datetime_from_extension(code, data, depth)
    if code in (_ARRAY, _SCALAR):
        return _numpy_from_extension(code, data, depth)
    raise ValueError(f"unknown extension type {code}")


def _datetime_from_extension(code: int, data: bytes, depth: int) -> Any:
    import datetime as dt

    if code == _DATE:
        return dt.date.fromisoformat(bytes(data).decode())
    if code == _TIME:
        return dt.time.fromisoformat(bytes(data).decode())
    if code == _TIMEDELTA:
        days, seconds, microseconds = _load(data, depth)
        return dt.timedelta(days, seconds, microseconds)
    text, key, fold = _load(data, depth)
    value = dt.datetime.fromisoformat(text)
    if key is not None:
        import zoneinfo

        value = value.replace(tzinfo=zoneinfo.ZoneInfo(key))
    return value.replace(fold=1 if fold else 0)


def _numpy_from_extension(code: int, data: bytes, depth: int) -> Any:
    import numpy as np

    parts = _load(data, depth)
    dtype = _dtype_from_words(parts[0])
    if dtype.hasobject:
        raise ValueError("object dtype refused")
    if code == _SCALAR:
        return np.frombuffer(parts[1], dtype=dtype, count=1)[0]
    shape = tuple(parts[1])
    if len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("array shape refused")
    return np.frombuffer(parts[2], dtype=dtype).reshape(shape).copy() if parts[2] else np.empty(shape, dtype=dtype)


def decode_value(data: bytes | memoryview) -> Any:
    """Return the value of bytes made by `encode_value` on a side that is trusted. Raises `ValueError` when they are not."""
    return msgpack.unpackb(data, ext_hook=_hook_at(0), strict_map_key=False, raw=False, use_list=True)


def decode_value_untrusted(data: bytes | memoryview) -> Any:
    """Return the value of a stranger's bytes; every length is bounded by ``len(data)``. Raises only `MalformedMessage`."""
    from p2p.base.errors import MalformedMessage

    try:
        return decode_value(data)
    except MemoryError:
        raise MalformedMessage("value needs more memory than there is") from None
    except Exception as error:  # noqa: BLE001 - msgpack, numpy and datetime raise a wide set; all of it is the sender's fault
        raise MalformedMessage(f"value cannot be decoded: {type(error).__name__}") from None
