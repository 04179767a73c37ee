"""Every reason and error code that the sources can give, found by reading them (I/O: reads files).

``python -m tools.reason_codes`` prints the codes that docs/reasons.md does not explain, and the explained ones that no longer exist.
A code is the first argument, a plain string, of `Reason` or of any class derived from `ParallelError` (the second, where the first is
a number: an HTTP status).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reasons.md"
SHORTHANDS = {"_refused", "problem"}  # functions that make such an error from their first arguments
_CODE = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Use:
    """One place that gives a code."""

    code: str
    kind: str  # the class that carries it
    place: str  # path:line
    text: str  # its sentence as written in the source


def sources() -> list[Path]:
    """Every shipped module."""
    return [p for top in ("p2p", "company", "simulator") for p in sorted((ROOT / top).rglob("*.py")) if "package_templates" not in p.parts]


def uses() -> list[Use]:
    """Every use of a code, in the order of the files."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sources()}
    kinds = error_classes(trees.values())
    found = []
    for path, tree in trees.items():
        for kind, call in _calls(tree, kinds):
            has_status = isinstance(call.args[0], ast.Constant) and type(call.args[0].value) is int
            words = call.args[1:] if has_status else call.args
            if words and isinstance(first := words[0], ast.Constant) and isinstance(first.value, str) and _CODE.fullmatch(first.value):
                text = ast.unparse(words[1]) if len(words) > 1 else ""
                found.append(Use(first.value, kind, f"{path.relative_to(ROOT)}:{call.lineno}", text))
    return found


def error_classes(trees: Iterable[ast.AST]) -> set[str]:
    """Names of `Reason`, `ParallelError` and everything derived from it."""
    bases: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                # united, because two modules may have a class of one name
                bases.setdefault(node.name, set()).update(ast.unparse(base).rpartition(".")[2] for base in node.bases)
    found = {"Reason", "ParallelError"}
    while more := {name for name, parents in bases.items() if parents & found} - found:
        found |= more
    return found


def _calls(tree: ast.AST, kinds: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """Calls of the classes, and ``super().__init__`` and ``ParallelError.__init__`` inside them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in kinds:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr == "__init__":
                    arguments = [a for a in inner.args if not (isinstance(a, ast.Name) and a.id == "self")]
                    if arguments:
                        yield node.name, ast.copy_location(ast.Call(inner.func, arguments, inner.keywords), inner)
        elif isinstance(node, ast.Call) and node.args:
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name in kinds or name in SHORTHANDS:
                yield name, node


def explained() -> dict[str, int]:
    """Codes with a row in docs/reasons.md, and how many rows each has."""
    counts: dict[str, int] = {}
    for code in re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text("utf-8") if PAGE.exists() else "", re.MULTILINE):
        counts[code] = counts.get(code, 0) + 1
    return counts


def missing() -> list[Use]:
    """Codes that the page does not explain."""
    known = explained()
    return [use for use in uses() if use.code not in known]


def left_over() -> list[str]:
    """Explained codes that stand nowhere in the sources, not even as another kind of text."""
    texts = "\n".join(path.read_text("utf-8") for path in sources())
    return [code for code in sorted(explained()) if f'"{code}"' not in texts]


def main() -> int:
    """Print what is missing and what is left over; 1 when there is any."""
    for use in missing():
        print(f"missing: | `{use.code}` |  {use.kind} {use.place}  {use.text[:150]}")
    for code in left_over():
        print(f"left over: {code}")
    return 1 if missing() or left_over() else 0


if __name__ == "__main__":
    raise SystemExit(main())
