"""Which modules a source imports, and what of a local package's requirements a function therefore brings."""

from __future__ import annotations

import ast
import importlib
import sys
import textwrap
from pathlib import Path

import pytest

from company.client.functions import needs_of
from company.client.imports import imports_of, paths_of


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import a.b, c", {"a.b", "c"}),
        ("from a import b", {"a", "a.b"}),
        ("from . import x", {"p.q", "p.q.x"}),
        ("from .r import x", {"p.q.r", "p.q.r.x"}),
        ("from ..r import x", {"p.r", "p.r.x"}),
        ("def f():\n    import late", {"late"}),
        ("try:\n    import fast\nexcept ImportError:\n    fast = None", set()),
        ("if TYPE_CHECKING:\n    import words\nelse:\n    import other", {"other"}),
        ("if typing.TYPE_CHECKING:\n    import words", set()),
        ("from .... import beyond", set()),
    ],
)
def test_imports_have_their_full_names(source: str, found: set[str]) -> None:
    assert imports_of(ast.parse(source), "p.q.m", is_package=False) == found


def test_a_package_is_its_own_base() -> None:
    assert imports_of(ast.parse("from . import x\nfrom .. import y"), "p.q", is_package=True) == {"p.q", "p.q.x", "p", "p.y"}


def test_importing_a_module_reads_the_packages_above_it() -> None:
    files = {"p/__init__.py": b"", "p/m.py": b"", "p/q/__init__.py": b""}
    assert paths_of("p.m.name", files) == [("p", "p/__init__.py", True), ("p.m", "p/m.py", False)]
    assert paths_of("p.q", files) == [("p", "p/__init__.py", True), ("p.q", "p/q/__init__.py", True)]


def test_a_package_brings_the_requirements_of_what_is_imported_and_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {
        "__init__.py": "",
        "web.py": "import trio\n",
        "sums.py": "from .base import half\nfrom needs_of_another import twice\n",
        "base.py": "def half(x):\n    import joblib\n    return x / 2\n",
    }
    package = tmp_path / "needs_of_package"
    package.mkdir()
    for name, source in sources.items():
        (package / name).write_text(source)
    (tmp_path / "needs_of_another.py").write_text(textwrap.dedent("def twice(x):\n    import hypothesis\n    return 2 * x\n"))
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        importlib.import_module("needs_of_package.sums")
        needs = needs_of({"needs_of_package.sums"})
        assert {r.partition("==")[0] for r in needs.requirements} == {"joblib", "hypothesis"}
        assert set(needs.files) == {f"needs_of_package/{name}" for name in sources} | {"needs_of_another.py"}
    finally:
        for name in [m for m in sys.modules if m.startswith("needs_of_")]:
            del sys.modules[name]
