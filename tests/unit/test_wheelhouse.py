"""A second machine needs only Python and the chief: wheels made again from what is installed, fetched over a pinned channel."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from company import install_remote
from company.install_line import install_line, install_script
from company.messages import MESSAGES
from company.wheel_repack import build_own_wheel, repack, source_tree_of
from company.wheelhouse import Wheelhouse, build_wheelhouse, closure, installed_distributions
from p2p.base.errors import Unavailable, UsageError
from p2p.base.keys import Identity
from p2p.net.rpc import serve_rpc
from p2p.net.tls import peer_certificate
from tests.support.tiny_dists import install_tiny

CHIEF, IMPOSTOR = Identity(b"c" * 32), Identity(b"i" * 32)
TREE = Path(__file__).parents[2]


def dists(site: Path) -> dict[str, Distribution]:
    return installed_distributions([str(site)])


# -- packing again


def test_a_wheel_made_again_holds_the_files_and_a_right_record(tmp_path: Path) -> None:
    site = tmp_path / "lib/python3/site-packages"
    files = {
        "tool/__init__.py": "", "tool/data,with comma.txt": "x", "tool/__pycache__/__init__.cpython-311.pyc": "no",
        "../../../bin/tool": "launcher",
        "../../../bin/other": "#!/opt/venv/bin/python3\nprint(1)\n", "../../../share/man/tool.1": "man", "../../../include/site/t.h": "no",
    }  # fmt: skip
    install_tiny(
        site, "tool", files=files, tag="cp311-cp311-manylinux_2_28_x86_64,cp311-cp311-manylinux2014_x86_64", scripts="tool = tool:main"
    )
    (tmp_path / "bin/other").chmod(0o755)
    wheel = repack(dists(site)["tool"], tmp_path / "out")
    assert wheel.file == "tool-1.0-cp311-cp311-manylinux2014_x86_64.manylinux_2_28_x86_64.whl"
    assert (wheel.name, wheel.version, wheel.sha256) == ("tool", "1.0", hashlib.sha256(wheel.path.read_bytes()).hexdigest())
    with zipfile.ZipFile(wheel.path) as archive:
        names = archive.namelist()
        assert sorted(names) == [
            "tool-1.0.data/data/share/man/tool.1", "tool-1.0.data/scripts/other",
            "tool-1.0.dist-info/METADATA",
            "tool-1.0.dist-info/RECORD", "tool-1.0.dist-info/WHEEL", "tool-1.0.dist-info/entry_points.txt",
            "tool/__init__.py", "tool/data,with comma.txt",
        ]  # fmt: skip
        assert archive.read("tool-1.0.data/scripts/other") == b"#!python\nprint(1)\n"
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.getinfo("tool-1.0.data/scripts/other").external_attr >> 16 & 0o111
        rows = list(csv.reader(io.StringIO(archive.read("tool-1.0.dist-info/RECORD").decode())))
        assert [row[0] for row in rows] == names
        assert all(int(size) == archive.getinfo(name).file_size and digest.startswith("sha256=") for name, digest, size in rows[:-1])


def test_packing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    install_tiny(tmp_path / "site", "tool")
    first = repack(dists(tmp_path / "site")["tool"], tmp_path / "a")
    os.utime(tmp_path / "site/tool/__init__.py", (1, 1))
    assert repack(dists(tmp_path / "site")["tool"], tmp_path / "b").sha256 == first.sha256


def test_a_damaged_or_foreign_installation_is_refused_in_words(tmp_path: Path) -> None:
    info = install_tiny(tmp_path, "tool")
    (tmp_path / "tool/__init__.py").unlink()
    with pytest.raises(Unavailable, match="is missing; reinstall it"):
        repack(dists(tmp_path)["tool"], tmp_path / "out")
    (info / "WHEEL").unlink()
    with pytest.raises(Unavailable, match="not installed from a wheel"):
        repack(dists(tmp_path)["tool"], tmp_path / "out")
    assert not list(tmp_path.rglob("*.whl"))


def test_our_own_wheel_is_made_from_the_sources(tmp_path: Path) -> None:
    wheel = build_own_wheel(TREE, tmp_path)
    assert wheel.file.startswith("company_compute-")
    with zipfile.ZipFile(wheel.path) as archive:
        names = set(archive.namelist())
        assert {
            "p2p/base/codec.py",
            "company/package_templates/map/processor/main.py",
            "company/package_templates/map/package.toml",
        } <= names
        assert not [name for name in names if name.endswith(".pyc") or "__pycache__" in name or name.startswith(("tests", ".venv"))]
        info = wheel.file.split("-py3")[0] + ".dist-info"
        assert b"company = company.cli:main" in archive.read(f"{info}/entry_points.txt")
        metadata = archive.read(f"{info}/METADATA").decode()
    assert "Requires-Dist: trio>=" in metadata
    assert 'Requires-Dist: pytest>=9; extra == "test"' in metadata


# -- what belongs together


def test_the_closure_follows_markers_and_extras_and_names_what_lacks(tmp_path: Path) -> None:
    install_tiny(tmp_path, "Top_Level", requires=["mid[fast]>=1", "never; sys_platform == 'nowhere'", "absent>=2"])
    install_tiny(tmp_path, "mid", requires=["speed; extra == 'fast'", "docs; extra == 'doc'", "top-level"])
    install_tiny(tmp_path, "speed", "0.5")
    install_tiny(tmp_path, "docs")
    found = closure(["top.level", "speed>=1"], dists(tmp_path))
    assert [d.metadata["Name"] for d in found.found] == ["mid", "speed", "Top_Level"]
    assert found.missing == ("absent>=2 (needed by top-level)", "speed>=1 (0.5 is installed)")


def test_an_egg_info_beside_the_sources_does_not_hide_the_installation(tmp_path: Path) -> None:
    egg = tmp_path / "sources/tool.egg-info"
    egg.mkdir(parents=True)
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tool\nVersion: 0.1\n")
    install_tiny(tmp_path / "site", "tool", "2.0")
    assert installed_distributions([str(tmp_path / "sources"), str(tmp_path / "site")])["tool"].version == "2.0"


def test_a_wheelhouse_is_made_once_and_then_only_what_changed(tmp_path: Path) -> None:
    site, house = tmp_path / "site", tmp_path / "house"
    install_tiny(site, "top", requires=["low"])
    install_tiny(site, "low")
    first = build_wheelhouse(house, root="top", installed=dists(site))
    index = json.loads(first.index)
    assert [(w["file"], w["sha256"]) for w in index["wheels"]] == [(w.file, w.sha256) for w in first.wheels]
    assert (index["root"], index["version"], index["compiled"]) == ("top", "1.0", 0)
    times = {path.name: path.stat().st_mtime_ns for path in house.glob("*.whl")}
    assert build_wheelhouse(house, root="top", installed=dists(site)) == first
    assert {path.name: path.stat().st_mtime_ns for path in house.glob("*.whl")} == times
    for path in site.glob("low*"):
        path.rename(tmp_path / path.name)
    install_tiny(site, "low", "2.0")
    second = build_wheelhouse(house, root="top", installed=dists(site))
    assert sorted(path.name for path in house.glob("*.whl")) == ["low-2.0-py3-none-any.whl", "top-1.0-py3-none-any.whl"]
    assert second.wheels[1] == first.wheels[1]


def test_a_wheelhouse_answers_its_own_paths_only(tmp_path: Path) -> None:
    install_tiny(tmp_path / "site", "top")
    house = build_wheelhouse(tmp_path / "house", root="top", installed=dists(tmp_path / "site"))
    assert house.get("/wheels/top-1.0-py3-none-any.whl")[2] == house.wheels[0].path.read_bytes()
    assert house.get("/wheels/index.json")[2] == house.index
    assert b"def main(" in house.get("/install.py")[2]
    for path in ("/", "/wheels/", "/wheels/cache.json", "/wheels/../cache.json", "/wheels//etc/passwd"):
        assert house.get(path)[0] == 404


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    install_tiny(tmp_path / "site", "top", requires=["low>=3"])
    with pytest.raises(Unavailable, match="low>=3"):
        build_wheelhouse(tmp_path / "house", root="top", installed=dists(tmp_path / "site"))


# -- the line for the second machine


def test_the_line_survives_a_shell_and_names_key_and_address() -> None:
    line = install_line(CHIEF.public, "10.0.0.7", 8468, arguments="--token abc")
    words = shlex.split(line)
    assert words[:2] == ["python3", "-c"]
    assert words[3:] == ["--token", "abc"]
    assert CHIEF.public.hex() in words[2]
    assert not set("!$`\n%") & set(line)
    compile(words[2], "line", "exec")
    assert install_script(CHIEF.public.hex(), "10.0.0.7:8468") == install_line(CHIEF.public, "10.0.0.7", 8468)


@pytest.mark.parametrize("host", ["", "a b", "x');import os;('", "h$(id)", "hö"])
def test_a_host_that_is_none_never_gets_into_a_line(host: str) -> None:
    with pytest.raises(UsageError):
        install_line(CHIEF.public, host, 8468)


def forged_certificate() -> bytes:
    """A P-256 certificate that carries the chief's key, prefix and all, in its subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    bait = bytes.fromhex("302a300506032b6570032100") + CHIEF.public
    name = x509.Name([x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, bait, x509.name._ASN1Type.BitString)])
    genuine = x509.load_pem_x509_certificate(peer_certificate(CHIEF)[0])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, genuine.not_valid_before_utc, genuine.not_valid_after_utc)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_the_key_is_found_by_its_place_not_by_its_bytes() -> None:
    genuine = x509.load_pem_x509_certificate(peer_certificate(CHIEF)[0]).public_bytes(serialization.Encoding.DER)
    assert install_remote.key_of(genuine) == CHIEF.public
    forged = forged_certificate()
    assert CHIEF.public in forged
    assert install_remote.key_of(forged) is None
    for cut in range(0, len(genuine), 7):
        assert install_remote.key_of(genuine[:cut]) in (None, CHIEF.public)


