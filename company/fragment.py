"""What `split` may yield instead of a bare value, to give the matcher a hint (pure; also copied into the sandbox)."""

from __future__ import annotations

TYPE_CHECKING = False  # for type checkers: `typing` and what it imports would cost a blank sandbox a third of its start
if TYPE_CHECKING:
    from typing import Any


class Fragment:
    """One fragment and how much work it is, in any unit that is the same for all fragments of a job."""

    # A plain class: importing dataclasses would cost a blank sandbox 8 ms of its start.
    __slots__ = ("cost", "value")

    def __init__(self, value: Any, *, cost: float | None = None) -> None:
        if cost is not None and not (isinstance(cost, (int, float)) and 0 < cost < float("inf")):
            raise ValueError(f"cost must be a finite number > 0, got {cost!r}")
        self.value = value
        self.cost = None if cost is None else float(cost)

    def __repr__(self) -> str:
        return f"Fragment({self.value!r}, cost={self.cost!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fragment) and (self.value, self.cost) == (other.value, other.cost)

    __hash__ = None  # type: ignore[assignment]  # its value may be unhashable
