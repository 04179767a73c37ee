"""What a package needs beyond Python, numpy and msgpack: whether it is here, and how it gets here offline (I/O).

The chief collects wheels, from its owner's folder or by packing what is installed there again; a worker whose owner allows it makes
a read-only folder of packages from them, named by what is in it, so that it is made once. pip runs without index, network or build
steps, and only on files whose SHA-256 was promised.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from company.wheel_repack import WheelFile, read_wheel_file
from company.wheelhouse import closure, installed_distributions, pack_again
from p2p.base.errors import Action, Reason, Unavailable, UsageError

PIP_TIMEOUT_S = 300.0
COMPILE_TIMEOUT_S = 120.0
COMPILE_BYTES = 2 << 30
IMPORT_TIMEOUT_S = 60.0
MAX_LISTED = 100


def missing(
    requirements: Sequence[str], python: str = "", *, installed: Mapping[str, Distribution] | None = None, version: str = ""
) -> list[Reason]:
    """Why this interpreter cannot run a package, empty when it can; what requirements require counts too.

    ``python``: the package's specifier. ``version``: the interpreter's, default this one's.
    """
    here = version or ".".join(map(str, sys.version_info[:3]))
    reasons: list[Reason] = []
    try:
        if not SpecifierSet(python).contains(here, prereleases=True):
            text = f"the package needs Python {python}, this worker has {here}"
            reasons.append(Reason("python-mismatch", text, {"required": python, "found": here}))
        lacking = closure(requirements, installed_distributions() if installed is None else installed).missing
    except (InvalidRequirement, InvalidSpecifier) as error:
        raise UsageError("bad-requirement", str(error).split("\n")[0]) from None
    for text in lacking[:MAX_LISTED]:
        actions = (
            Action("install it where the worker runs", cli=f"pip install '{text.split(' (')[0]}'"),
            Action("or let the worker take wheels from its chief", cli="company worker join TOKEN --allow-requirements"),
        )
        reasons.append(Reason("requirement-missing", f"{text} is not installed on this worker", {"requirement": text}, actions))
    return reasons


def modules_of(distribution: Distribution) -> tuple[str, ...]:
    """The importable top-level names of a distribution, those that begin with an underscore left out."""
    names: set[str] = set()
    for file in distribution.files or ():
        top = file.parts[0]
        if len(file.parts) > 1 and file.name == "__init__.py" and len(file.parts) == 2:
            names.add(top)
        elif len(file.parts) == 1 and file.suffix in (".py", ".so", ".pyd"):
            names.add(top.split(".")[0])
    return tuple(sorted(name for name in names if name.isidentifier() and not name.startswith("_")))


def check_by_import(
    requirements: Sequence[str], *, python: str = sys.executable, site: Path | None = None, timeout_s: float = IMPORT_TIMEOUT_S
) -> list[Reason]:
    """Import each requirement's modules in an interpreter of their own: what is installed may still be broken. Blocking.

    ``site``: a folder from `build_environment` to look in first.
    """
    installed = installed_distributions([str(site), *sys.path] if site else None)
    reasons: list[Reason] = []
    for text in requirements:
        requirement = Requirement(text)
        distribution = installed.get(canonicalize_name(requirement.name))
        if distribution is None or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue  # `missing` has said so
        code = f"import sys; sys.path[:0] = {[str(site)] if site else []!r}\n" + "".join(f"import {m}\n" for m in modules_of(distribution))
        try:
            run = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=timeout_s, check=False)
            said = run.stderr.strip().splitlines()[-1:] if run.returncode else None
        except subprocess.TimeoutExpired:
            said = [f"it took more than {timeout_s:.0f} s"]
        if said is not None:
            detail = (said or ["the interpreter died"])[0][:300]
            reasons.append(Reason("requirement-broken", f"{text} is installed but cannot be imported: {detail}", {"requirement": text}))
    return reasons


def collect_wheels(requirements: Sequence[str], folder: Path, *, given: Path | None = None) -> tuple[WheelFile, ...]:
    """Bring the wheels of ``requirements`` and all they require together in ``folder``; sorted by name. Blocking.

    ``given``: a folder in which the chief's owner put wheels; they come before what is installed here.
    Raises `Unavailable` requirement-missing, or wheel-not-repackable.
    """
    known = dict(installed_distributions())
    wheels = {} if given is None else given_wheels(given)
    known |= {name: distribution for name, (distribution, _) in wheels.items()}
    needed = closure(requirements, known)
    if needed.missing:
        text = "the chief has no wheels for " + ", ".join(needed.missing)
        raise Unavailable("requirement-missing", text, hint="put the wheels into the chief's wheel folder", missing=list(needed.missing))
    folder.mkdir(parents=True, exist_ok=True)
    found: list[WheelFile] = []
    for distribution in needed.found:
        owners = wheels.get(canonicalize_name(distribution.metadata["Name"]))
        if owners is None:
            found.append(pack_again(distribution, folder))
        else:
            copy = folder / owners[1].name
            shutil.copyfile(owners[1], copy)
            found.append(read_wheel_file(copy))
    return tuple(found)


def given_wheels(folder: Path) -> dict[str, tuple[Distribution, Path]]:
    """Canonical name to (metadata, path) of the wheels in a folder, the newest version of each."""
    found: dict[str, tuple[Distribution, Path]] = {}
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
            with zipfile.ZipFile(path) as archive:
                info = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA")).rpartition("/")[0]
        except (InvalidWheelFilename, zipfile.BadZipFile, StopIteration) as error:
            text = f"{path} is not a wheel: {error or 'it has no METADATA'}"
            raise UsageError("bad-wheel", text, hint="take it out of the wheel folder", path=str(path)) from None
        before = found.get(name)
        if before is None or parse_wheel_filename(before[1].name)[1] < version:
            found[name] = (PathDistribution(zipfile.Path(path, info + "/")), path)
    return found


def forget_environments(folder: Path, *, keep: int, unused_s: float) -> None:
    """Remove environments below ``folder`` that nobody has used for so long, but for the ``keep`` that were used last. Blocking."""
    now = time.time()
    with contextlib.suppress(OSError):
        known = sorted(((e.stat().st_mtime, Path(e.path)) for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)), reverse=True)
        for used_at, path in known[keep:]:
            if now - used_at > unused_s:
                path.chmod(0o755)
                _make_writable(path)
                shutil.rmtree(path, ignore_errors=True)


def environment_key(wheels: Iterable[tuple[str, str]], requirements: Sequence[str]) -> str:
    """The name of an environment: hash of its wheels' (file, SHA-256), the requirements and the interpreter's kind."""
    rows = [sys.implementation.cache_tag or "", *sorted(requirements), *sorted(f"{file} {sha256}" for file, sha256 in wheels)]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def build_environment(
    wheels_dir: Path,
    requirements: Sequence[str],
    target: Path,
    *,
    promised: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Path:
    """Return a read-only folder of packages below ``target``, made offline from the wheels in ``wheels_dir`` unless it is there. Blocking.

    ``promised``: file name to hex SHA-256, as the chief announced them.
    Raises `UsageError` bad-requirement, `Unavailable` wheel-damaged or environment-failed; nothing is left then.
    """
    for text in requirements:  # whoever wrote the list: pip is given names and versions, never an address, path or option
        try:
            is_plain = Requirement(text).url is None
        except InvalidRequirement:
            is_plain = False
        if not is_plain:
            raise UsageError("bad-requirement", f"{text[:80]!r} is not a distribution with versions, like numpy>=2")
    wheels = [read_wheel_file(path) for path in sorted(wheels_dir.glob("*.whl"))]
    found = {wheel.file: wheel.sha256 for wheel in wheels}
    if promised is not None and found != dict(promised):
        wrong = sorted(file for file in {*found, *promised} if found.get(file) != promised.get(file))
        raise Unavailable("wheel-damaged", "not the wheels that were promised: " + ", ".join(wrong[:5]), files=wrong)
    site = target / environment_key(found.items(), requirements)
    if site.is_dir():
        return site
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target) as making:
        partial = Path(making, "site")
        _pip_install(python, wheels_dir, requirements, partial)
        _compile(python, partial)
        _make_read_only(partial)
        try:
            # Linux moves a folder only if its owner may write to it, because ".." changes
            partial.chmod(0o755)
            partial.rename(site)
            site.chmod(0o555)
        except OSError:
            _make_writable(partial)
            if not site.is_dir():  # else another slot was faster: its folder has the same content
                raise
    return site


def _pip_install(python: str, wheels_dir: Path, requirements: Sequence[str], partial: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    environment["PIP_CONFIG_FILE"] = os.devnull  # the machine's own settings may name an index
    command = [python, "-I", "-m", "pip", "install", "--no-index", "--find-links", str(wheels_dir), "--only-binary", ":all:"]
    command += ["--no-compile", "--target", str(partial), "--no-cache-dir", "--disable-pip-version-check", "--quiet", "--", *requirements]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, env=environment, check=False)
        said = (done.stderr or done.stdout).strip()[-1500:] if done.returncode else None
    except subprocess.TimeoutExpired:
        said = f"pip took more than {PIP_TIMEOUT_S:.0f} s"
    if said is not None:
        raise Unavailable("environment-failed", f"the requirements could not be installed: {said}", requirements=list(requirements))
    partial.mkdir(exist_ok=True)  # pip makes none when there is nothing to install


def _compile(python: str, partial: Path) -> None:
    """Bytecode beside the sources, once: no child may write there, and importing scikit-learn without takes three times as long.

    What cannot be compiled is compiled when it is imported, if it ever is.
    """
    code = (
        f"import compileall, resource; resource.setrlimit(resource.RLIMIT_AS, ({COMPILE_BYTES}, {COMPILE_BYTES})); "
        "import re, sys; compileall.compile_dir(sys.argv[1], quiet=2, rx=re.compile(r'/tests?/'))"
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run([python, "-I", "-c", code, str(partial)], capture_output=True, timeout=COMPILE_TIMEOUT_S, check=False)


def _make_read_only(folder: Path) -> None:
    for parent, folders, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            path.chmod(0o555 if path.stat().st_mode & 0o100 else 0o444)
        for name in folders:
            Path(parent, name).chmod(0o555)


def _make_writable(folder: Path) -> None:
    """So that a temporary folder can be removed."""
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            Path(parent, name).chmod(0o755)
