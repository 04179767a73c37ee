"""What merge wrote and returned becomes one file, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest

from company.chief.merger import MergePlan, json_value, output_files, shape_result
from p2p.base.codec import encode_value
from p2p.base.errors import MalformedMessage


def plan(path: Path, files: dict[str, bytes]) -> MergePlan:
    output = path / "output"
    output.mkdir(parents=True)
    for name, data in files.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(data)
    return MergePlan(job="j", files={}, params=b"", memory_bytes=1, output=output, output_max_bytes=1, result_dir=path / "result")


def test_a_single_file_is_the_result_itself(tmp_path: Path) -> None:
    result = shape_result(plan(tmp_path, {"deep/image.png": b"png"}), None)
    assert (result.name, result.size, result.digest) == ("image.png", 3, hashlib.sha256(b"png").digest())
    assert result.path.read_bytes() == b"png"


def test_a_value_alone_is_json(tmp_path: Path) -> None:
    result = shape_result(plan(tmp_path, {}), encode_value({"n": 3, "t": (1, 2), "b": b"\x00"}))
    assert result.name == "result.json"
    assert json.loads(result.path.read_bytes()) == {"n": 3, "t": [1, 2], "b": "AA=="}


def test_nothing_at_all_is_null(tmp_path: Path) -> None:
    result = shape_result(plan(tmp_path, {}), None)
    assert result.path.read_bytes() == b"null"


def test_several_files_and_a_value_are_a_stored_zip_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    files = {"b.txt": b"b", "a/c.txt": b"c"}
    first = shape_result(plan(tmp_path / "1", files), encode_value([1]))
    second = shape_result(plan(tmp_path / "2", files), encode_value([1]))
    assert first.name == "result.zip"
    assert first.digest == second.digest
    with zipfile.ZipFile(first.path) as archive:
        assert archive.namelist() == ["a/c.txt", "b.txt", "result.json"]
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}


def test_links_in_the_output_are_left_out(tmp_path: Path) -> None:
    made = plan(tmp_path, {"real.txt": b"r"})
    (made.output / "link.txt").symlink_to("/etc/hostname")
    (made.output / "folder").symlink_to("/etc")
    assert [name for _, name in output_files(made.output)] == ["real.txt"]


def test_a_value_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedMessage):
        shape_result(plan(tmp_path, {}), b"\xc1")


def test_json_takes_every_kind_of_value() -> None:
    assert json_value({1: {Decimal("1.5")}}) == {"1": ["1.5"]}
