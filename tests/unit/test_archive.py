"""Each way in which an archive can attack whoever opens it, and each form in which an honest one comes."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from company.package import ArchiveRefused, TooLarge, archive_of, read_archive_untrusted, tidy_files_untrusted
from p2p.base.errors import MalformedMessage

FILES = {"merge.py": b"m", "package.toml": b"", "processor/main.py": b"p" * 300, "split.py": b"s"}


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(*entries: tuple[str | tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


def read(data: bytes, *, max_bytes: int = 1 << 20, max_files: int = 100, strip: bool = True) -> dict[str, bytes]:
    return read_archive_untrusted(io.BytesIO(data), max_bytes=max_bytes, max_files=max_files, strip=strip)


def refusal(data: bytes, *, max_bytes: int = 1 << 20, max_files: int = 100) -> ArchiveRefused:
    with pytest.raises(ArchiveRefused) as caught:
        read(data, max_bytes=max_bytes, max_files=max_files)
    assert isinstance(caught.value, MalformedMessage)
    return caught.value


def forms(name: str, data: bytes = b"x") -> list[bytes]:
    return [
        zip_of((name, data)),
        tar_of((name, data)),
        gzip.compress(tar_of((name, data))),
        tar_of((name, data), format=tarfile.GNU_FORMAT),
    ]


@pytest.mark.parametrize(
    "pack", [lambda e: zip_of(*e), lambda e: tar_of(*e), lambda e: gzip.compress(tar_of(*e))], ids=["zip", "tar", "tar.gz"]
)
def test_the_same_files_come_out_of_every_format(pack: Callable[[list[tuple[str, bytes]]], bytes], tmp_path: Path) -> None:
    data = pack(list(FILES.items()))
    assert read(data) == FILES
    path = tmp_path / "package"
    path.write_bytes(data)
    assert read_archive_untrusted(path) == FILES


def test_one_top_folder_is_taken_off_but_never_processor() -> None:
    assert read(tar_of(*[(f"./wordcount-main/{name}", data) for name, data in FILES.items()])) == FILES
    assert read(zip_of(("processor/main.py", b"p"))) == {"processor/main.py": b"p"}
    assert read(zip_of(("top/split.py", b"s")), strip=False) == {"top/split.py": b"s"}


def test_caches_and_version_control_are_left_out_before_the_top_folder_is_taken_off() -> None:
    junk = ["__MACOSX/._split.py", "w/.git/config", "w/__pycache__/a.cpython-311.pyc", "w/.DS_Store", "w/x.pyc"]
    entries = [(f"w/{name}", data) for name, data in FILES.items()] + [(name, b"junk") for name in junk]
    assert read(zip_of(*entries)) == FILES
    assert read(tar_of(*entries)) == FILES


def test_backslashes_of_old_windows_tools_are_folders() -> None:
    assert read(zip_of(("processor\\main.py", b"p"), ("split.py", b""))) == {"processor/main.py": b"p", "split.py": b""}


@pytest.mark.parametrize("name", [
    "../evil.py", "processor/../../evil.py", "/etc/passwd", "..\\evil.py", "\\\\server\\share", "C:\\evil.py", "a:stream", "a\nb.py",
    "x" * 300, "/".join("abcdefghijklmnopqrst"),
])  # fmt: skip
def test_a_path_that_leads_out_or_cannot_be_written_is_refused(name: str) -> None:
    for data in forms(name):
        assert refusal(data).code == "archive-unsafe-path"


def test_a_name_with_nul_is_refused() -> None:
    data = zip_of(("split.pyXevil", b"")).replace(b"split.pyXevil", b"split.py\x00evil")
    assert refusal(data).code == "archive-unsafe-path"


def test_a_name_that_is_not_utf8_is_refused() -> None:
    data = tar_of(("naXme.py", b""), format=tarfile.GNU_FORMAT)
    info = tarfile.TarInfo("na\udcffme.py")
    data = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + bytes(1024)
    assert refusal(data).code == "archive-unsafe-path"


@pytest.mark.parametrize(("kind", "code"), [
    (tarfile.SYMTYPE, "archive-link"), (tarfile.LNKTYPE, "archive-link"), (tarfile.CHRTYPE, "archive-special-file"),
    (tarfile.BLKTYPE, "archive-special-file"), (tarfile.FIFOTYPE, "archive-special-file"), (b"Z", "archive-special-file"),
])  # fmt: skip
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, code: str) -> None:
    assert refusal(tar_of((tar_member("a.py", kind, "/etc/passwd"), b""))).code == code


@pytest.mark.parametrize(("mode", "code"), [
    (0o120777, "archive-link"), (0o020666, "archive-special-file"), (0o060666, "archive-special-file"), (0o010666, "archive-special-file"),
    (0o140666, "archive-special-file"),
])  # fmt: skip
def test_links_and_devices_in_a_zip_are_refused(mode: int, code: str) -> None:
    info = zipfile.ZipInfo("a.py")
    info.external_attr = mode << 16
    assert refusal(zip_of((info, b"/etc/passwd"))).code == code


def test_a_link_hidden_in_a_folder_that_is_left_out_is_refused_all_the_same() -> None:
    assert refusal(tar_of((tar_member(".git/x", tarfile.SYMTYPE, "/"), b""))).code == "archive-link"


@pytest.mark.parametrize("second", ["split.py", "Split.py", "./split.py", "split.py/x", "SPLIT.PY"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_that_some_file_system_takes_for_one_are_refused(second: str) -> None:
    for data in (zip_of(("split.py", b"a"), (second, b"b")), tar_of(("split.py", b"a"), (second, b"b"))):
        assert refusal(data).code == "archive-duplicate"


def test_names_equal_after_unicode_normalisation_are_refused() -> None:
    assert refusal(zip_of(("caf\u00e9.py", b""), ("cafe\u0301.py", b""))).code == "archive-duplicate"


def test_a_folder_may_be_named_again() -> None:
    folder = tar_member("processor", tarfile.DIRTYPE)
    assert read(tar_of((folder, b""), ("processor/a.py", b""), ("processor/b.py", b""))) == {"processor/a.py": b"", "processor/b.py": b""}


def test_an_encrypted_zip_is_refused_in_words() -> None:
    data = bytearray(zip_of(("split.py", b"s")))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    error = refusal(bytes(data))
    assert error.code == "archive-encrypted"
    assert "split.py" in error.text


def test_too_many_bytes_names_the_limit_and_the_largest_files() -> None:
    entries = [("small.py", b"a"), ("data/big.bin", bytes(3 << 20)), ("data/bigger.bin", bytes(5 << 20))]
    for data in (zip_of(*entries), tar_of(*entries), gzip.compress(tar_of(*entries))):
        error = refusal(data, max_bytes=4 << 20)
        assert isinstance(error, TooLarge)
        assert (error.code, error.facts["limit"]) == ("package-too-large", 4 << 20)
        assert error.facts["actual"] > 4 << 20
        assert error.facts["largest"][0] == ["data/bigger.bin", 5 << 20]
        assert "4 MiB" in error.text
    assert refusal(zip_of(*entries), max_bytes=4 << 20).facts["largest"][:2] == [["data/bigger.bin", 5 << 20], ["data/big.bin", 3 << 20]]


def test_a_zip_that_lies_about_its_size_is_stopped_by_what_comes_out() -> None:
    data = bytearray(zip_of(("bomb", bytes(8 << 20))))
    central = data.index(b"PK\x01\x02")
    data[22:26] = data[central + 24 : central + 28] = struct.pack("<I", 10)
    assert refusal(bytes(data)).code in ("archive-corrupt", "package-too-large")
    assert len(data) < 20_000


def test_a_gzip_bomb_is_stopped_whatever_hides_in_it() -> None:
    header = tarfile.TarInfo("a.py")
    header.size = 1 << 40
    bomb = gzip.compress(header.tobuf() + bytes(64 << 20))
    assert refusal(bomb).code == "package-too-large"
    assert refusal(gzip.compress(tar_of(("a.py", b"")) + bytes(64 << 20))).code == "package-too-large"
    hidden = gzip.compress(tar_of((".git/pack", bytes(64 << 20))))  # left out, and counted
    assert refusal(hidden).code == "package-too-large"


def test_a_huge_pax_header_is_stopped() -> None:
    info = tarfile.TarInfo("a.py")
    info.pax_headers = {"comment": "x" * (32 << 20)}
    assert refusal(gzip.compress(tar_of((info, b"")))).code == "package-too-large"


def test_a_sparse_file_is_refused() -> None:
    info = tarfile.TarInfo("a.py")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)}
    assert refusal(tar_of((info, b"x"))).code == "archive-special-file"


def test_too_many_entries_are_refused_and_folders_count() -> None:
    many = [(f"d{n}/", b"") for n in range(101)]
    for data in (zip_of(*many), tar_of(*[(tar_member(name, tarfile.DIRTYPE), b"") for name, _ in many])):
        error = refusal(data)
        assert (error.code, error.facts["limit"]) == ("package-too-many-files", 100)


def test_a_table_of_contents_of_a_million_entries_is_not_read() -> None:
    row = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    rows = row * 100_000
    data = b"PK\x03\x04" + bytes(26) + b"a" + rows
    data += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(rows), 31, 0)
    error = refusal(data)
    assert error.code == "archive-corrupt"
    assert "table of contents" in error.text


@pytest.mark.parametrize("data", [b"", b"hello", b"Rar!\x1a\x07", b"BZh91AY&SY", bytes(600)])
def test_anything_else_is_refused_as_a_format(data: bytes) -> None:
    assert refusal(data).code == "archive-format"


def test_a_cut_or_damaged_archive_is_refused() -> None:
    tar = tar_of(*FILES.items())
    whole = gzip.compress(tar)
    assert refusal(whole[:-30]).code == "archive-corrupt"
    assert refusal(whole[:-8] + bytes(8)).code == "archive-corrupt"  # gzip's own check sum
    assert refusal(zip_of(*FILES.items())[:-30]).code == "archive-corrupt"
    broken_header = bytearray(tar)
    broken_header[tar.index(b"processor/main.py")] ^= 1  # tarfile alone would silently stop before this file
    assert refusal(bytes(broken_header)).code == "archive-corrupt"
    assert refusal(tar[:700]).code == "archive-corrupt"


@given(st.binary(max_size=400), st.sampled_from([b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b""]))
def test_random_bytes_raise_nothing_else(tail: bytes, magic: bytes) -> None:
    try:
        read(magic + tail)
    except ArchiveRefused:
        pass


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["zip", "tar", "gz"]))
def test_one_changed_byte_raises_nothing_else(position: int, value: int, form: str) -> None:
    data = bytearray({"zip": ZIP, "tar": TAR, "gz": GZ}[form])
    data[position % len(data)] = value
    try:
        read(bytes(data))
    except ArchiveRefused:
        pass


ZIP, TAR = zip_of(*FILES.items()), tar_of(*FILES.items())
GZ = gzip.compress(TAR)


def test_multipart_parts_meet_the_same_rules() -> None:
    assert tidy_files_untrusted({"w/" + name: data for name, data in FILES.items()} | {"w/.git/x": b""}) == FILES
    for files, code in (
        ({"../x": b""}, "archive-unsafe-path"),
        ({"a": b"", "A": b""}, "archive-duplicate"),
        ({"a": bytes(99)}, "package-too-large"),
    ):
        with pytest.raises(ArchiveRefused) as caught:
            tidy_files_untrusted(files, max_bytes=50)
        assert caught.value.code == code


def test_our_own_archive_is_the_same_bytes_each_time() -> None:
    data = archive_of(FILES)
    assert data == archive_of(dict(reversed(FILES.items())))
    assert read(data) == FILES
