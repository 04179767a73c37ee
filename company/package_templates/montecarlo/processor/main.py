"""One experiment: how many of so many random points of a square lie in its circle."""

import random
from typing import Any


def process(fragment: dict[str, Any]) -> dict[str, int]:
    """Return the number of points, and of those inside."""
    draw = random.Random(fragment["seed"]).random
    inside = sum(draw() ** 2 + draw() ** 2 < 1.0 for _ in range(fragment["points"]))
    return {"points": fragment["points"], "inside": inside}
