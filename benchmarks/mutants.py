"""Finds every rule of the checks in their source, by its syntax, and takes one of them away: for mutate_checks.py.

A rule is a tuple given to ``broken``, a ``Problem`` or ``Refused`` that is made, or a complaint that is returned. Taken
away means: what it would report counts as fine, and nothing else changes.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMPLAINING = {"complaint", "judge", "compare", "unreported"}
"""Functions that return what is wrong as text."""
INSTEAD = {"limit": "return LIMITS[name]", "period": "return PERIODS[name]", "check": "pass"}
"""What takes the place of a ``raise`` in functions that ``main`` calls itself, before any check runs or after all."""
NOTHING = "ok"
"""The status of a problem that is none; :meth:`Mutant.apply` has health.py ignore those."""
SUM_UP = "    problems.sort("
STARTED = {("verification", "start"): ("verification", "run")}
"""A function that starts a program, and where that begins."""

Place = tuple[str, str]
"""Module and function."""


@dataclass(frozen=True)
class Mutant:
    """A change of one module: ``new`` for what stands from ``begin`` to ``end`` (bytes)."""

    module: str
    function: str
    line: int
    what: str
    signals: frozenset[str]
    """The checks, and the workers' health checks, that it weakens; empty: nothing of theirs."""
    messages: tuple[str, ...]
    """What the rule says, as regular expressions; empty: nothing that could be told from others."""
    begin: int
    end: int
    new: str

    @property
    def name(self) -> str:
        """Return where it is, and what it does."""
        return f"{self.module}.py:{self.line} {self.function}: {self.what}"

    def apply(self, directory: Path) -> None:
        """Change the module in that directory."""
        file = directory / f"{self.module}.py"
        text = file.read_bytes()
        file.write_bytes(text[: self.begin] + self.new.encode() + text[self.end :])
        judge = directory / "health.py"
        ignore = f'    problems = [problem for problem in problems if problem.status != "{NOTHING}"]\n'
        assert judge.read_text().count(SUM_UP) == 1
        judge.write_text(judge.read_text().replace(SUM_UP, ignore + SUM_UP))


