"""Write the strips, in order, as one PNG: signature, header, compressed rows, end (RFC 2083)."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def merge(results: Iterator[dict[str, Any]], output: Path, width: int = 800, height: int = 450) -> dict[str, int]:
    """Write image.png; rows of a strip that failed stay black."""
    packer = zlib.compressobj(9)
    packed = bytearray()
    next_row = 0
    black = b"\0" * (1 + 3 * width)
    for strip in results:
        packed += packer.compress(black * (strip["top"] - next_row))
        pixels = strip["pixels"]
        next_row = strip["top"]
        for start in range(0, len(pixels), 3 * width):
            packed += packer.compress(b"\0" + pixels[start : start + 3 * width])  # filter type 0, then the row
            next_row += 1
    packed += packer.compress(black * (height - next_row)) + packer.flush()
    with (output / "image.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", bytes(packed)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return {"width": width, "height": height}
