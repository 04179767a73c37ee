"""Cut the image into strips of rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def split(data: Path, width: int = 800, height: int = 450, samples: int = 2, rows: int = 4) -> Iterator[dict[str, Any]]:
    """Yield one fragment per strip, from top to bottom; each carries the scene, so that it needs nothing else."""
    scene = json.loads(Path(data).read_text())
    if not (1 <= width <= 20_000 and 1 <= height <= 20_000 and 1 <= samples <= 16 and rows >= 1):
        raise ValueError(f"width and height must be in 1..20000 and samples in 1..16, got {width} × {height}, {samples}")
    for top in range(0, height, rows):
        yield {"scene": scene, "width": width, "height": height, "samples": samples, "top": top, "end": min(top + rows, height)}


def count(data: Path, height: int = 450, rows: int = 4) -> int:
    """How many strips there will be."""
    return -(-height // rows)
