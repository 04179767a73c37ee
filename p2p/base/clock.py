"""Two kinds of time, so that mixing them is a type error (pure).

`Monotonic` orders events inside one process and is what machines receive as ``now``. `UnixTime` is what crosses a wire,
is signed or is stored: integer seconds. Only drivers read a clock.
"""

from typing import NewType

Monotonic = NewType("Monotonic", float)  # seconds, arbitrary origin, never goes back
UnixTime = NewType("UnixTime", int)  # seconds since 1970-01-01T00:00Z
