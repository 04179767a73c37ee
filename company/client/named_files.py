"""Which values name a file of this machine (I/O: it asks the file system): calls with such a value cannot be run where it is not."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

MAX_PATH = 4096


def names_a_file(value: Any, *, inner: int = 2) -> bool:
    """Whether it is the path of something that exists here, or holds one, ``inner`` levels of lists, tuples, dicts and partials deep."""
    if isinstance(value, str):
        return 0 < len(value) < MAX_PATH and "\0" not in value and os.path.exists(value)
    if isinstance(value, os.PathLike):
        return os.path.exists(value)
    if inner <= 0:
        return False
    if isinstance(value, partial):
        return names_a_file(value.args, inner=inner) or names_a_file(value.keywords, inner=inner)
    held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return any(names_a_file(v, inner=inner - 1) for v in held)