class Source:
    """The modules that ``health.py`` consists of."""

    def __init__(self, directory: Path) -> None:
        self.modules: dict[str, ast.Module] = {}
        self.starts: dict[str, list[int]] = {}
        self._load(directory, "health")
        self._functions: dict[Place, ast.stmt] = {}
        self._known: dict[str, dict[str, Place]] = {}
        for module, tree in self.modules.items():
            self._known[module] = dict(self._names(module, tree))
        self.signals = self._reached()

    def _load(self, directory: Path, module: str) -> None:
        text = (directory / f"{module}.py").read_bytes()
        self.modules[module] = tree = ast.parse(text)
        self.starts[module] = [0, *itertools.accumulate(map(len, text.splitlines(keepends=True)))]
        for node in ast.walk(tree):
            named = [node.module] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for other in named:
                if other and other not in self.modules and (directory / f"{other}.py").exists():
                    self._load(directory, other)

    def _names(self, module: str, tree: ast.Module) -> Iterator[tuple[str, Place]]:
        """Yield what names mean in a module: functions, here or imported."""
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in self.modules:
                yield from ((alias.asname or alias.name, (node.module, alias.name)) for alias in node.names)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self._functions[module, node.name] = node
                yield node.name, (module, node.name)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self._functions[module, node.targets[0].id] = node  # look = once(take)
                yield node.targets[0].id, (module, node.targets[0].id)

    def uses(self, place: Place) -> Iterator[Place]:
        """Yield the functions that one names."""
        known = self._known[place[0]]
        if place in STARTED:
            yield STARTED[place]
        for node in ast.walk(self._functions[place]) if place in self._functions else ():
            if isinstance(node, ast.Name) and node.id in known:
                yield known[node.id]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in {*self.modules} - {*known}:
                yield ast.unparse(node.value), node.attr

    def checks(self) -> Iterator[Place]:
        """Yield the functions that ``CHECKS`` names."""
        for node in self.modules["checks"].body:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "CHECKS":
                assert isinstance(node.value, ast.Tuple)
                yield from (self._known["checks"][ast.unparse(name)] for name in node.value.elts)

    def _reached(self) -> dict[Place, set[str]]:
        """Return of each function the signals that come by it."""
        found: dict[Place, set[str]] = defaultdict(set)
        names = [name.replace("_", "-") for _, name in self.checks()]
        roots = [(check, [name]) for check, name in zip(self.checks(), names, strict=True)]
        roots += [(("health", "worker"), ["check-worker", "backup-worker"]), (("health", "main"), ["check-worker"])]
        roots += [(("health", "carry_out_all"), names)]
        for root, signals in roots:
            waiting, seen = [root], {root}
            while waiting:
                place = waiting.pop()
                found[place].update(signals)
                more = {*self.uses(place)} - seen - ({("health", "backups")} if root == ("health", "main") else set())
                seen |= more
                waiting += more
        return found

    def mutants(self) -> Iterator[Mutant]:
        """Yield all: each check disabled, then each rule taken away."""
        for module, name in self.checks():
            function = self._functions[module, name]
            assert isinstance(function, ast.FunctionDef)
            whole = function.body[1:]  # after the docstring
            signals = frozenset({name.replace("_", "-")})
            span = self._at(module, whole[0])[0], self._at(module, whole[-1])[1]
            yield Mutant(module, name, function.lineno, "disabled", signals, (), *span, 'yield "fine"')
        for module, tree in self.modules.items():
            for function in tree.body:
                if isinstance(function, ast.FunctionDef):
                    yield from self._of(module, function)

    def _of(self, module: str, function: ast.FunctionDef) -> Iterator[Mutant]:
        signals = frozenset(self.signals[module, function.name])

        def mutant(node: ast.AST, words: ast.expr, target: ast.expr | ast.stmt, new: str) -> Mutant:
            messages = tuple(message for message in patterns(words, function) if tells(message))
            call = node.exc if isinstance(node, ast.Raise) else node
            whole = call.args if isinstance(call, ast.Call) and not messages else [words]
            what = ", ".join(" ".join(ast.unparse(part).split()) for part in whole)
            line = getattr(node, "lineno", 0)
            return Mutant(module, function.name, line, what, signals, messages, *self._at(module, target), new)

        for node in ast.walk(function):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and called == "broken":
                for rule in node.args:
                    assert isinstance(rule, ast.Tuple), ast.unparse(rule)
                    yield mutant(rule, rule.elts[2], rule.elts[0], "True")
            elif isinstance(node, ast.Call) and called == "Problem" and function.name not in INSTEAD:
                yield mutant(node, node.args[1], node.args[0], f'"{NOTHING}"')
            elif isinstance(node, ast.Call) and called == "Refused":
                yield mutant(node, node.args[0], node, f'Problem("{NOTHING}", {ast.unparse(node.args[0])}, "")')
            elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and function.name in INSTEAD:
                yield mutant(node, node.exc.args[1], node, INSTEAD[function.name])
            elif isinstance(node, ast.Return) and function.name in COMPLAINING and complains(node.value, function):
                assert node.value
                nothing = "None" if "None" in ast.unparse(function.returns or node.value) else '""'
                yield mutant(node, node.value, node.value, nothing)

    def _at(self, module: str, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Return where a node begins and ends, in bytes."""
        starts = self.starts[module]
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset


def complains(value: ast.expr | None, function: ast.FunctionDef) -> bool:
    """Whether what is returned may be text that says something."""
    texts = (node.value for node in ast.walk(value or function) if isinstance(node, ast.Constant))
    returns = ast.unparse(function.returns) if function.returns else ""
    called = isinstance(value, ast.Call) and "refused" not in ast.unparse(value)
    return returns.startswith("str") and not called and any(isinstance(text, str) and text for text in texts)


def patterns(words: ast.expr, function: ast.FunctionDef) -> list[str]:
    """Return what an expression may say, as regular expressions: its constant parts."""
    if isinstance(words, ast.Constant):
        return [re.escape(str(words.value))] if words.value else []
    if isinstance(words, ast.JoinedStr):
        return ["".join(re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".*?" for p in words.values)]
    if isinstance(words, ast.BinOp):
        sides = patterns(words.left, function), patterns(words.right, function)
        return [a + b for a, b in itertools.product(*sides)]
    if isinstance(words, ast.IfExp):
        return patterns(words.body, function) + patterns(words.orelse, function)
    if isinstance(words, ast.Name):
        given = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == words.id
        ]
        return [message for value in given for message in patterns(value, function)] or [".*?"]
    return [".*?"]


def tells(message: str) -> bool:
    """Whether a pattern has words of its own."""
    return len(re.findall("[a-z]", message.replace(".*?", ""))) > 5