def sequence(content: bytes) -> bytes:
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


def misleading_certificates() -> list[bytes]:
    """Bytes that a careless walk follows to the chief's key, while OpenSSL, which reads BER, finds another there."""
    key = bytes.fromhex("302a300506032b6570032100") + CHIEF.public
    version, serial, four = bytes.fromhex("a003020102"), bytes.fromhex("020101"), sequence(b"") * 4
    indefinite = b"\x30\x80" + bytes(128)  # as a length of 128 it leads on to ours; its real end is where the zeros begin
    return [
        sequence(sequence(version + serial + indefinite + four[4:] + key)),
        sequence(sequence(bytes.fromhex("bf0003020102") + serial + four + key)),  # the version with its tag in the long form
        sequence(sequence(version + b"\x04" + serial[1:] + four + key)),
        sequence(sequence(version + serial + b"\x3f\x10\x00" + four[4:] + key)),
    ]


def test_a_certificate_that_is_no_strict_der_is_refused() -> None:
    plain = sequence(sequence(bytes.fromhex("a003020102020101") + sequence(b"") * 4 + misleading_certificates()[0][-44:]))
    assert install_remote.key_of(plain) == CHIEF.public  # the frame of these certificates is right, so that the test can fail
    assert line_accepts(plain)
    for der in misleading_certificates():
        assert install_remote.key_of(der) is None
        assert not line_accepts(der)


