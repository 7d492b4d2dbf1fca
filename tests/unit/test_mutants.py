"""The mutation test of the checks finds every rule, and what it takes away leaves a program."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest

from pytest_iopbackup.faults.catalog import FAULTS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from mutants import Mutant, Source  # noqa: E402
from mutants_tested import SHOWN, TESTED  # noqa: E402

HALF = ROOT / "pgbackrest"
MUTANTS = list(Source(HALF).mutants())


def test_every_check_is_disabled() -> None:
    found = {next(iter(mutant.signals)) for mutant in MUTANTS if mutant.what == "disabled"}
    named = re.findall(r"^    (\w+),$", (HALF / "checks.py").read_text().partition("CHECKS:")[2], re.MULTILINE)
    assert len(named) >= 10
    assert found == {name.replace("_", "-") for name in named}


def test_every_problem_is_a_mutant() -> None:
    modules = {mutant.module for mutant in MUTANTS}
    assert {"checks", "probes", "archiving", "chain", "backups", "space", "verification", "workers"} <= modules
    for module in modules:
        made = re.findall(r"\b(?:Problem|Refused)\([^)\s]", (HALF / f"{module}.py").read_text())
        classes = re.findall(r"^class (?:Problem|Refused)\(", (HALF / f"{module}.py").read_text(), re.MULTILINE)
        assert len([mutant for mutant in MUTANTS if mutant.module == module]) >= len(made) - len(classes)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.partition(":")[2][:60])
def test_a_mutant_is_a_program_that_differs(mutant: Mutant, tmp_path: Path) -> None:
    for module in {mutant.module, "health"}:
        shutil.copy(HALF / f"{module}.py", tmp_path)
    mutant.apply(tmp_path)
    changed = ast.parse((tmp_path / f"{mutant.module}.py").read_text())
    assert ast.dump(changed) != ast.dump(ast.parse((HALF / f"{mutant.module}.py").read_text()))
    ast.parse((tmp_path / "health.py").read_text())


def test_whatever_is_named_as_their_witness_exists() -> None:
    assert set(SHOWN.values()) <= {fault.name for fault in FAULTS}
    for test in TESTED.values():
        file, _, name = test.partition("::")
        assert f"\ndef {name}(" in (ROOT / file).read_text()
    places = [f"{mutant.module}.{mutant.function}: {mutant.what}" for mutant in MUTANTS]
    for start in (*SHOWN, *TESTED):
        assert any(place.startswith(start) for place in places), start
