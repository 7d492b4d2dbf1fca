"""What linters and the type checker say about the whole project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def complaints(*argv: str | Path) -> str:
    """Run a program in the project's root; return what it printed, or nothing where it is content."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=ROOT, timeout=300)
    return "" if done.returncode == 0 else f"exit code {done.returncode}\n{done.stdout}{done.stderr}"


def shell_scripts() -> list[Path]:
    """Return every file that a shell runs, by its name or its first line."""
    places = [path for path in ROOT.iterdir() if path.name == ".ci" or not path.name.startswith(".")]
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return [
        file
        for file in files
        if file.is_file() and (file.suffix == ".sh" or re.match(rb"#!.*\b(ba)?sh\b", file.read_bytes()[:80]))
    ]


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff(arguments: tuple[str, ...]) -> None:
    assert complaints(sys.executable, "-m", "ruff", *arguments, "--quiet", "--no-cache", ".") == ""


def test_mypy_strict() -> None:
    assert complaints(sys.executable, "-m", "mypy", "--no-error-summary") == ""


def test_shellcheck() -> None:
    scripts = shell_scripts()
    names = {script.name for script in scripts}
    assert names >= {"control.sh", "run", "backup.sh", "check.sh", "worker.sh"}
    assert set(scripts) >= set((ROOT / "control").iterdir())
    program = shutil.which("shellcheck")
    assert program is not None, "shellcheck is not installed: './control.sh test' does that on Debian and Ubuntu"
    assert complaints(program, "--external-sources", *scripts) == ""