def line_accepts(der: bytes) -> bool:
    """Whether the line's own walk of the certificate finds the chief's key; its code is cut out of the line and run."""
    code = shlex.split(install_line(CHIEF.public, "h", 1))[2]
    walk = code[code.index("q=lambda") : code.index("s.sendall")]
    try:
        exec(walk, {"d": der, "sys": sys})
    except (SystemExit, IndexError):
        return False
    return True


def test_the_line_itself_is_not_fooled_either() -> None:
    der = lambda identity: x509.load_pem_x509_certificate(peer_certificate(identity)[0]).public_bytes(serialization.Encoding.DER)  # noqa: E731
    assert line_accepts(der(CHIEF))
    assert not line_accepts(der(IMPOSTOR))
    assert not line_accepts(forged_certificate())


@asynccontextmanager
async def chief_serving(house: Wheelhouse, identity: Identity = CHIEF) -> AsyncIterator[tuple[str, int]]:
    async def get(path: str) -> tuple[int, str, bytes]:
        return house.get(path)

    async def on_channel(channel: object) -> None:
        raise AssertionError("nobody opens a channel here")

    async with trio.open_nursery() as nursery:
        serve = partial(serve_rpc, identity=identity, host="127.0.0.1", port=0, registry=MESSAGES, on_channel=on_channel, http_get=get)
        host, _, port = (await nursery.start(serve)).rpartition(":")
        yield host, int(port)
        nursery.cancel_scope.cancel()


