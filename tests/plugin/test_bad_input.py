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
        ("mark: here", "crash: {times: many}", 4, "'many' is not a whole number"),
        ("  - mark: here", "\t- mark: here", 4, "YAML is indented with spaces; this line holds a tab"),
        ("{rows: here}", "{rows: here", 6, "expected ',' or '}'"),
        (GOOD, "", 1, "the file is empty"),
        ("expect: {rows: here}", "sweep: {points: 5}", 5, "no step above writes, so no row is expected anywhere"),
        ("expect: {rows: here}", "sweep: {points: 0}", 5, "0 is less than the minimum of 1"),
        ("expect: {rows: here}", "sweep: {point: 5}", 5, "did you mean 'points'?"),
        ("expect: {rows: here}", "targets: all", 5, "valid: every"),
        (
            "  - expect: {rows: here}",
            "  - write: {transactions: 5}\n  - targets: every",
            6,
            "1 mark stands above, and 2 are needed",
        ),
    ],
    ids=[
        *("type", "key", "mark", "steps", "crash", "tab", "brace", "empty"),
        *("unwritten", "pointless", "point", "which", "marks"),
    ],
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
    result = project.run("--iop-scenario=mine", "--iop-stack=local", programs=False)
    refused(
        project, result, "PostgreSQL's programs not found", "pg_config on PATH", "/no/postgresql/*/bin", "--iop-pg-bin"
    )


def test_where_neither_kind_works_both_are_said_with_what_was_checked(
    project: Project, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_DISTRIBUTIONS", ("/no/postgresql/*/bin",))
    monkeypatch.setenv("PATH", str(base))
    result = project.run("--iop-scenario=mine", programs=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = result.stderr.str()
    for words in ("no stack can run here", "Local: PostgreSQL's programs not found", "Compose: Docker not found"):
        assert message.count(words) == 1, message
    assert "HINT: either " in message
    assert "Traceback" not in all_output(result)
    assert project.left == []


def test_without_docker_it_is_said_what_was_checked(
    project: Project, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(base))
    refused(project, project.run("--iop-scenario=mine", "--iop-stack=compose"), "Docker not found", "'docker' on PATH")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (("exit 1", "echo 2.26.1"), "'docker version': no answer"),
        (("echo 20.10", "exit 1"), "'docker compose version': no answer, not 2.20 or newer"),
        (("echo 20.10", "echo v2.17.3"), "'docker compose version': v2.17.3, not 2.20 or newer"),
    ],
    ids=["no engine", "no compose", "old compose"],
)
def test_a_docker_that_cannot_be_used_is_named(
    project: Project, base: Path, monkeypatch: pytest.MonkeyPatch, answers: tuple[str, str], words: str
) -> None:
    docker = base / "docker"
    docker.write_text(f"#!/bin/sh\necho no answer >&2\ncase $1 in compose) {answers[1]};; *) {answers[0]};; esac\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{base}:/usr/bin:/bin")
    result = project.run("--iop-scenario=mine", "--iop-stack=compose")
    docker.unlink()
    refused(project, result, "Docker cannot be used. Checked: ", words)


def test_a_scenario_of_the_other_kind_is_refused_by_name_and_told_of_in_a_group(project: Project) -> None:
    refused(
        project,
        project.run("--iop-scenario=operations", "--iop-stack=local"),
        "scenario 'operations' runs on the compose stack only",
        "HINT: --iop-stack=compose",
    )
    path = project.pytester.path / "drills" / "theirs.yaml"
    path.write_text(GOOD.replace("bad", "theirs").replace("title:", "stack: compose\ntags: [group]\ntitle:"))
    mine = project.pytester.path / "drills" / "mine.yaml"
    mine.write_text(mine.read_text().replace("dataset:", "tags: [group]\ndataset:"))
    result = project.run("--iop-scenario=tag:group", "--iop-stack=local")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["NOT RUN: theirs: scenario 'theirs' runs on the compose stack only"])


def test_a_compose_file_that_is_not_there_is_named(project: Project) -> None:
    result = project.run("--iop-scenario=mine", "--iop-compose-file=none.yaml")
    refused(project, result, f"Compose file {project.pytester.path}/none.yaml: there is no such file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services: {databse: db}", "mapping.yaml, services: unknown key 'databse'"),
        ("login: {port: '5432'}", "mapping.yaml, login, port: '5432' is not a whole number"),
        ("token: 7", "mapping.yaml, token: 7 is not text"),
        ("variables: [a]", "mapping.yaml, variables: not a mapping from name to name"),
        ("services: db", "mapping.yaml, services: 'db' is not a mapping"),
        ("services: {", "mapping.yaml: not YAML"),
    ],
)
def test_a_wrong_mapping_is_named_with_its_key(project: Project, text: str, words: str) -> None:
    (project.pytester.path / "mapping.yaml").write_text(text)
    result = project.run("--iop-scenario=mine", "--iop-stack=compose", "--iop-compose-map=mapping.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str()
    assert "Traceback" not in all_output(result)


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
