"""The functions of a module and what they accept, read from its source without running it (pure)."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

from p2p.base.record import record

MAX_SOURCE_BYTES = 1 << 20


class SourceError(ValueError):
    """A file that is not Python; ``line`` is nil where there is none."""

    def __init__(self, line: int | None, detail: str) -> None:
        super().__init__(detail)
        self.line = line
        self.detail = detail


@record
class Function:
    """A function of a package. The first ``positional`` parameters are filled by position, the rest by name from the job's parameters."""

    name: str
    path: str
    line: int
    positional: int  # parameters that can be given by position, without *args
    has_varargs: bool
    params: tuple[str, ...]  # all named parameters, in order, the positional ones of the contract included
    required: frozenset[str]  # those without a default
    positional_only: frozenset[str]
    accepts_any: bool  # has **params
    is_async: bool = False
    is_generator: bool = False
    returns_value: bool = False
    is_checked: bool = True  # False: bound by assignment or import, so its parameters are unknown here


def parse_source_untrusted(content: bytes) -> ast.Module:
    """Parse a stranger's Python file. Raises only `SourceError`."""
    if len(content) > MAX_SOURCE_BYTES:
        raise SourceError(None, f"a source file may have at most {MAX_SOURCE_BYTES} bytes, this has {len(content)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes are the author's business, not the chief's log's
            return ast.parse(content)
    except SyntaxError as error:
        raise SourceError(error.lineno or None, f"syntax error: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError, UnicodeError) as error:
        raise SourceError(None, f"cannot be parsed: {type(error).__name__}: {str(error)[:100]}") from None


def find_functions(tree: ast.Module, path: str, wanted: tuple[str, ...]) -> dict[str, Function]:
    """Return those of ``wanted`` that the module binds at its top level, the last binding of each."""
    found: dict[str, Function] = {}
    for node in _top_level(tree.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in wanted:
            found[node.name] = _of_def(node, path)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and target.id in wanted:
                    found[target.id] = _of_value(target.id, node.value, path, node.lineno)
        elif isinstance(node, (ast.ImportFrom, ast.Import)):
            for alias in node.names:
                name = alias.asname or alias.name
                if name in wanted:
                    found[name] = _unknown(name, path, node.lineno)
    return found


def imported_modules(tree: ast.Module) -> dict[str, int]:
    """Return the top-level names of all absolute imports with the line of the first, guarded ones (in ``try``) left out."""
    found: dict[str, int] = {}
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.setdefault(alias.name.split(".")[0], node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.setdefault(node.module.split(".")[0], node.lineno)
        elif not isinstance(node, ast.Try):
            stack.extend(ast.iter_child_nodes(node))
    return found


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    stack = list(reversed(body))
    while stack:
        node = stack.pop()
        yield node
        inner: list[ast.stmt] = []
        if isinstance(node, (ast.If, ast.With, ast.For, ast.While, ast.Try)):
            inner += node.body
            inner += getattr(node, "orelse", [])
            inner += getattr(node, "finalbody", [])
            for handler in getattr(node, "handlers", []):
                inner += handler.body
        stack.extend(reversed(inner))


def _of_def(node: ast.FunctionDef | ast.AsyncFunctionDef, path: str) -> Function:
    is_generator = returns_value = False
    stack: list[ast.AST] = list(node.body)
    while stack:
        inner = stack.pop()
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        is_generator |= isinstance(inner, (ast.Yield, ast.YieldFrom))
        returns_value |= isinstance(inner, ast.Return) and inner.value is not None
        stack.extend(ast.iter_child_nodes(inner))
    is_async = isinstance(node, ast.AsyncFunctionDef)
    return _of_arguments(node.name, node.args, path, node.lineno, is_async=is_async, is_generator=is_generator, returns_value=returns_value)


def _of_value(name: str, value: ast.expr, path: str, line: int) -> Function:
    if isinstance(value, ast.Lambda):
        return _of_arguments(name, value.args, path, line, is_async=False, is_generator=False, returns_value=True)
    return _unknown(name, path, line)


def _unknown(name: str, path: str, line: int) -> Function:
    return Function(name, path, line, 2, True, (), frozenset(), frozenset(), accepts_any=True, returns_value=True, is_checked=False)


def _of_arguments(
    name: str, args: ast.arguments, path: str, line: int, *, is_async: bool, is_generator: bool, returns_value: bool
) -> Function:
    by_position = [*args.posonlyargs, *args.args]
    without_default = by_position[: len(by_position) - len(args.defaults)]
    required = {a.arg for a in without_default}
    required |= {a.arg for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is None}
    return Function(
        name, path, line, len(by_position), args.vararg is not None,
        tuple(a.arg for a in (*by_position, *args.kwonlyargs)), frozenset(required),
        frozenset(a.arg for a in args.posonlyargs), accepts_any=args.kwarg is not None,
        is_async=is_async, is_generator=is_generator, returns_value=returns_value,
    )  # fmt: skip
