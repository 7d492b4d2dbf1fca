"""Imports go one way, from what pytest sees down to the stack."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import pytest_iopbackup
from pytest_iopbackup import resources

PACKAGE = Path(pytest_iopbackup.__file__).parent
NAME = PACKAGE.name

# From the bottom up. A part imports from lines below its own, and within itself.
LAYERS = (
    {"__init__", "errors", "names", "resources"},
    {"proven"},
    {"points"},
    {"detection", "crashes"},
    {"blame", "limits", "record", "scenario", "progress"},
    {"stack", "reports"},
    {"cluster", "__main__"},
    {"dataset"},
    {"proof"},
    {"faults", "signals"},
    {"history", "relay"},
    {"writing", "operations"},
    {"drill"},
    {"trial", "everywhere", "crash"},
    {"runner"},
    {"session"},
    {"registry", "options"},
    {"hookspecs", "listing", "items"},
    {"active"},
    {"plugin"},
)
RANKS = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
LEAVES = {
    "blame",
    "__init__",
    "errors",
    "names",
    "limits",
    "proven",
    "crashes",
    "points",
    "detection",
    "record",
    "scenario",
    "resources",
    "progress",
}
SEE_PYTEST = {"plugin", "hookspecs", "options", "active", "items", "listing"}


@dataclass(frozen=True)
class Import:
    """One import statement's target, in the module that has it."""

    module: str
    line: int
    target: str
    """Dotted, in full."""
    for_types: bool
    """Under ``if TYPE_CHECKING``: never carried out."""

    @property
    def part(self) -> str:
        return part_of(self.module)

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def part_of(module: str) -> str:
    """Return the part that a module of ours belongs to: ``pytest_iopbackup.stack.local`` is of ``stack``."""
    return [*module.split("."), "__init__"][1]


def modules() -> dict[str, Path]:
    return {
        ".".join([NAME, *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
        if "_data" not in path.parts
    }


def imports_of(module: str, path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        targets = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            # From the package itself come its modules; from a module, names in it.
            targets = [f"{NAME}.{name}" for name in targets] if node.module == NAME else [str(node.module)]
        for target in targets:
            yield Import(module, node.lineno, target, id(node) in for_types)


MODULES = modules()
IMPORTS = [found for module, path in MODULES.items() for found in imports_of(module, path)]
OURS = [found for found in IMPORTS if found.target.split(".")[0] == NAME]


def target_part(found: Import) -> str:
    part = part_of(found.target)
    return part if part in RANKS else "__init__"  # such as __version__


def test_the_parser_sees_what_there_is() -> None:
    assert len(MODULES) > 50
    assert any(found.module.endswith(".runner") and found.target.endswith(".drill") for found in OURS)
    assert any(found.for_types for found in OURS)
    assert any(not found.for_types and found.target == "pytest" for found in IMPORTS)


def test_every_part_has_its_place() -> None:
    assert {part_of(module) for module in MODULES} - set(RANKS) == set()


def test_imports_go_one_way() -> None:
    wrong = [
        str(found)
        for found in OURS
        if not found.for_types
        and target_part(found) != found.part
        and RANKS[target_part(found)] >= RANKS[found.part]
        and not {found.part, target_part(found)} <= LEAVES
    ]
    assert wrong == []


def test_leaves_import_only_leaves_even_for_types_but_for_one() -> None:
    wrong = [str(found) for found in OURS if found.part in LEAVES and target_part(found) not in LEAVES]
    # CommandError carries the result of the command that failed.
    assert [text.partition(":")[0] for text in wrong] == [f"{NAME}.errors"]
    assert wrong[0].endswith("stack.base")


def test_no_part_is_imported_in_a_circle() -> None:
    edges: dict[str, set[str]] = {part: set() for part in RANKS}
    for found in OURS:
        if not found.for_types and target_part(found) != found.part:
            edges[found.part].add(target_part(found))
    settled: set[str] = set()
    while free := {part for part in edges if part not in settled and edges[part] <= settled}:
        settled |= free
    assert set(edges) - settled == set()


def test_reports_are_made_of_records_alone() -> None:
    targets = {target_part(found) for found in OURS if found.part == "reports"}
    assert targets <= {"record", "crashes", "detection", "points", "proven", "errors", "reports"}


def test_only_pytests_side_knows_pytest() -> None:
    knowing = {found.part for found in IMPORTS if found.target.split(".")[0] in {"pytest", "_pytest", "xdist"}}
    assert knowing <= SEE_PYTEST


def test_nothing_imports_the_plugin() -> None:
    assert [str(found) for found in OURS if target_part(found) == "plugin" and found.part != "plugin"] == []


@pytest.mark.parametrize("path", sorted(resources.stack_half().rglob("*.py")), ids=lambda path: path.name)
def test_the_stacks_half_needs_nothing_but_python_and_is_never_imported(path: Path) -> None:
    beside = {other.stem for other in resources.stack_half().rglob("*.py")}
    for found in imports_of(path.stem, path):
        name = found.target.split(".")[0]
        assert name in sys.stdlib_module_names or name in beside, str(found)
    assert path.stem not in {found.target.split(".")[0] for found in IMPORTS}


def test_modules_have_one_subject_each() -> None:
    long = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: lines for module, lines in long.items() if lines > 300} == {}
