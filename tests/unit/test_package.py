"""What makes a package acceptable, and how each fault is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from company.package import (
    ArchiveRefused,
    PackageInvalid,
    TooLarge,
    archive_of,
    check_package,
    check_params,
    files_digest,
    processor_archive,
    processor_digest,
    processor_files_untrusted,
    read_package,
    read_package_dir,
)
from company.package.functions import SourceError, parse_source_untrusted
from company.package.manifest import Manifest, ManifestError, parse_manifest_untrusted
from p2p.base.errors import UsageError

GOOD = {
    "package.toml": b'name = "good"\nversion = "1.0"\n',
    "split.py": b"def split(data, lines: int = 10, **params):\n    yield 1\n",
    "merge.py": b"def merge(results, output, top=3):\n    return list(results)\n",
    "processor/main.py": b"def process(fragment, lines=10):\n    return fragment\n",
}


def faults(changes: Mapping[str, bytes | None]) -> list[tuple[str, int | None, str]]:
    files = {path: data for path, data in (GOOD | changes).items() if data is not None}
    with pytest.raises(PackageInvalid) as caught:
        check_package(files)
    assert caught.value.facts["errors"] == caught.value.errors
    return [(e["path"], e["line"], e["detail"]) for e in caught.value.errors]


def test_a_good_package_passes_with_everything_known_of_it() -> None:
    info = check_package(GOOD)
    assert (info.name, info.version, info.python, info.requirements) == ("good", "1.0", "", ())
    assert (info.memory_bytes, info.time_limit_s, info.processes) == (512 << 20, 600.0, 0)
    assert (info.entry, info.split_path) == ("processor/main.py", "split.py")
    assert info.functions == ("split", "merge", "process")
    assert info.params == {"split": ("lines",), "merge": ("top",), "process": ("lines",)}
    assert info.accepts_any == {"split"}
    assert info.warnings == ()
    assert info.size_bytes == sum(map(len, GOOD.values()))
    assert len(info.digest) == len(info.processor_digest) == 32


def test_every_field_of_the_manifest_is_read() -> None:
    text = b"""
