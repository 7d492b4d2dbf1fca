"""The parts of the stack's checks that read and judge, without a server."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import SCRIPTS, load

probes, checks, health = load("probes"), load("checks"), load("health")
archiving, settings, snapshot = load("archiving"), load("settings"), load("snapshot")
Problem = probes.Problem


def answer(exit_code: int = 0, stdout: str = "", stderr: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(("pgbackrest", "check"), exit_code, stdout, stderr)


def told(findings: Any) -> list[tuple[str, str]]:
    return [(finding.status, finding.seen) for finding in findings if isinstance(finding, Problem)]


# What pgBackRest 2.45 prints to stderr, and what 2.60 prints to stdout.
NO_SOCKET = """\
WARN: unable to check pg1: [DbConnectError] unable to connect to 'dbname='postgres' port=5499': connection failed
      \tIs the server running locally and accepting connections on that socket?
ERROR: [027]: no database found
       HINT: check indexed pg-path/pg-host configurations
       HINT: and another
"""
INVALID_OPTION = "WARN: configuration file contains invalid option 'repo1-retention-ful'\n"
NEW_STYLE = """\
P00   WARN: environment contains invalid option 'frequency'
2026-11-22 10:40:22.684 P00  ERROR: [082]: WAL segment 0A was not archived before the 60000ms timeout
                                    HINT: check the archive_command
"""


def test_errors_and_warnings_are_read_with_code_and_hints() -> None:
    warning, error = probes.said(answer(27, stderr=NO_SOCKET))
    assert (warning.status, warning.code) == ("warning", None)
    assert warning.seen.endswith(
        "connection failed Is the server running locally and accepting connections on that socket?"
    )
    assert (error.status, error.code, error.seen) == ("critical", 27, "pgbackrest check: no database found")
    assert error.hint == "check indexed pg-path/pg-host configurations and another"


def test_messages_on_stdout_are_read_too() -> None:
    (error,) = probes.said(answer(82, stdout=NEW_STYLE))
    assert (error.code, error.hint) == (82, "check the archive_command")
    assert "was not archived" in error.seen


def test_warnings_on_the_configuration_are_for_one_check_only() -> None:
    assert list(probes.said(answer(stderr=INVALID_OPTION))) == []
    (warning,) = probes.said(answer(stderr=INVALID_OPTION), configuration=True)
    assert (warning.status, warning.hint) == ("warning", "correct pgbackrest.conf or the environment")


def test_a_failure_without_a_message_is_a_problem() -> None:
    assert told(probes.said(answer(0))) == []
    assert told(probes.said(answer(99))) == [("critical", "pgbackrest check: exit code 99 without a reason")]
    assert [status for status, _ in told(probes.said(answer(99, stderr=INVALID_OPTION)))] == ["critical"]


def stanza(code: int = 0, message: str = "ok", **backup: Any) -> dict[str, Any]:
    return {
        "name": "iop",
        "repo": [{"key": 1, "cipher": "none", "status": {"code": code, "message": message}}],
        "db": [{"id": 1, "repo-key": 1, "system-id": 7, "version": "15"}],
        "backup": [{"label": "F", "type": "full", "timestamp": {"start": 1, "stop": 2}, **backup}] if backup else [],
    }


def test_info_is_found_behind_messages() -> None:
    printed = f"{INVALID_OPTION}{json.dumps([{'name': 'other', 'repo': []}, stanza()])}"
    assert probes.stanza_in(printed, "iop") == stanza()


@pytest.mark.parametrize("printed", ["", "[]", "[", "[1]", "{}", '[{"name":"iop","repo":[]}]', '[{"name":"other"}]'])
def test_info_without_the_stanza_is_unknown(printed: str) -> None:
    with pytest.raises(Problem) as raised:
        probes.stanza_in(printed, "iop")
    assert raised.value.status == "unknown"


@given(st.text())
def test_no_text_is_taken_for_info(printed: str) -> None:
    with pytest.raises(Problem):
        probes.stanza_in(printed, "iop")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=80).filter(lambda line: line[:1] != "[")))
def test_info_is_found_behind_any_lines_that_are_not_json(lines: list[str]) -> None:
    before = "\n".join(line for text in lines for line in text.splitlines() if line[:1] != "[")
    assert probes.stanza_in(f"{before}\n{json.dumps([stanza()])}\n", "iop") == stanza()


HELP = """\
Command Options:

  --archive-check                   check that WAL segments are in the archive
                                    before backup completes [current=false,
                                    default=y]
  --checksum-page                   validate data page checksums [current=true]
  --compress-level                  file compression level
  --repo-cipher-pass                repository cipher passphrase
                                    [current=<redacted>]
  --repo-path                       path where backups and archive are stored
                                    [current=/srv/a long/path,
                                    default=/var/lib/pgbackrest]
  --repo-retention-full             full backup retention count/time [current=2]
  --repo-type                       type of storage [default=posix]

