"""A stack that cannot be brought up: who is blamed, what is said, what is kept."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from running import Run, remains

pytestmark = pytest.mark.integration


def test_a_first_backup_that_fails_is_the_systems_fault_and_the_stack_can_be_kept(tmp_path: Path, base: Path) -> None:
    real = shutil.which("pgbackrest", path="/usr/bin:/usr/local/bin")
    broken = base / "bin" / "pgbackrest"
    broken.parent.mkdir(mode=0o755)
    broken.parent.chmod(0o755)
    broken.write_text(
        f'#!/bin/sh\ncase "$*" in *backup) echo "ERROR: [064]: no space" >&2; exit 64;; esac\nexec {real} "$@"\n'
    )
    broken.chmod(0o755)
    options = [f"--iop-pgbackrest={broken}", "--iop-keep=failed", f"--iop-report-dir={tmp_path / 'reports'}"]
    with Run("pytest", "--iop-scenario=full", *options, cwd=tmp_path, base=base) as run:
        assert run.end() == 1
    assert "FAILED: bringing the stack up: the first backup failed" in run.output
    assert "[064]: no space" in run.output
    kept = re.search(r"kept: (\S+)", run.output)
    assert kept
    assert (Path(kept[1]) / "log" / "postgresql.log").is_file()
    assert not remains(base).processes
