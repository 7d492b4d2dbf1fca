"""Faults on the deployed system: one of each class that its page names, and what a killed harness leaves of one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_compose_runs import left, records, run_pytest

from pytest_iopbackup.detection import Answer
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.proven import Verdict
from running import Run

pytestmark = pytest.mark.integration

FAULTS = (
    "repository-unmounted",
    "archive-command-true",
    "repository-owned-by-root",
    "configuration-unreadable",
    "repository-full",
    "backup-worker-paused",
)


def test_each_is_reported_healed_and_nothing_is_lost(tmp_path: Path, base: Path) -> None:
    wanted = [f"--iop-scenario={name}" for name in FAULTS]
    code, output = run_pytest(tmp_path, base, "-n", "2", "--iop-stack=compose", "--iop-timeout-scale=2", *wanted)
    assert code == pytest.ExitCode.OK, output
    found = records(tmp_path / "out")
    assert set(found) == set(FAULTS)
    for scenario in found.values():
        facts = scenario.steps[0].fault
        assert facts is not None
        assert (facts.verdict, scenario.stack) == (Verdict.PASSED, "compose")
        assert facts.answer(facts.signal) is Answer.ALARM
        assert len(facts.readings) >= 17
        assert len(facts.proofs) == 2
    run = re.search(r"report: .*-([0-9a-f]{8})/report.md", output)
    assert run is not None
    assert left(run[1]) == []


def test_what_a_killed_harness_leaves_of_a_fault_is_swept(tmp_path: Path, base: Path) -> None:
    def paused() -> list[str]:
        argv = [
            "docker",
            "ps",
            "--filter=status=paused",
            "--filter=label=com.docker.compose.project",
            "--format={{.Names}}",
        ]
        names = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.split()
        return [name for name in names if name.startswith(directory.name)]

    arguments = ("--iop-stack=compose", "--iop-scenario=backup-worker-paused", f"--iop-report-dir={tmp_path}/out")
    with Run("pytest", "-p", "no:cacheprovider", *arguments, cwd=tmp_path, base=base) as run:
        wait_until(lambda: any(base.glob("iop-*/s-*")), limit=60, what="the stack's directory")
        (directory,) = base.glob("iop-*")
        wait_until(lambda: bool(paused()), limit=120, what="the fault", pause=0.1)
        run.send(signal.SIGKILL)
        run.end(limit=60)
    assert paused()
    sweep = [sys.executable, "-m", "pytest_iopbackup", "sweep", str(base)]
    done = subprocess.run(sweep, check=True, capture_output=True, text=True, env=dict(os.environ), timeout=60)
    assert directory.name in done.stderr
    name = directory.name.removeprefix("iop-")
    wait_until(lambda: left(name) == [], limit=20, what="nothing to be left", pause=0.2)
    assert list(base.glob("iop-*")) == []
