"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_iopbackup.scenario.loader import load_scenario
from pytest_iopbackup.stack.mapping import ComposeMapping, read_mapping
from running import Run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code(language: str, containing: str) -> str:
    """Return the README's one block of code in a language that has some text in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if containing in block)
    return str(block)


@pytest.mark.integration
def test_the_example_in_python_runs(tmp_path: Path, base: Path) -> None:
    (tmp_path / "test_example.py").write_text(code("python", "iop_stack"), encoding="utf-8")
    with Run("pytest", "-q", "test_example.py", cwd=tmp_path, base=base) as run:
        assert run.end() == 0, run.output
    assert "1 passed" in run.output


def test_the_example_scenario_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "drill.yaml"
    path.write_text(code("yaml", "name: drill"), encoding="utf-8")
    assert [step.verb for step in load_scenario(path).steps] == [
        "backup", "write", "mark", "mistake", "restore", "expect", "check",
    ]  # fmt: skip


def test_the_example_mapping_is_read_and_shows_every_key(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(code("yaml", "services: {database"), encoding="utf-8")
    mapping = read_mapping(path)
    assert mapping.services.database == "db"
    shown = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(shown) == set(ComposeMapping.__dataclass_fields__)
    for part in ("services", "volumes", "paths", "login"):
        assert set(shown[part]) == set(type(getattr(mapping, part)).__dataclass_fields__)


def test_every_option_is_in_the_table(pytester: pytest.Pytester) -> None:
    helped = pytester.runpytest("--help").stdout.str()
    options = set(re.findall(r"(--iop-[a-z-]+)", helped))
    assert options
    assert options == set(re.findall(r"`(--iop-[a-z-]+)", README))


def test_every_variable_of_the_deployed_system_is_in_a_table() -> None:
    root = Path(__file__).parents[2]
    files = [path for path in (root / "pgbackrest").iterdir() if path.is_file()]
    files.append(root / ".env.example")
    variables = {name for file in files for name in re.findall(r"\bIOP_[A-Z_]+", file.read_text())}
    variables |= set(re.findall(r"^#([A-Z0-9_]+)=", (root / ".env.example").read_text(), re.MULTILINE))
    table = "".join(line for line in README.splitlines(keepends=True) if line.startswith("| `"))
    assert variables - set(re.findall(r"`([A-Z][A-Z0-9_]+)`", table)) == set()


def test_in_the_checkout_a_scenario_is_collected_beside_the_tests_own_conftest() -> None:
    """As ./control.sh drill calls pytest there."""
    argv = [sys.executable, "-m", "pytest", f"--rootdir={ROOT}", f"--config-file={ROOT}/pyproject.toml"]
    asked = [*argv, "-p", "no:cacheprovider", "--collect-only", "-q", "--iop-scenario=pitr", "--iop-scenario=full"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 tests collected" in done.stdout