name = "word count"
version = "2.1"
python = ">=3.11,<4"
requirements = ["numpy>=2", "scikit-learn[alldeps] ; python_version > '3'"]
memory = "1.5GiB"
time_limit = "90s"
entry = "sub/run.py"
processes = 4
"""
    info = check_package(GOOD | {"package.toml": text, "processor/sub/run.py": GOOD["processor/main.py"]})
    assert info.name == "word count"
    assert info.python == "<4,>=3.11"
    assert info.requirements == ("numpy>=2", 'scikit-learn[alldeps]; python_version > "3"')
    assert (info.memory_bytes, info.time_limit_s, info.entry, info.processes) == (3 << 29, 90.0, "processor/sub/run.py", 4)


def test_without_a_manifest_the_defaults_and_the_given_name_hold() -> None:
    files = {path: data for path, data in GOOD.items() if path != "package.toml"}
    assert check_package(files, default_name="folder").name == "folder"
    files["Split.py"] = files.pop("split.py")
    assert check_package(files).split_path == "Split.py"


@pytest.mark.parametrize(("line", "says"), [
    ('nmae = "x"', "did you mean 'name'"), ("colour = 1", "known keys are entry, memory"), ("[package]\nname='x'", "unknown key 'package'"),
    ("version = 1.0", 'write "1.0"'), ('name = "../x"', "name: must be"), ('memory = "lots"', '"512MiB"'),
    ('memory = "1MiB"', "32MiB..1TiB"),
    ('memory = "' + "9" * 5000 + 'GB"', "memory: must be"), ('time_limit = "0s"', "1ms..7d"), ("time_limit = 60", 'write "60"'),
    ('python = "three"', "version specifier"), ('requirements = "numpy"', "must be a list"), ('requirements = ["numpy >>"]', "'numpy >>'"),
    ('requirements = ["evil @ https://example.org/x.whl"]', "no network"), ('entry = "../split.py"', "below processor/"),
    ('entry = "main.sh"', "below processor/"), ("processes = -1", "0..256"), ("processes = true", "0..256"),
])  # fmt: skip
def test_a_wrong_field_is_named_with_its_line(line: str, says: str) -> None:
    [(path, at, detail)] = faults({"package.toml": b"# comment\n\n" + line.encode()})
    assert (path, at) == ("package.toml", 3)
    assert says in detail


def test_all_faults_of_a_manifest_are_told_at_once() -> None:
    assert [(p, at) for p, at, _ in faults({"package.toml": b'nmae = "x"\nmemory = 3\n'})] == [("package.toml", 1), ("package.toml", 2)]


@pytest.mark.parametrize(
    ("text", "line"), [(b"name = ", 1), (b'a = "b"\nname = "x', 2), (b"ok = 1\n\xff = 1", 2), (b"a=" + b"[" * 20_000, None)]
)
def test_what_is_not_toml_is_told_with_its_line(text: bytes, line: int | None) -> None:
    [(path, at, _)] = faults({"package.toml": text})
    assert (path, at) == ("package.toml", line)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.sampled_from(["name", "memory", "entry"]).map(lambda k: f"{k}=[1]".encode()),
    )
)
def test_any_bytes_as_a_manifest_raise_nothing_else(content: bytes) -> None:
    try:
        assert isinstance(parse_manifest_untrusted(content), Manifest)
    except ManifestError:
        pass


@pytest.mark.parametrize("path", ["split.py", "merge.py", "processor/main.py"])
def test_a_missing_file_is_named_with_what_it_must_define(path: str) -> None:
    [(where, line, detail)] = faults({path: None})
    assert (where, line) == (path, None)
    assert "must define" in detail


def test_a_missing_file_with_a_similar_one_says_so() -> None:
    assert "there is processor/mian.py" in faults({"processor/main.py": None, "processor/mian.py": b""})[0][2]


@pytest.mark.parametrize("path", ["split.py", "merge.py", "processor/main.py", "processor/deep/extra.py", "extra.py"])
def test_a_syntax_error_anywhere_has_file_and_line(path: str) -> None:
    assert (path, 3) in [(p, at) for p, at, _ in faults({path: b"x = 1\n\ndef broken(:\n"})]


@pytest.mark.parametrize(("path", "source", "says"), [
    ("split.py", "x = 1", "does not define split(data, **params)"),
    ("split.py", "class A:\n    def split(data): yield 1", "does not define"),
    ("split.py", "def split(): yield 1", "must accept 1 positional argument,"),
    ("split.py", "def split(*, data): yield 1", "must accept 1 positional argument,"),
    ("split.py", "def split(data, lines, /): yield 1", "given by name"),
    ("split.py", "def split(data): print(data)", "must yield"),
    ("split.py", "def split(data):\n    def inner(): yield 1\n    inner()", "must yield"),
    ("split.py", "async def split(data): yield 1", "instead of async def"),
    ("split.py", "def split(data): yield 1\ndef count(): return 1", "count must accept 1"),
    ("split.py", "def split(data): yield 1\ndef count(data): pass", "count must return"),
    ("merge.py", "def merge(results): pass", "must accept 2 positional arguments"),
    ("merge.py", "def merge(results, output): yield 1", "contains yield"),
    ("merge.py", "def merge(results, output): pass\ndef same(a): return 1", "same must accept 2"),
    ("merge.py", "def merge(results, output): pass\ndef same(a, b, c): return 1", "with two results and nothing else"),
    ("processor/main.py", "def process(): return 1", "must accept 1"),
    ("processor/main.py", "def process(fragment): yield 1", "contains yield"),
])  # fmt: skip
def test_a_function_that_cannot_be_called_is_told(path: str, source: str, says: str) -> None:
    [(where, _, detail)] = faults({path: source.encode()})
    assert where == path
    assert says in detail


@pytest.mark.parametrize("source", [
    "def split(path_to_data): yield 1", "def split(data): return [1]", "def split(*args, **kw): yield 1", "split = lambda data: [1]",
    "try:\n    import numpy\n    def split(data): yield 1\nexcept ImportError:\n    def split(data): yield 2",
    "def split(data, /, n=1, *, m): yield 1",
])  # fmt: skip
def test_every_callable_form_of_split_is_accepted(source: str) -> None:
    assert check_package(GOOD | {"split.py": source.encode()}).warnings == ()


def test_what_looks_odd_is_a_warning() -> None:
    sources = {"split.py": b"from helper import split\n", "helper.py": b"", "processor/main.py": b"import pandas\ndef process(f): pass\n"}
    warnings = check_package(GOOD | sources, warnings=("read",)).warnings
    assert warnings[0] == "read"
    assert any("split is not defined by def" in w for w in warnings)
    assert any("every result will be None" in w for w in warnings)
    assert any("line 1: imports pandas" in w for w in warnings)


def test_modules_that_are_offered_or_own_raise_no_warning() -> None:
    source = b"import os, numpy\nfrom company import task\nimport helper\n"
    source += b"from . import x\ntry:\n    import fast\nexcept ImportError:\n    0\n"
    assert check_package(GOOD | {"processor/main.py": source + GOOD["processor/main.py"], "processor/helper.py": b""}).warnings == ()


@pytest.mark.parametrize(
    "source", [b"\x00", b"(" * 100_000, b"-" * 900_000, b"x = 1\n" * 300_000, b"# coding: nonsense\n", b"\xff\xfe", b"1" * 10_000]
)
def test_hostile_sources_raise_nothing_else(source: bytes) -> None:
    try:
        parse_source_untrusted(source)
    except SourceError:
        pass


def test_parameters_are_checked_against_what_the_functions_name() -> None:
    strict = check_package(GOOD | {"split.py": b"def split(data, lines, *, step=1): yield 1"})
    check_params(strict, {"lines": 1, "top": 2})
    with pytest.raises(UsageError) as unknown:
        check_params(strict, {"lines": 1, "stepp": 2})
    assert (unknown.value.code, unknown.value.hint) == ("unknown-parameter", "did you mean step?")
    with pytest.raises(UsageError) as missing:
        check_params(strict, {})
    assert missing.value.code == "missing-parameter"
    check_params(check_package(GOOD), {"anything": 1})  # split takes **params


def test_a_processor_too_large_for_one_message_is_refused_with_its_files() -> None:
    with pytest.raises(TooLarge) as caught:
        check_package(GOOD | {"processor/model.bin": os.urandom(17 << 20)})
    assert caught.value.facts["largest"][0] == ["processor/model.bin", 17 << 20]


# -- digests


def test_the_digest_is_that_of_the_content_not_of_the_archive() -> None:
    # SHA-256 of msgpack [["a", 1, sha256(b"x")]]: a known value, because stored digests must mean the same for ever
    assert files_digest({"a": b"x"}).hex() == "e27c50c09d162969d2f504993d3ad2d412c917e6408565c27c14eb9391aeb3d1"
    assert files_digest(GOOD) == files_digest(dict(reversed(GOOD.items())))


def test_a_change_outside_the_processor_keeps_the_processor_digest() -> None:
    changed = GOOD | {"merge.py": b"#"}
    assert files_digest(changed) != files_digest(GOOD)
    assert processor_digest(changed) == processor_digest(GOOD)
    for path in ("package.toml", "processor/main.py", "processor/new.py"):
        assert processor_digest(GOOD | {path: b"#"}) != processor_digest(GOOD)


def test_a_processor_archive_comes_back_only_under_its_own_digest() -> None:
    data = processor_archive(GOOD)
    assert data == processor_archive(dict(reversed(GOOD.items())))
    assert processor_files_untrusted(data, processor_digest(GOOD)) == {p: GOOD[p] for p in ("package.toml", "processor/main.py")}
    with pytest.raises(ArchiveRefused) as caught:
        processor_files_untrusted(data, bytes(32))
    assert caught.value.code == "archive-bad-digest"
    without = {p: d for p, d in GOOD.items() if p != "package.toml"}
    assert list(processor_files_untrusted(processor_archive(without), processor_digest(without))) == ["processor/main.py"]


# -- folders


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def test_a_folder_gives_the_same_package_as_its_archive(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", GOOD)
    read = read_package_dir(folder)
    assert (read.files, read.warnings) == (dict(sorted(GOOD.items())), ())
    archive = tmp_path / "p.zip"
    archive.write_bytes(archive_of(GOOD))
    assert files_digest(read_package(archive).files) == files_digest(read_package(folder).files)


def test_caches_and_links_are_left_out_with_a_warning(tmp_path: Path) -> None:
    junk = {".git/HEAD": b"", "__pycache__/a.pyc": b"", "processor/__pycache__/b.pyc": b"", "x.pyc": b"", ".venv/bin/python": b""}
    folder = write(tmp_path / "p", GOOD | junk)
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    read = read_package_dir(folder)
    assert set(read.files) == set(GOOD)
    text = "\n".join(read.warnings)
    assert "*.pyc (1), .git (1), .venv (1), __pycache__ (2)" in text
    assert "passwd: it is a symbolic link" in text
    assert "etc: it is a symbolic link" in text
    assert "pipe: it is no ordinary file" in text


def test_a_folder_is_read_only_up_to_the_limits(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", GOOD | {"data/big.bin": bytes(5000)})
    with pytest.raises(TooLarge) as caught:
        read_package_dir(folder, max_bytes=1000)
    assert caught.value.facts["largest"][0] == ["data/big.bin", 5000]
    with pytest.raises(TooLarge):
        read_package_dir(folder, max_files=3)


def test_names_that_cannot_travel_are_refused(tmp_path: Path) -> None:
    for name in ("a\\b.py", "a:b", "a\nb"):
        with pytest.raises(PackageInvalid):
            read_package_dir(write(tmp_path / str(ord(name[1])), {name: b""}))
    with pytest.raises(PackageInvalid) as caught:
        read_package_dir(write(tmp_path / "twins", {"a.py": b"", "A.py": b""}))
    assert "same name" in caught.value.text


def test_no_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_package(tmp_path / "nothing")
    assert caught.value.code == "package-not-found"
