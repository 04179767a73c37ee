"""The examples are packages that pass their own check, and give the same bytes however the work is cut."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from company.package import check_package, read_package_dir
from tests.support.in_process import load_module, run_in_process

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCES = {
    "a.py": b'# Two words\nimport os\n\ndef name(x):\n    """Doc text."""\n    return "it\'s" + x  # last\n',
    "sub/b.py": b"x = 0x1f + 1e5\ny = rb'bytes \\' here' + f\"{x} and\"\n" * 50,
    "sub/bad.py": b"caf\xe9 = '\xff word'\nunterminated = 'oops\n\"\"\"never closed",
    "sub/deep/empty.py": b"",
    "note.txt": b"not counted",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, content in SOURCES.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(content)
    (tmp_path / "tree/link.py").symlink_to("a.py")
    (tmp_path / "tree/dangling.py").symlink_to("nowhere.py")
    return tmp_path / "tree"


@pytest.mark.parametrize("name", ["wordcount", "raytracer", "primes"])
def test_an_example_passes_the_check_without_a_warning(name: str) -> None:
    read = read_package_dir(EXAMPLES / name)
    info = check_package(read.files)
    assert (info.name, info.warnings) == (name, ())
    assert "README.md" in read.files


@pytest.mark.parametrize("group_bytes", [1, 200, 65536])
def test_wordcount_agrees_with_a_plain_count_however_it_is_cut(group_bytes: int, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_in_process(EXAMPLES / "wordcount", tree, out, {"group_bytes": group_bytes, "top": 10})
    report = json.loads((out / "report.json").read_text())
    assert report == load_module(EXAMPLES / "wordcount/reference.py").reference(tree, 10)
    assert (report["files"], report["lines"], report["bytes"]) == (4, 108, sum(len(c) for n, c in SOURCES.items() if n.endswith(".py")))
    assert ["import", 1] in report["keywords"]
    assert "4 files" in (out / "report.txt").read_text()


def test_wordcount_tells_code_from_text() -> None:
    result = load_module(EXAMPLES / "wordcount/processor/main.py").process([SOURCES["a.py"]])
    assert result["identifiers"] == {"import": 1, "os": 1, "def": 1, "name": 1, "x": 2, "return": 1}
    assert result["words"] == {"two": 1, "words": 1, "doc": 1, "text": 1, "it": 1, "s": 1, "last": 1}


def test_wordcount_groups_files_up_to_the_wanted_size(tree: Path, tmp_path: Path) -> None:
    groups: list[list[bytes]] = []
    run_in_process(EXAMPLES / "wordcount", tree, tmp_path / "out", {"group_bytes": 200}, observe=groups.append)
    assert len(groups) > 1
    assert all(sum(map(len, group)) <= 200 or len(group) == 1 for group in groups)


def pixels_of(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and raw rows of a PNG, every check sum verified."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data = png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    return width, height, zlib.decompress(chunks[b"IDAT"])


def test_raytracer_gives_the_same_png_however_it_is_cut(tmp_path: Path) -> None:
    images = []
    for rows in (1, 5, 18):
        params: dict[str, Any] = {"width": 32, "height": 18, "samples": 1, "rows": rows}
        run_in_process(EXAMPLES / "raytracer", EXAMPLES / "raytracer/scene.json", tmp_path / str(rows), params)
        images.append((tmp_path / str(rows) / "image.png").read_bytes())
    assert images[0] == images[1] == images[2]
    width, height, rows_ = pixels_of(images[0])
    assert (width, height, len(rows_)) == (32, 18, 18 * (1 + 3 * 32))
    assert len(set(rows_)) > 50  # a picture, not one colour


def test_raytracer_leaves_rows_of_a_failed_strip_black(tmp_path: Path) -> None:
    merge = load_module(EXAMPLES / "raytracer/merge.py").merge
    merge(iter([{"top": 1, "pixels": b"\xff" * 6}]), tmp_path, width=2, height=3)
    assert pixels_of((tmp_path / "image.png").read_bytes()) == (2, 3, b"\0" * 7 + b"\0" + b"\xff" * 6 + b"\0" * 7)


@pytest.mark.parametrize("step", [7, 1000, 10**6])
def test_primes_gives_the_known_numbers_however_it_is_cut(step: int, tmp_path: Path) -> None:
    (tmp_path / "limit.txt").write_text("100000\n")
    result = run_in_process(EXAMPLES / "primes", tmp_path / "limit.txt", tmp_path / "out", {"step": step})
    # OEIS A006880, A007508 and A000101
    assert result == {"primes": 9592, "largest": 99991, "twins": 1224, "gap": 72, "gap_after": 31397}


@pytest.mark.parametrize(("limit", "primes"), [(0, 0), (2, 0), (3, 1), (4, 2), (30, 10)])
def test_primes_at_the_edge(limit: int, primes: int, tmp_path: Path) -> None:
    (tmp_path / "limit.txt").write_text(str(limit))
    assert run_in_process(EXAMPLES / "primes", tmp_path / "limit.txt", tmp_path / "out", {"step": 4})["primes"] == primes