Use 'pgbackrest help backup [option]' for more information.
"""


def test_options_that_are_set_are_read_from_help() -> None:
    assert probes.options_in(HELP) == {
        "archive-check": "false",
        "checksum-page": "true",
        "repo-cipher-pass": "<redacted>",
        "repo-path": "/srv/a long/path",
        "repo-retention-full": "2",
    }


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (stanza(error=False), []),
        (stanza(2, "no valid backups"), []),  # for the check named backups
        (stanza(1, "missing stanza path"), [("critical", "repo1: missing stanza path (status 1)")]),
        (stanza(99, "[X] no\nY: open\nHINT: why?"), [("critical", "repo1: [X] no Y: open (status 99)")]),
    ],
)
def test_info_is_judged(info: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert told(snapshot.judge_info(info["repo"])) == expected


ARCHIVER = {
    "archived": "0A", "failed": "09", "failures": 3, "failing": False, "ready": 1, "waiting": 5, "age": 1.0,
    "alive": True, "up": 600,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"ready": 0, "waiting": None, "age": None}, []),
        ({"ready": 32}, []),
        ({"ready": 33}, [("warning", "33 WAL segments wait for the archive")]),
        ({"failing": True}, [("critical", "archiving 09 failed, and no success since (3 failures)")]),
        (
            {"failing": True, "waiting": 900, "age": 900},
            [("critical", "archiving 09 failed, and no success since (3 failures)")],
        ),
        ({"alive": False}, [("critical", "no archiver process runs")]),
        ({"alive": False, "up": 3}, []),
        ({"waiting": 91, "age": 1}, []),
        ({"waiting": 91, "age": 91}, [("critical", "WAL has been waiting for 91 s, and none was archived meanwhile")]),
        (
            {"waiting": 91, "age": None},
            [("critical", "WAL has been waiting for 91 s, and none was archived meanwhile")],
        ),
        ({"waiting": None, "age": 9000}, []),
    ],
)
def test_the_archiver_is_judged(change: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert told(archiving.judge_archiver({**ARCHIVER, **change})) == expected


OPTIONS = {"pg-path": "/data", "repo-retention-full": "2", "repo-retention-archive": "2", "archive-check": "true"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"repo-retention-archive": None}, None),
        ({"repo-retention-archive": "3"}, None),
        ({"repo-retention-archive": "1"}, "WAL is kept for 1 of 2 full backups"),
        ({"repo-retention-archive": "10", "repo-retention-full": "9"}, None),
        ({"repo-retention-full": "30", "repo-retention-full-type": "time"}, None),
        ({"repo-retention-archive": "1", "repo-retention-archive-type": "diff"}, "WAL is kept for 1 diff backups only"),
        ({"repo-retention-full": "1"}, "lets a restore reach 0 s back"),
        ({"repo-retention-full": "1", "repo-retention-full-type": "time"}, None),
        ({"archive-header-check": "false"}, "archive-header-check=n"),
        ({"expire-auto": "false"}, "expire-auto=n"),
        ({"online": "false"}, "online=n"),
        ({"exclude": "base/1/"}, "exclude is set: backups are not whole"),
        ({"repo-retention-full": "<multi>"}, None),
        ({"repo-retention-full": None}, "repo1-retention-full is not set"),
        ({"pg-path": None}, "pg1-path is not set"),
        ({"archive-check": "false"}, "archive-check=n"),
        ({"checksum-page": "false"}, "checksum-page=n"),
        ({"archive-push-queue-max": "1GB"}, "archive-push-queue-max may drop WAL"),
    ],
)
def test_pgbackrests_options_are_judged(change: dict[str, str | None], expected: str | None) -> None:
    options = {name: value for name, value in {**OPTIONS, **change}.items() if value is not None}
    problems = told(settings.judge_options(options))
    assert len(problems) == (expected is not None)
    assert all(expected in seen for _, seen in problems if expected)


SERVER = {
    "archive_mode": "on",
    "archive_command": 'pgbackrest --stanza="${PGBACKREST_STANZA:-iop}" archive-push "%p"',
    "archive_library": "",
    "archive_timeout": "60",
    "wal_level": "replica",
    "data_checksums": "on",
    "data_directory": "/data",
}


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"wal_level": "logical"}, None, ""),
        ({"archive_command": "pgbackrest --stanza=iop archive-push %p"}, None, ""),
        ({"data_directory": "/data/"}, None, ""),
        ({"archive_mode": "off"}, "critical", "archive_mode is off"),
        ({"archive_mode": "always"}, "critical", "archive_mode is always"),
        ({"wal_level": "minimal"}, "critical", "wal_level is minimal"),
        ({"archive_command": "/bin/true"}, "critical", "archive_command is '/bin/true'"),
        ({"archive_command": "echo archive-push"}, "critical", "archive_command is"),
        ({"archive_command": "pgbackrest info"}, "critical", "archive_command is"),
        ({"archive_command": "pgbackrest archive-push %p || true"}, "warning", "|| true"),
        ({"archive_library": "basic_archive"}, "critical", "archive_library is set"),
        ({"archive_timeout": "0"}, "warning", "archive_timeout is 0"),
        ({"data_checksums": "off"}, "warning", "data checksums are off"),
        ({"data_directory": None}, "unknown", "data_directory is hidden"),
        ({"data_directory": "/other"}, "critical", "data_directory is /other, pg1-path /data"),
    ],
)
def test_postgresqls_settings_are_judged(change: dict[str, str | None], status: str | None, words: str) -> None:
    server = {"settings": {**SERVER, **change}, "pending": []}
    problems = told(settings.judge_server(server, OPTIONS))
    assert [problem_status for problem_status, _ in problems] == ([status] if status else [])
    assert all(words in seen for _, seen in problems)


def test_settings_that_wait_for_a_restart_are_named() -> None:
    server = {"settings": SERVER, "pending": ["archive_mode", "wal_level"]}
    assert told(settings.judge_server(server, OPTIONS)) == [("warning", "not in force yet: archive_mode, wal_level")]


def test_a_check_is_as_bad_as_its_worst_problem() -> None:
    def some_check() -> Iterator[Any]:
        yield "never mind"
        yield Problem("warning", "a", "do a")
        yield Problem("critical", "b", "do b", 82)
        raise Problem("unknown", "c", "do a")

    result = health.carry_out(some_check)
    assert (result.name, result.status, result.code) == ("some-check", "critical", 82)
    assert (result.seen, result.hint) == ("b; c; a", "do b; do a")
    assert result.line() == "CRITICAL some-check     [082] b; c; a HINT: do b; do a"


def test_a_check_that_fails_itself_is_unknown() -> None:
    def broken() -> Iterator[Any]:
        yield "so far so good"
        raise KeyError("status")

    result = health.carry_out(broken)
    assert (result.status, result.seen) == ("unknown", "KeyError: 'status'")


def test_a_check_without_problems_is_ok() -> None:
    assert health.carry_out(lambda: iter(["fine", "really"])).line().split()[0::2] == ["OK", "fine;"]


def test_unknown_is_worse_than_a_warning_and_never_ok() -> None:
    assert sorted(health.EXIT_CODES, key=health.SEVERITY) == ["ok", "warning", "unknown", "critical"]
    assert [health.EXIT_CODES[status] for status in ("ok", "warning", "critical", "unknown")] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "missing '=' in key/value at line 9: repo1-cipher-pass hunter22",
        "archive_command is 'PGPASSWORD=hunter22 pgbackrest archive-push %p'",
        "repo1-s3-key-secret=hunter22",
        "repo1-s3-key = hunter22",
        "the value swordfish of a variable",
    ],
)
def test_secrets_are_taken_out(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBACKREST_REPO1_CIPHER_PASS", "swordfish")
    assert "***" in health.redact(text)
    assert "hunter22" not in health.redact(text)
    assert "swordfish" not in health.redact(text)


def test_what_is_no_secret_stays() -> None:
    text = "info command requires option: repo1-cipher-pass; password authentication failed; option 'repo1-s3-key'"
    assert health.redact(text) == text


@pytest.mark.parametrize("value", ["soon", "0", "-1", "1.5", "9999999"])
def test_a_limit_that_is_no_number_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOP_PROBE_TIMEOUT", value)
    with pytest.raises(Problem, match=f"IOP_PROBE_TIMEOUT is '{value}'"):
        probes.limit("IOP_PROBE_TIMEOUT")


def test_a_program_that_hangs_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IOP_PROBE_TIMEOUT", "1")
    started = time.monotonic()
    with pytest.raises(Problem, match="no answer from bash -c within 1 s"):
        probes.ask("bash", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; wait")
    assert time.monotonic() - started < 3
    child = Path("/proc", (tmp_path / "pid").read_text().strip(), "cmdline")
    with suppress(OSError):  # it is gone, between two looks or within one
        while child.read_bytes():  # a killed process is a zombie, without arguments, until it is reaped
            assert time.monotonic() - started < 5


def test_a_program_that_is_not_there_is_unknown() -> None:
    with pytest.raises(Problem, match="cannot run pgbackrest-nowhere: No such file or directory") as raised:
        probes.ask("pgbackrest-nowhere")
    assert raised.value.status == "unknown"


LISTED = {
    "type": "full", "timestamp": {"start": 1, "stop": 2}, "error": False, "database": {"id": 1, "repo-key": 1},
    "archive": {"start": None, "stop": None}, "info": {"size": 1},
}  # fmt: skip


def listing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], info: dict[str, Any]) -> list[str]:
    monkeypatch.setattr(health, "ask", lambda *_: answer(stdout=json.dumps([info])))
    assert health.backups(note=False) == 0
    return capsys.readouterr().out.splitlines()


def test_backups_of_the_present_cluster_are_listed_in_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = stanza()
    info["db"].append({**info["db"][0], "id": 2})
    present = {**LISTED, "database": {"id": 2, "repo-key": 1}}
    info["backup"] = [
        {**LISTED, "label": "before-the-upgrade"},
        {**present, "label": "late", "type": "diff", "timestamp": {"start": 8, "stop": 9}, "error": True},
        {**present, "label": "early", "timestamp": {"start": 7, "stop": 8}},
        {**LISTED, "label": "elsewhere", "database": {"id": 2, "repo-key": 2}},
    ]
    assert listing(monkeypatch, capsys, info) == ["early full 8 ok", "late diff 9 damaged"]
    assert listing(monkeypatch, capsys, stanza(2, "no valid backups")) == []


@pytest.mark.parametrize("given_answer", [answer(stdout=json.dumps([stanza(99, "x")])), answer(55), answer()])
def test_backups_are_not_guessed(
    given_answer: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ask", lambda *_: given_answer)
    with pytest.raises(Problem):
        health.backups(note=False)


@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("*.py")))
def test_python_3_9_can_read_the_scripts(name: str) -> None:
    tree = ast.parse((SCRIPTS / f"{name}.py").read_text(), feature_version=(3, 9))
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {*sys.stdlib_module_names, *(path.stem for path in SCRIPTS.glob("*.py"))}
