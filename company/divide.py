"""Which loops and comprehensions of a program may be divided into portions, and why not the others (pure): `company divide`.

What cannot be proved safe is left alone. A comprehension `[expression for x in iterable]` is safe when its expression is a pure function of
the loop variable: it calls only pure builtins, pure functions of `math`, and functions of the same file that are pure by the same rule; it
reads names that nothing assigns twice; it writes nothing, waits for nothing, asks no clock and no chance. A loop is safe when its body only
computes such an expression and appends it to one list that began empty just before. The analysis is one of sufficient conditions, in the
manner of effect systems; it never runs the program.

Source: Lucassen, Gifford 1988, "Polymorphic effect systems", for purity as absence of effects; the conditions here are stricter.
"""

from __future__ import annotations

import ast
import builtins
from collections import Counter

from p2p.base.record import record

# not hash, set, frozenset: what they give may differ from process to process
PURE_BUILTINS = frozenset((
    "abs", "all", "any", "ascii", "bin", "bool", "bytes", "chr", "complex", "dict", "divmod", "enumerate", "float", "hex", "int", "len",
    "list", "max", "min", "oct", "ord", "pow", "range", "repr", "reversed", "round", "slice", "sorted", "str", "sum", "tuple", "zip",
))  # fmt: skip
PURE_MODULES = frozenset(("math", "cmath", "operator"))
SETTINGS = frozenset((  # what changes how Python itself computes, warns or counts: a worker would compute otherwise
    "setrecursionlimit", "set_int_max_str_digits", "settrace", "setprofile", "simplefilter", "filterwarnings", "setlocale",
))  # fmt: skip
EFFECTS = {
    "print": "prints, so the order of its effects matters", "input": "reads standard input", "open": "opens files",
    "next": "consumes an iterator that others may share", "iter": "makes an iterator that keeps a state",
    "exec": "runs code made at run time", "eval": "runs code made at run time", "setattr": "changes an object",
    "delattr": "changes an object", "globals": "reaches all globals",
    "locals": "reaches all locals", "vars": "reaches an object's variables", "id": "depends on where objects lie", "__import__": "imports",
}  # fmt: skip
CHANCE = {"random": "makes random choices", "secrets": "makes random choices", "time": "reads the clock", "datetime": "reads the clock",
          "os": "reaches the operating system", "sys": "reaches the interpreter", "threading": "shares state between threads"}  # fmt: skip
PURE_METHODS = frozenset((
    "upper", "lower", "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "join", "replace", "startswith", "endswith", "find",
    "rfind", "count", "index", "encode", "decode", "title", "capitalize", "casefold", "isdigit", "isalpha", "isalnum", "isspace", "zfill",
    "center", "ljust", "rjust", "partition", "rpartition", "bit_length", "bit_count", "conjugate", "hex", "removeprefix", "removesuffix",
    "swapcase",
))  # fmt: skip


DOUBTFUL = (ast.Yield, ast.YieldFrom, ast.Await, ast.With, ast.AsyncWith, ast.AsyncFor, ast.Import, ast.ImportFrom, ast.Try)


@record
class Verdict:
    """What is said of one loop or comprehension."""

    line: int
    kind: str
    is_safe: bool
    reason: str


@record
class Uses:
    """The names of the file that a safe loop depends on, directly or through functions that it calls."""

    functions: dict[str, int]  # name: line of its definition
    constants: frozenset[str]
    imports: dict[str, str]  # name: module, or module.name
    builtins: frozenset[str]


class Impure(Exception):
    """Why an expression or function is not pure."""


def plan(source: str) -> list[Verdict]:
    """A verdict for every loop and comprehension, in the order of lines. Raises `SyntaxError`."""
    return sorted((verdict for _, verdict in judge(ast.parse(source))[0]), key=lambda v: (v.line, v.kind))