async def run_line(address: tuple[str, int], *arguments: str, key: bytes = CHIEF.public) -> tuple[int, str]:
    line = install_line(key, *address, python=shlex.quote(sys.executable), arguments=shlex.join(arguments))
    done = await trio.run_process(["/bin/sh", "-c", line], check=False, capture_stdout=True, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


def tiny_house(tmp_path: Path) -> Wheelhouse:
    files = {"tiny/__init__.py": "import low\ndef main():\n    print('tiny works with', low.version)\n"}
    install_tiny(tmp_path / "site", "tiny", files=files, requires=["low>=1"], scripts="company = tiny:main")
    install_tiny(tmp_path / "site", "low")
    return build_wheelhouse(tmp_path / "house", root="tiny", installed=dists(tmp_path / "site"))


async def test_the_line_installs_from_the_chief_alone(tmp_path: Path) -> None:
    async with chief_serving(tiny_house(tmp_path)) as address:
        code, said = await run_line(address, "--target", str(tmp_path / "venv"), "--token", "tok")
        assert (code, "worker join tok" in said) == (0, True), said
        done = await trio.run_process([tmp_path / "venv/bin/company"], capture_stdout=True)
        assert done.stdout == b"tiny works with 1.0\n"


async def test_another_chief_at_the_same_address_installs_nothing(tmp_path: Path) -> None:
    async with chief_serving(tiny_house(tmp_path), IMPOSTOR) as address:
        code, said = await run_line(address, "--target", str(tmp_path / "venv"))
    assert code == 1
    assert "not the chief that made this line" in said
    assert not (tmp_path / "venv").exists()


async def test_a_wheel_that_is_not_the_one_announced_is_refused(tmp_path: Path) -> None:
    house = tiny_house(tmp_path)
    data = bytearray(house.wheels[0].path.read_bytes())
    data[50] ^= 1
    house.wheels[0].path.write_bytes(data)
    async with chief_serving(house) as address:
        code, said = await run_line(address, "--target", str(tmp_path / "venv"))
    assert (code, "came damaged" in said) == (1, True), said
    assert not (tmp_path / "venv").exists()


async def test_wheels_for_another_python_are_refused_with_the_one_needed(tmp_path: Path) -> None:
    house = tiny_house(tmp_path)
    index = json.loads(house.index) | {"python": "3.99", "compiled": 1}
    async with chief_serving(Wheelhouse(house.folder, house.wheels, json.dumps(index).encode())) as address:
        code, said = await run_line(address, "--target", str(tmp_path / "venv"))
    assert code == 1
    assert "The chief runs Python 3.99" in said
    assert "python3.99-venv" in said


@pytest.mark.parametrize("names", ["../../evil.whl", "/etc/x.whl", "a b.whl", "x.txt"])
async def test_a_file_name_that_leads_out_is_refused(names: str, tmp_path: Path) -> None:
    house = tiny_house(tmp_path)
    index = json.loads(house.index) | {"wheels": [{"file": names, "size": 1, "sha256": ""}]}
    async with chief_serving(Wheelhouse(house.folder, house.wheels, json.dumps(index).encode())) as address:
        code, said = await run_line(address, "--target", str(tmp_path / "venv"))
    assert (code, "that cannot be" in said) == (1, True), said


def test_a_script_that_was_cut_short_does_nothing() -> None:
    source = Path(install_remote.__file__).read_text()
    head, marker, tail = source.rpartition('\nif "CHIEF" in globals():\n')
    assert marker
    assert tail.count("\n") == 1
    exec(compile(head, "install.py", "exec"), {"__name__": "install", "CHIEF": ("h", 1), "KEY": "", "ARGV": []})


@pytest.mark.slow
def test_a_fresh_environment_runs_company_from_the_wheelhouse_alone(tmp_path: Path) -> None:
    own = installed_distributions()["company-compute"]
    house = build_wheelhouse(tmp_path / "house")
    assert (source_tree_of(own) is None) or any(w.file.startswith("company_compute-") for w in house.wheels)
    venv, environment = tmp_path / "venv", {"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull}
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    command = [venv / "bin/pip", "install", "-q", "--no-index", "--find-links", house.folder, "company-compute"]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    subprocess.run([venv / "bin/pip", "check"], check=True, env=environment, cwd=tmp_path)
    said = subprocess.check_output([venv / "bin/company", "--version"], text=True, env=environment, cwd=tmp_path)
    assert own.version in said
