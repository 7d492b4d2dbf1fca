"""Whatever is wrong before a run gets one clear message, the right exit code, and leaves nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from project import Project, all_output, write_program
from pytest_iopbackup.stack import binaries

GOOD = "name: bad\ntitle: It proves something\nsteps:\n  - mark: here\n  - expect: {rows: here}\n"


def refused(project: Project, result: pytest.RunResult, *words: str) -> None:
    """Check that pytest said these words once, with a way out, and did nothing."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = result.stderr.str()
    for part in words:
        assert message.count(part) == 1, message
    assert message.startswith("ERROR: ")
    assert "HINT: " in message
    assert len(message.strip().splitlines()) <= 3
    assert "Traceback" not in all_output(result)
    assert "collected" not in result.stdout.str()
    assert project.drills == []
    assert project.reports == []
    assert project.left == []


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("pitrr", "did you mean 'pitr'?"),
        ("mien", "did you mean 'mine'?"),
        ("tag:restor", "did you mean 'restore'?"),
        ("zzz", "valid: all, "),
    ],
)
def test_an_unknown_scenario_gets_the_nearest_name(project: Project, word: str, words: str) -> None:
    refused(project, project.run(f"--iop-scenario={word}"), words, repr(word.removeprefix("tag:")))


def test_an_unknown_scenario_is_refused_once_under_xdist_too(project: Project) -> None:
    refused(project, project.run("-n", "2", "--iop-scenario=pitrr"), "unknown scenario 'pitrr'")


def test_a_path_that_is_not_there_names_where_it_was_looked_for(project: Project) -> None:
    result = project.run("--iop-scenario=drills/none.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"'drills/none.yaml': there is no such file below {project.pytester.path}" in result.stderr.str()
    assert "Traceback" not in all_output(result)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("mark: here", "mark: 7", 4, "7 is not text"),
        ("title:", "titel:", 2, "did you mean 'title'?"),
        ("  - mark: here\n", "", 4, "no step above defines mark 'here'"),
        ("steps:\n  - mark: here\n  - expect: {rows: here}\n", "", 1, "'steps' is missing"),
        ("  - mark: here", "\t- mark: here", 4, "YAML is indented with spaces; this line holds a tab"),
        ("{rows: here}", "{rows: here", 6, "expected ',' or '}'"),
        (GOOD, "", 1, "the file is empty"),
    ],
    ids=["type", "key", "mark", "steps", "tab", "brace", "empty"],
)
def test_a_malformed_scenario_is_named_with_its_line_and_nothing_runs(
    project: Project, old: str, new: str, line: int, words: str
) -> None:
    assert old in GOOD
    path = project.pytester.path / "drills" / "bad.yaml"
    path.write_text(GOOD.replace(old, new))
    result = project.run("--iop-scenario=mine", "--iop-scenario=bad")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    output = result.stdout.str()
    assert f"{path}:{line}: " in output
    assert words in output
    assert "Traceback" not in all_output(result)
    result.assert_outcomes(errors=1)
    assert project.drills == []
    assert project.reports == []
    assert project.left == []


def test_without_postgresql_it_is_said_what_was_checked(
    project: Project, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_DISTRIBUTIONS", ("/no/postgresql/*/bin",))
    monkeypatch.setenv("PATH", str(base))
    result = project.run("--iop-scenario=mine", programs=False)
    refused(
        project, result, "PostgreSQL's programs not found", "pg_config on PATH", "/no/postgresql/*/bin", "--iop-pg-bin"
    )


def test_a_directory_without_postgresqls_programs_is_named(project: Project) -> None:
    (project.programs / "initdb").unlink()
    refused(project, project.run("--iop-scenario=mine"), f"{project.programs}: no initdb")


def test_a_postgresql_of_another_time_is_named(project: Project) -> None:
    write_program(project.programs, "postgres", "postgres (PostgreSQL) 12.22")
    refused(project, project.run("--iop-scenario=mine"), f"{project.programs}: PostgreSQL 12.22, not 14 to 18")


def test_without_pgbackrest_it_is_said_what_was_checked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    result = project.run("--iop-scenario=mine", f"--iop-pg-bin={project.programs}", programs=False)
    refused(project, result, "pgBackRest not found. Checked: PATH, /usr/bin, /usr/local/bin", "--iop-pgbackrest=FILE")


def test_a_pgbackrest_that_is_not_there_is_named(project: Project) -> None:
    result = project.run("--iop-scenario=mine", "--iop-pgbackrest=/no/pgbackrest")
    refused(project, result, "pgBackRest not found. Checked: /no/pgbackrest")


def test_a_pgbackrest_of_another_time_is_named(project: Project) -> None:
    write_program(project.programs, "pgbackrest", "pgBackRest 2.40")
    refused(project, project.run("--iop-scenario=mine"), "pgBackRest 2.40, older than 2.45")


def test_a_report_directory_that_cannot_be_written_is_named(project: Project) -> None:
    (project.pytester.path / "file").write_text("")
    result = project.run("--iop-scenario=mine", "--iop-report-dir=file/reports")
    refused(project, result, f"cannot write reports in {project.pytester.path}/file/reports: Not a directory")


@pytest.fixture
def full_directory(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a directory without space: a file system of its own where we may mount one, else one that says so."""
    folder = base / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    if mounted:
        with pytest.raises(OSError, match="No space left"):
            (folder / "filler").write_bytes(b"x" * (1 << 20))
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_temporary_directory_is_named_with_what_is_needed(project: Project, full_directory: Path) -> None:
    before = list(full_directory.iterdir())
    result = project.run("--iop-scenario=mine", f"--iop-work-dir={full_directory}")
    assert list(full_directory.iterdir()) == before
    assert f"{full_directory} has 0 MB free; a local stack needs about 768 MB" in result.stderr.str()
    assert "HINT: make room there" in result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in all_output(result)


def test_a_work_directory_that_is_too_long_for_sockets_is_named(project: Project) -> None:
    result = project.run("--iop-scenario=mine", f"--iop-work-dir=/{'l' * 60}")
    refused(project, result, "longer than 60 bytes", "choose a shorter --iop-work-dir")


def test_a_work_directory_that_is_not_there_is_named(project: Project) -> None:
    result = project.run("--iop-scenario=mine", "--iop-work-dir=/no/such/place")
    refused(project, result, "cannot make a directory in /no/such/place: No such file or directory")


def test_compose_says_that_it_comes(project: Project) -> None:
    result = project.run("--iop-scenario=mine", "--iop-stack=compose")
    refused(project, result, "--iop-stack=compose is not there yet: it comes", "use --iop-stack=local")


def test_a_scenario_folder_that_is_not_there_is_named(project: Project) -> None:
    project.pytester.makeconftest(
        """
        from pathlib import Path

        def pytest_iopbackup_register(registry):
            registry.add_scenarios(Path("/no/drills"))
        """
    )
    for arguments in (["--iop-scenario=pitr"], ["--iop-list"]):
        result = project.run(*arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert "scenario folder /no/drills is not a directory" in result.stderr.str()
        assert "Traceback" not in all_output(result)
