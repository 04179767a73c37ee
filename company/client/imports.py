"""Which modules a module's source imports, by their full names (pure).

What stands in ``try`` is left out, since the program has another way, and what only type checkers read.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping


def imports_of(tree: ast.Module, name: str, *, is_package: bool) -> set[str]:
    """Full names of all that module ``name`` may import; of ``from a import b`` both ``a`` and ``a.b``, which need not be a module."""
    found: set[str] = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, name, is_package=is_package)
            if base:
                found.add(base)
                found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and _is_for_types(node.test):
            stack.extend(node.orelse)
        elif not isinstance(node, ast.Try):
            stack.extend(ast.iter_child_nodes(node))
    return found


def _base(node: ast.ImportFrom, name: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    up = node.level - 1 if is_package else node.level
    if up >= len(parts):
        return ""  # beyond the outermost package: it cannot be imported
    parts = parts[: len(parts) - up]
    return ".".join([*parts, node.module] if node.module else parts)


def _is_for_types(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING")


def paths_of(name: str, files: Mapping[str, bytes]) -> list[tuple[str, str, bool]]:
    """What importing ``name`` reads of ``files`` (by path below the import folder): (module, path, whether it is a package's)."""
    found = []
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        module = ".".join(parts[:count])
        path = "/".join(parts[:count])
        if f"{path}/__init__.py" in files:
            found.append((module, f"{path}/__init__.py", True))
        elif f"{path}.py" in files:
            found.append((module, f"{path}.py", False))
    return found
