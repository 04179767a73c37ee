"""A program whose safe loops ask, round by round, whether somebody else has computed it (pure).

`for x in rows: y = f(x); out.append(y * y)` becomes

    for x, done in divide(0, lambda item: [(y, y * y) for x in (item,) for y in (f(x),)][0], rows):
        if done is None: y = f(x); out.append(y * y)
        else: y = done[0]; out.append(done[1])

so the loop stays a loop of the program: whoever divides it may answer None for any round and at any time, and the round is then run as it
was written, in its place, with whatever it raises. Names that the loop leaves behind are those that it always left.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass

from company.divide import Uses, Verdict, judge

HELPER = "__company_divide__"
_DONE, _ITEM = "__company_done__", "__company_item__"


@dataclass(slots=True)
class Part:
    """One safe loop. ``here`` and ``there``: rounds that were run by the program itself, and by others."""

    verdict: Verdict
    uses: Uses
    here: int = 0
    there: int = 0


def rewrite(source: str, filename: str) -> tuple[ast.Module, list[Part], list[Verdict]]:
    """The program's tree, its parts that may be divided, and all verdicts. Raises `SyntaxError`."""
    tree = ast.parse(source, filename)
    found, module = judge(tree)
    rewriter = _Rewriter({id(node): Part(verdict, module.uses(node)) for node, verdict in found if verdict.is_safe})
    made = rewriter.visit(tree)
    assert isinstance(made, ast.Module)
    return ast.fix_missing_locations(made), rewriter.parts, sorted((v for _, v in found), key=lambda v: (v.line, v.kind))


class _Rewriter(ast.NodeTransformer):
    """Outermost loops only: what lies inside one goes along with it."""

    def __init__(self, safe: dict[int, Part]) -> None:
        self._safe = safe
        self.parts: list[Part] = []

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        part = self._safe.get(id(node))
        if part is None:
            return self.generic_visit(node)
        loop = node.generators[0]
        call = self._call(part, [copy.deepcopy(node.elt)], [(loop.target, None)], loop.iter)
        value = ast.IfExp(_is_none(), node.elt, _of_done(0))
        made = ast.ListComp(value, [ast.comprehension(_and_done(loop.target), call, [], 0)])
        return ast.copy_location(made, node)

    def visit_For(self, node: ast.For) -> ast.AST:
        part = self._safe.get(id(node))
        if part is None:
            return self.generic_visit(node)
        *computing, last = node.body
        assert isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)
        steps: list[tuple[ast.expr, ast.expr | None]] = [(node.target, None)]
        names: list[str] = []
        for statement in computing:
            assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
            names.append(statement.targets[0].id)
            steps.append((statement.targets[0], statement.value))
        values: list[ast.expr] = [ast.Name(name, ast.Load()) for name in names]
        call = self._call(part, [*values, copy.deepcopy(last.value.args[0])], steps, node.iter)
        taken: list[ast.stmt] = [ast.Assign([ast.Name(name, ast.Store())], _of_done(at)) for at, name in enumerate(names)]
        taken.append(ast.Expr(ast.Call(copy.deepcopy(last.value.func), [_of_done(len(names))], [])))
        for statement in taken:
            ast.copy_location(statement, last)
        test = ast.copy_location(ast.If(_is_none(), node.body, taken), node.body[0])
        return ast.copy_location(ast.For(_and_done(node.target), call, [test], []), node)

    def _call(self, part: Part, values: list[ast.expr], steps: list[tuple[ast.expr, ast.expr | None]], iterable: ast.expr) -> ast.Call:
        """``divide(number, lambda item: [(values,) for target in (item,) for name in (expression,)][0], iterable)``."""
        loops = [
            ast.comprehension(
                copy.deepcopy(target), _one(copy.deepcopy(value) if value is not None else ast.Name(_ITEM, ast.Load())), [], 0
            )
            for target, value in steps
        ]
        body = ast.Subscript(ast.ListComp(ast.Tuple(values, ast.Load()), loops), ast.Constant(0), ast.Load())
        function = ast.Lambda(ast.arguments([], [ast.arg(_ITEM)], None, [], [], None, []), body)
        self.parts.append(part)
        return ast.Call(ast.Name(HELPER, ast.Load()), [ast.Constant(len(self.parts) - 1), function, iterable], [])


def _one(value: ast.expr) -> ast.expr:
    return ast.Tuple([value], ast.Load())


def _is_none() -> ast.expr:
    return ast.Compare(ast.Name(_DONE, ast.Load()), [ast.Is()], [ast.Constant(None)])


def _of_done(at: int) -> ast.expr:
    return ast.Subscript(ast.Name(_DONE, ast.Load()), ast.Constant(at), ast.Load())


def _and_done(target: ast.expr) -> ast.expr:
    return ast.Tuple([target, ast.Name(_DONE, ast.Store())], ast.Store())
