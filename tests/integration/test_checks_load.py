"""A healthy system raises no alarm, whatever goes on in it; three hundred cycles of it: benchmarks/stress_checks.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

STRESS = Path(__file__).parents[2] / "benchmarks" / "stress_checks.py"


def stress(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, str(STRESS), *arguments)
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)


def test_a_healthy_system_under_load_raises_no_alarm() -> None:
    done = stress("15", "4")
    assert (done.returncode, "15 cycles, 0 alarms" in done.stdout) == (0, True), done.stdout + done.stderr
    assert re.search(r"expired backups: [1-9].*verify runs: [1-9]", done.stdout), done.stdout


def test_an_alarm_is_counted_and_printed() -> None:
    """Otherwise their absence would say nothing."""
    done = stress("2", "1", "--set", "IOP_SPACE_WARNING=100", "--set", "IOP_SPACE_ENOUGH=999999")
    assert (done.returncode, "2 cycles, 2 alarms" in done.stdout) == (1, True), done.stdout + done.stderr
    assert len(re.findall("^WARNING  space ", done.stdout, re.MULTILINE)) == 2
