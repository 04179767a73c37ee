"""The shape of the house, checked on the files themselves: what each says it is, what it imports, where the tour leads."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("p2p", "company", "simulator")
MAX_LINES = 400
MAX_TEST_LINES = 600
STEPS = 9
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers"}
ASYNCIO_LIBRARIES = {"asyncio", "trio_asyncio", "aiohttp", "kademlia"}
ASYNCIO_MODULES = {
    "p2p.net.asyncio_bridge", "p2p.net.http_server", "p2p.net.http_door", "p2p.net.http_client", "p2p.net.lean_aiohttp", "p2p.dht.adapter",
}  # fmt: skip
# what a pure module may not reach, not even through another module of ours
IO_LIBRARIES = (
    "socket", "ssl", "select", "trio", "asyncio", "trio_asyncio", "aiohttp", "sqlalchemy", "alembic", "sqlite3", "subprocess", "threading",
    "multiprocessing", "tempfile", "psutil",
)  # fmt: skip
CLOCK_AND_CHANCE = {"time", "secrets", "random", "os", "shutil"}  # what it may not import itself; a `Random` handed in may be named
NOT_QUITE_PURE = {
    "company.chief.store.schema": "declares tables with SQLAlchemy; touches no database",
}
ADDRESSES = re.compile(
    r"""(?<![\w}])/work/|(?<![\w}])/root/|/home/(?!new\b)[a-z]+|(?:https?|file)://[^\s"'`]*(?:pypi|pythonhosted|npmjs|/simple/|proxy\.golang)|^--(?:extra-)?index-url""",
    re.MULTILINE,
)


def tracked() -> list[Path]:
    """Files of the project: what git has or would add; outside a clone, everything but hidden folders."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode == 0:
        return [path for name in done.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]
    return [p for p in ROOT.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]


def source_files() -> list[Path]:
    """Every module that is shipped; the templates are a user's files, not modules."""
    found = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return [path for path in found if "package_templates" not in path.parts]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def first_line(path: Path) -> str:
    return (ast.get_docstring(tree_of(path)) or "").partition("\n")[0]


def is_pure(path: Path) -> bool:
    """Whether the first line says so without a "but"."""
    line = first_line(path)
    return bool(re.search(r"\(pure[);,]", line)) and "(pure, but" not in line and "(I/O" not in line


def imports_of(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each import that runs, with the names taken from it; those for type checkers alone do not count."""
    for_types = {
        id(inside)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inside in ast.walk(statement)
    }
    for node in ast.walk(tree_of(path)):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, tuple(alias.name for alias in node.names)


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None)


def test_every_module_says_in_its_first_line_what_it_does_and_whether_it_is_pure() -> None:
    silent = [
        f"{path.relative_to(ROOT)}: {first_line(path)!r}"
        for path in source_files()
        if path.name not in ("__init__.py", "__main__.py")
        and "versions" not in path.parts
        and not re.search(r"\((pure|I/O)", first_line(path))
    ]
    assert silent == []


def test_every_package_and_module_has_a_docstring() -> None:
    assert [str(path.relative_to(ROOT)) for path in source_files() if not first_line(path)] == []


def test_pure_modules_read_no_clock_and_make_no_random_choice() -> None:
    found = []
    for path in filter(is_pure, source_files()):
        for module, names in imports_of(path):
            top = module.partition(".")[0]
            handed_in = (top == "random" and names == ("Random",)) or name_of(path) == "p2p.base.rng"
            if top in CLOCK_AND_CHANCE and not handed_in:
                found.append(f"{name_of(path)} imports {module}")
        found += [
            f"{name_of(path)}:{node.lineno} asks the calendar"
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("utcnow", "today")
        ]
    assert found == []


def test_pure_modules_reach_no_io_library_not_even_through_others() -> None:
    pure = [name_of(path) for path in source_files() if is_pure(path)]
    assert len(pure) > 50  # else the mark is no longer recognised, and nothing is checked
    libraries = [library for library in IO_LIBRARIES if library in graph().modules]
    chains = [
        " > ".join(chain)
        for module in pure
        if module not in NOT_QUITE_PURE
        for library in libraries
        if (chain := graph().find_shortest_chain(module, library)) is not None
    ]
    assert chains == []


def test_exceptions_from_purity_are_still_needed() -> None:
    for module in NOT_QUITE_PURE:
        assert any(graph().find_shortest_chain(module, library) for library in IO_LIBRARIES if library in graph().modules), module


def test_only_the_bridge_and_the_http_modules_know_asyncio() -> None:
    knowing = {name_of(p) for p in source_files() if any(m.partition(".")[0] in ASYNCIO_LIBRARIES for m, _ in imports_of(p))}
    assert knowing == ASYNCIO_MODULES


def test_shared_modules_of_company_import_no_process_of_it() -> None:
    builders = {
        "cli",
        "node",
        "local_engine",
        "cluster",
        "joblib",
        "aio",
        "demo",
        "demo_borrowing",
        "demo_company",
        "__main__",
    }  # put parts together
    processes = {"cli", "node", "chief", "worker", "client", "web"}
    found = []
    for path in source_files():
        parts = name_of(path).split(".")
        if parts[0] != "company" or len(parts) < 2 or parts[1] in builders | processes:
            continue
        imported = [m for m, _ in imports_of(path) if m.startswith("company.") and m.split(".")[1] in processes]
        found += [f"{name_of(path)} imports {m}" for m in imported]
    assert found == []


def test_the_way_of_a_fragment_runs_from_step_1_to_9_with_none_missing() -> None:
    steps: dict[int, list[str]] = {}
    for path in source_files():
        if line := re.match(r"Fragment path (\d+)/(\d+)", first_line(path)):
            assert int(line[2]) == STEPS, f"{path.relative_to(ROOT)} says {line[0]}; there are {STEPS} steps"
            steps.setdefault(int(line[1]), []).append(name_of(path))
        else:
            assert not first_line(path).startswith("Fragment path"), path
    assert sorted(steps) == list(range(1, STEPS + 1))


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [str(p.relative_to(ROOT)) for p in tracked() if p.suffix == ".py" and p.stem.lower() in VAGUE_NAMES] == []


@pytest.mark.parametrize(("folders", "limit"), [((*PACKAGES, "tools", "benchmarks", "examples"), MAX_LINES), (("tests",), MAX_TEST_LINES)])
def test_no_file_is_too_long_to_be_read(folders: tuple[str, ...], limit: int) -> None:
    files = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    assert [f"{p.relative_to(ROOT)} has {n} lines" for p in files if (n := p.read_bytes().count(b"\n")) > limit] == []


def test_no_file_names_this_machine_or_a_registry() -> None:
    found = []
    for path in tracked():
        if path == Path(__file__) or "vendor" in path.parts or "tests" in path.relative_to(ROOT).parts[:1]:
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {hit[0]!r}" for hit in ADDRESSES.finditer(text)]
    assert found == []