def judge(tree: ast.Module) -> tuple[list[tuple[ast.AST, Verdict]], _Module]:
    """Every loop and comprehension with its verdict."""
    module = _Module(tree)
    found: list[tuple[ast.AST, Verdict]] = []
    for parent in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(parent, field, None)
            if isinstance(block, list):
                for at, statement in enumerate(block):
                    if isinstance(statement, ast.For):
                        found.append((statement, module.judge_loop(statement, block[at - 1] if at else None)))
                    elif isinstance(statement, (ast.While, ast.AsyncFor)):
                        kind = "while" if isinstance(statement, ast.While) else "async for"
                        reason = "nobody knows its rounds before they are over"
                        found.append((statement, Verdict(statement.lineno, kind, False, reason)))
        if isinstance(parent, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            found.append((parent, module.judge_comprehension(parent)))
    return found, module


class _Module:
    """The names of one file and what is known of them."""

    def __init__(self, tree: ast.Module) -> None:
        self.functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        self.imports: dict[str, str] = {}
        self.bound: Counter[str] = Counter()  # how often each name is given a meaning, anywhere in the file; 2 for what may be anything
        self.setting = ""  # what changes Python itself
        for node in ast.walk(tree):
            for name in filter(None, (getattr(node, field, None) for field in ("id", "attr", "name"))):
                if name in SETTINGS:
                    self.setting = name
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._note_import(node)
            elif isinstance(node, ast.arg):
                self.bound[node.arg] += 1
            elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping)):
                self.bound[(node.rest if isinstance(node, ast.MatchMapping) else node.name) or ""] += 1
            elif isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
                self.bound[node.id] += 1
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.bound[node.name] += 1
            elif isinstance(node, ast.Global):
                self.bound.update(dict.fromkeys(node.names, 2))
            elif isinstance(node, (ast.AugAssign, ast.Assign)):
                targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
                for target in targets:  # writing into an object changes what its name means
                    for inner in ast.walk(target):
                        if isinstance(inner, (ast.Subscript, ast.Attribute)) and isinstance(inner.value, ast.Name):
                            self.bound[inner.value.id] += 2
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                is_harmless = node.func.attr in PURE_METHODS or node.func.value.id in self.imports
                self.bound[node.func.value.id] += 0 if is_harmless else 2  # a method that may change it
        self._known: dict[str, str] = {}
        self.constants = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def _note_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or (alias.name if isinstance(node, ast.ImportFrom) else alias.name.partition(".")[0])
            self.bound[name] += 1
            if isinstance(node, ast.ImportFrom):
                self.imports[name] = f"{'.' * node.level}{node.module or ''}.{alias.name}"
            else:
                self.imports[name] = alias.name

    def _check_file(self) -> None:
        if self.setting:
            raise Impure(f"the program calls {self.setting}, and workers would not follow")
        if "*" in self.imports:
            raise Impure(f"{self.imports['*'].rpartition('.')[0]} is imported with *, so any name may be one of its")

    def uses(self, node: ast.AST) -> Uses:
        """What a safe loop depends on."""
        functions: dict[str, int] = {}
        names, waiting = set[str](), [node]
        while waiting:
            for inner in ast.walk(waiting.pop()):
                if not isinstance(inner, ast.Name) or inner.id in names:
                    continue
                names.add(inner.id)
                if inner.id in self.functions:
                    functions[inner.id] = self.functions[inner.id].lineno
                    waiting.append(self.functions[inner.id])
        return Uses(
            functions=functions, constants=frozenset(names & self.constants - functions.keys()),
            imports={n: m for n, m in self.imports.items() if n in names},
            builtins=frozenset(n for n in names & PURE_BUILTINS if not self.bound[n]),
        )  # fmt: skip

    def judge_comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> Verdict:
        kinds = {ast.ListComp: "list", ast.SetComp: "set", ast.DictComp: "dict", ast.GeneratorExp: "generator"}
        kind = f"{kinds[type(node)]} comprehension"
        try:
            self._check_file()
            if isinstance(node, ast.GeneratorExp):
                raise Impure("it is a generator: whoever consumes it may stop early")
            if not isinstance(node, ast.ListComp):
                raise Impure("only lists are divided: the order of a set or a dict is made while it grows")
            if len(node.generators) != 1:
                raise Impure("it has several loops")
            loop = node.generators[0]
            if loop.ifs:
                raise Impure("it leaves items out; compute all and filter afterwards")
            if loop.is_async:
                raise Impure("it waits inside")
            self._check_iterable(loop.iter)
            self._check(node.elt, _targets(loop.target))
        except Impure as why:
            return Verdict(node.lineno, kind, False, str(why))
        return Verdict(node.lineno, kind, True, "each item is a pure function of the loop variable")

    def judge_loop(self, node: ast.For, before: ast.stmt | None) -> Verdict:
        try:
            self._check_file()
            for inner in ast.walk(node):
                if isinstance(inner, (ast.Break, ast.Return)):
                    raise Impure("it may end early")
                if isinstance(inner, (ast.Yield, ast.YieldFrom, ast.Await)):
                    raise Impure("it hands control away in the middle")
            if node.orelse:
                raise Impure("it has an else")
            self._check_iterable(node.iter)
            names = _targets(node.target)
            for statement in node.body[:-1]:
                if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)):
                    raise Impure(f"line {statement.lineno} does more than compute a value")
                name = statement.targets[0].id
                if self.bound[name] != 1:
                    raise Impure(f"{name} is changed in more than one place, so a round may depend on the one before")
                self._check(statement.value, names)
                names = names | {name}
            self._check_append(node.body[-1], names, before)
        except Impure as why:
            return Verdict(node.lineno, "for", False, str(why))
        return Verdict(node.lineno, "for", True, "each round appends a pure function of the loop variable to a list that began empty")

    def _check_append(self, last: ast.stmt, names: frozenset[str], before: ast.stmt | None) -> None:
        call = last.value if isinstance(last, ast.Expr) else None
        is_append = (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "append"
            and isinstance(call.func.value, ast.Name) and len(call.args) == 1 and not call.keywords
        )  # fmt: skip
        if not is_append:
            self._explain(last, names)
            raise Impure(f"line {last.lineno} changes something beyond the loop")
        assert isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name)
        target = call.func.value.id
        is_empty = (
            isinstance(before, ast.Assign) and len(before.targets) == 1 and isinstance(before.targets[0], ast.Name)
            and before.targets[0].id == target and isinstance(before.value, ast.List) and not before.value.elts
        )  # fmt: skip
        if not is_empty:
            raise Impure(f"{target} is not a list that began empty just before the loop")
        if any(isinstance(inner, ast.Name) and inner.id == target for inner in ast.walk(call.args[0])):
            raise Impure(f"it reads {target} while it grows")
        self._check(call.args[0], names)

    def _explain(self, statement: ast.stmt, names: frozenset[str]) -> None:
        """Raise the better reason where there is one."""
        for inner in ast.walk(statement):
            if isinstance(inner, ast.Call):
                self._check(inner, names)

    def _check_iterable(self, node: ast.expr) -> None:
        """Only what can be read again and again, and is finite: a literal, range, or a pure expression of such."""
        if isinstance(node, ast.Name):
            if self.bound[node.id] != 1:
                raise Impure(f"{node.id}, which it goes over, is changed elsewhere")
            raise Impure(f"{node.id}, which it goes over, may be an iterator that can be read only once")
        self._check(node, frozenset())

    def _check(self, node: ast.expr, names: frozenset[str]) -> None:
        """Raise `Impure` unless ``node`` is a pure function of ``names``."""
        match node:
            case ast.Constant():
                return
            case ast.Name():
                self._check_name(node.id, names)
            case ast.Call():
                self._check_call(node, names)
            case ast.Attribute():
                if isinstance(node.value, ast.Name) and self._is_pure_module(node.value.id):
                    return
                raise Impure(f"attribute .{node.attr} may be anything, also code")
            case (
                ast.Lambda()
                | ast.NamedExpr()
                | ast.Set()
                | ast.SetComp()
                | ast.Await()
                | ast.Yield()
                | ast.YieldFrom()
                | ast.GeneratorExp()
            ):
                raise Impure(f"{type(node).__name__} may do more than compute a value")
            case ast.ListComp() | ast.DictComp():
                inside = names
                for loop in node.generators:
                    self._check(loop.iter, inside)
                    inside = inside | _targets(loop.target)
                    for condition in loop.ifs:
                        self._check(condition, inside)
                parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
                for part in parts:
                    self._check(part, inside)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._check(child, names)
                    elif isinstance(child, ast.FormattedValue):
                        self._check(child.value, names)

    def _check_name(self, name: str, names: frozenset[str]) -> None:
        if name in names:
            return
        if name in self.imports:
            raise Impure(f"{name} is imported, and what it does is not known")
        if name in self.functions or (hasattr(builtins, name) and not self.bound[name]):
            raise Impure(f"{name} is used as a value, and may then be called by others")
        if self.bound[name] != 1:
            raise Impure(f"{name} is changed elsewhere, so a round may depend on when it runs")
        if name not in self.constants:
            raise Impure(f"{name} may be any object, whose operators may do anything")

    def _check_call(self, node: ast.Call, names: frozenset[str]) -> None:
        for argument in [*node.args, *(k.value for k in node.keywords)]:
            self._check(argument.value if isinstance(argument, ast.Starred) else argument, names)
        func = node.func
        if isinstance(func, ast.Name):
            if func.id in names:
                raise Impure(f"{func.id} is called, and what it is is not known")
            if func.id in EFFECTS and not self.bound[func.id]:
                raise Impure(f"{func.id}() {EFFECTS[func.id]}")
            if func.id in PURE_BUILTINS and not self.bound[func.id]:
                return
            self._check_function(func.id)
            return
        if isinstance(func, ast.Attribute):
            if isinstance(func.value, ast.Name) and func.value.id in self.imports:
                module = self.imports[func.value.id]
                if self._is_pure_module(func.value.id):
                    return
                if module in PURE_MODULES:
                    raise Impure(f"{func.value.id} is changed elsewhere, so it may be anything")
                why = CHANCE.get(module.partition(".")[0], "is of a module that is not known to be pure")
                raise Impure(f"{func.value.id}.{func.attr}() {why}")
            if func.attr in PURE_METHODS:
                self._check(func.value, names)
                return
            raise Impure(f".{func.attr}() may change the object that it is called on")
        raise Impure("what is called is not known before it runs")

    def _is_pure_module(self, name: str) -> bool:
        """Whether it is imported once, and neither it nor its name is given another meaning."""
        return self.imports.get(name) in PURE_MODULES and self.bound[name] == 1

    def _check_function(self, name: str) -> None:
        function = self.functions.get(name)
        if function is None:
            imported = self.imports.get(name, "")
            if imported.rpartition(".")[0] in PURE_MODULES and self.bound[name] == 1:
                return
            why = CHANCE.get(imported.partition(".")[0], "is not known to be pure")
            raise Impure(f"{name}() {why}")
        if self.bound[name] != 1:
            raise Impure(f"{name} is defined more than once")
        if name in self._known:
            if self._known[name]:
                raise Impure(self._known[name])
            return
        self._known[name] = ""  # while it calls itself
        try:
            self._check_body(function)
        except Impure as why:
            self._known[name] = f"{name}(): {why}"
            raise Impure(self._known[name]) from None

    def _check_body(self, function: ast.FunctionDef) -> None:
        if function.decorator_list:
            raise Impure("it is decorated, so it may be anything")
        every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        if function.args.vararg or function.args.kwarg or function.args.defaults or function.args.kw_defaults:
            raise Impure("it has defaults or takes any arguments, which calls may share")
        local = frozenset(a.arg for a in every)
        stored = frozenset(n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        for node in ast.walk(function):
            if isinstance(node, (ast.Global, ast.Nonlocal)):
                raise Impure(f"it changes {', '.join(node.names)} outside itself")
            if isinstance(node, DOUBTFUL):
                raise Impure(f"it has {type(node).__name__.lower()}, which may do more than compute")
            if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)) and node is not function:
                raise Impure("it defines functions inside")
            if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del)):
                raise Impure("it writes into an object that others may hold")
        names = local | stored
        for statement in ast.walk(function):
            for _, value in ast.iter_fields(statement) if isinstance(statement, ast.stmt) else ():
                for part in value if isinstance(value, list) else (value,):
                    if isinstance(part, ast.expr) and not isinstance(getattr(part, "ctx", None), ast.Store):
                        self._check(part, names)


def _targets(node: ast.expr) -> frozenset[str]:
    """The names that a loop binds. Raises `Impure` for one that writes elsewhere."""
    if isinstance(node, ast.Name):
        return frozenset((node.id,))
    if isinstance(node, (ast.Tuple, ast.List)):
        found: frozenset[str] = frozenset()
        for part in node.elts:
            found |= _targets(part)
        return found
    raise Impure("its loop variable is part of an object")
