"""What is found out about a scenario before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from project import Project


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ('{time: "2026-11-22 12:00:00"}', "no UTC offset"),
        ('{time: "2999-01-01 00:00:00+00"}', "lies in the future"),
        ("{lsn: zzz}", "is not an LSN"),
    ],
)
def test_a_target_that_no_repository_has_is_refused_at_collection(project: Project, target: str, words: str) -> None:
    Path(project.pytester.path / "raw.yaml").write_text(
        f"name: raw\ntitle: t\nsteps:\n  - backup: full\n  - restore: {target}\n", encoding="utf-8"
    )
    result = project.run("--iop-scenario=raw.yaml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    output = result.stdout.str()
    assert "raw.yaml:5: " in output
    assert words in output
    assert project.drills == []
