"""What a run shows, returns and writes; with drills that need no server."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from project import Project, all_output
from pytest_iopbackup.errors import IopError, MachineError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.reports import writer
from running import write_scenario
from scripted import DIFFERENT, PROOF, TABLE


@pytest.fixture
def tests(project: Project) -> Path:
    """Give a folder of the project's own tests, which a bare run of pytest collects."""
    project.pytester.makeini("[pytest]\ntestpaths = tests\n")
    folder = project.pytester.mkdir("tests")
    (folder / "test_own.py").write_text("def test_own(): pass\n")
    return folder


@pytest.mark.parametrize("place", [".", "tests", "drills"])
def test_a_selection_alone_runs_just_that_wherever_it_is_called_from(
    project: Project, tests: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(project.pytester.path / place)
    result = project.run("--iop-scenario=mine", f"--rootdir={project.pytester.path}")
    result.assert_outcomes(passed=1)
    assert len(project.drills) == 1
    assert project.reports[0].startswith("2")


def test_a_selection_beside_paths_runs_both(project: Project, tests: Path) -> None:
    project.run("--iop-scenario=mine", "tests").assert_outcomes(passed=2)
    assert len(project.drills) == 1


def test_yaml_that_lies_beside_a_selection_is_not_run(project: Project) -> None:
    write_scenario(project.pytester.path / "drills", "other")
    (project.pytester.path / "drills" / "docker-compose.yaml").write_text("services: {}\n")
    project.run("--iop-scenario=mine", "drills").assert_outcomes(passed=1)
    assert [one.name for one in project.records()[0].scenarios] == ["mine"]


def test_the_ini_file_selects_too(project: Project, tests: Path) -> None:
    project.run("-o", "iop_scenario=mine").assert_outcomes(passed=1)
    assert len(project.drills) == 1


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["mine", "pitr"], ["mine", "pitr"]),
        (["mine", "mine", "drills/mine.yaml"], ["mine"]),
        (["drills/mine.yaml"], ["mine"]),
        (["tag:differential"], ["differential"]),
        (["full", "tag:differential"], ["full", "differential"]),
    ],
)
def test_names_tags_and_paths_select_each_scenario_once(project: Project, words: list[str], names: list[str]) -> None:
    project.run(*(f"--iop-scenario={word}" for word in words)).assert_outcomes(passed=len(names))
    assert [one.name for one in project.records()[0].scenarios] == names


def test_all_selects_those_of_third_parties_too(project: Project) -> None:
    project.run("--iop-scenario=all")
    names = {one.name for one in project.records()[0].scenarios}
    assert names >= {"mine", "full", "differential", "pitr"}


def test_a_third_partys_name_wins_over_a_built_in_one(project: Project) -> None:
    write_scenario(project.pytester.path / "drills", "full")
    project.run("--iop-scenario=full").assert_outcomes(passed=1)
    assert project.templates == ["42-20"]


def test_steps_are_told_as_they_start_and_end_then_the_table_and_the_report(project: Project) -> None:
    result = project.run("--iop-scenario=mine")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "mine: bringing the stack up …",
            "mine: bringing the stack up  0.* s  local, 20 users",
            "mine [[]1/5] write 20 transactions, 4 clients …",
            "mine [[]1/5] write 20 transactions, 4 clients  0.* s  190 acknowledged, 10 rolled back",
            "mine [[]2/5] mark here …",
            "mine [[]2/5] mark here  0.* s  LSN 0/5A00110, 32 rows in 1 tables, writers held 4 ms",
            "mine [[]3/5] mistake: DELETE FROM identity.membership …",
            "mine [[]3/5] mistake: DELETE FROM identity.membership  0.* s  32 rows hit",
            "mine [[]4/5] restore to here by time …",
            "mine [[]4/5] restore to here by time  0.* s  20260115-120000F: stop 0.5 s, restore 1.2 s, *",
            "mine [[]5/5] expect the rows of here …",
            "mine [[]5/5] expect the rows of here  0.* s  exactly as marked: 32 rows in 1 tables, *",
            "*= backup drills =*",
            "scenario *verdict *set-up s *steps s *outage s *proven",
            "mine *passed * 2.5 *1 × 32 rows, 1 tables, 284 objects, *",
            "report: reports/2*/report.md",
            "*1 passed*",
        ],
        consecutive=False,
    )
    assert "\033[K" not in result.stdout.str()


@pytest.mark.parametrize(
    ("environment", "live"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "CI": "true"}, False), ({"TERM": "dumb"}, False)],
    ids=["terminal", "CI", "dumb terminal"],
)
def test_steps_are_told_in_place_on_a_terminal_and_as_plain_lines_in_ci(
    project: Project, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *, live: bool
) -> None:
    with (project.pytester.path / "conftest.py").open("a") as conftest:
        conftest.write(
            "\ndef pytest_sessionstart(session):\n"
            "    reporter = session.config.pluginmanager.get_plugin('terminalreporter')\n"
            "    reporter.isatty = type(reporter.isatty)(True)\n"
        )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = project.run("--iop-scenario=mine")
    result.assert_outcomes(passed=1)
    output = result.stdout.str()
    assert ("\033[Kmine [2/5] mark here  0." in output) is live
    assert ("\033[K" in output) is live


def test_seed_and_time_limits_reach_the_drill(project: Project) -> None:
    project.run("--iop-scenario=mine", "--iop-seed=7", "--iop-timeout-scale=2.5").assert_outcomes(passed=1)
    (drill,) = project.drills
    assert (drill.seed, drill.limits) == (7, Limits().scaled(2.5))


def test_a_run_writes_one_report_and_latest_points_at_it(project: Project) -> None:
    project.run("--iop-scenario=mine", "--iop-scenario=pitr", "--iop-seed=7")
    (record,) = project.records()
    assert project.reports == [record.run, "latest"]
    assert (project.pytester.path / "reports" / "latest").readlink() == Path(record.run)
    assert (record.verdict, record.schema_version) == (Verdict.PASSED, 1)
    mine, pitr = record.scenarios
    assert (mine.name, mine.seed, mine.users, pitr.users) == ("mine", 7, 20, 2000)
    assert mine.versions["postgresql"] == "15.8"
    assert mine.versions["pgbackrest"] == "2.45"
    assert {"backup.sh", "check.sh", "pgbackrest.conf", "worker.sh"} <= mine.configuration.keys()
    report = (project.pytester.path / "reports" / "latest" / "report.md").read_text()
    assert "## mine: ✅ passed" in report
    assert "## pitr: ✅ passed" in report

    project.run("--iop-scenario=mine")
    assert len(project.records()) == 2
    assert (project.pytester.path / "reports" / "latest").readlink() == Path(project.records()[1].run)


def test_the_report_directory_can_be_another(project: Project) -> None:
    project.run("--iop-scenario=mine", "--iop-report-dir=out").assert_outcomes(passed=1)
    assert (project.pytester.path / "out" / "latest" / "report.md").is_file()
    assert project.reports == []


def test_a_difference_fails_with_the_steps_and_the_rows_and_no_traceback(project: Project) -> None:
    project.script["expect"] = DIFFERENT
    result = project.run("--iop-scenario=mine")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "mine [[]5/5] expect the rows of here  0.* s  FAILED: identity.membership: 1 row missing (user_id=7|*",
            "FAILED: identity.membership: 1 row missing (user_id=7|org_id=3)",
            "  1  write 20 transactions, 4 clients *passed *",
            "  5  expect the rows of here *failed *identity.membership: 1 row missing*",
            "identity.membership: 1 row missing",
            "    user_id=7|org_id=3",
            "mine *failed *identity.membership: 1 row missing*",
        ]
    )
    assert "Traceback" not in all_output(result)
    assert "runner.py" not in all_output(result)
    assert project.records()[0].verdict is Verdict.FAILED
    assert project.drills[0].failed


@pytest.mark.parametrize(
    ("script", "word", "reason"),
    [
        ({"restore": IopError("it refused", hint="do this")}, "FAILED", "it refused"),
        ({"restore": MachineError("no space")}, "UNKNOWN", "no space"),
        ({"mark": RuntimeError("our own")}, "UNKNOWN", "RuntimeError: our own"),
        ({"expect": replace(PROOF, tables=())}, "UNKNOWN", "nothing was compared"),
        ({"expect": replace(PROOF, tables=(replace(TABLE, actual_digest="b"),))}, "FAILED", "digests differ"),
    ],
)
def test_neither_failed_nor_unknown_is_ever_passed(
    project: Project, script: dict[str, object], word: str, reason: str
) -> None:
    project.script.update(script)
    result = project.run("--iop-scenario=mine")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1)
    assert f"{word}: " in result.stdout.str()
    assert reason in result.stdout.str()
    assert "Traceback" not in all_output(result)
    assert project.records()[0].verdict.value == word.lower()


def test_a_stack_that_does_not_come_up_fails_the_run_in_its_own_words(project: Project) -> None:
    project.trouble = MachineError("PostgreSQL did not start:\nFATAL: no", hint="look there")
    result = project.run("--iop-scenario=mine")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "UNKNOWN: bringing the stack up: PostgreSQL did not start:",
            "FATAL: no",
            "HINT: look there",
            "(5 steps not run)",
        ]
    )
    assert "Traceback" not in all_output(result)


def test_one_failure_does_not_end_the_run_and_makes_all_of_it_failed(project: Project) -> None:
    write_scenario(project.pytester.path / "drills", "other")
    (project.pytester.path / "drills" / "other.yaml").open("a").write("  - check: green\n")
    project.script["check"] = IopError("not green")
    result = project.run("--iop-scenario=other", "--iop-scenario=mine")
    result.assert_outcomes(passed=1, failed=1)
    (record,) = project.records()
    assert [one.verdict for one in record.scenarios] == [Verdict.FAILED, Verdict.PASSED]
    assert record.verdict is Verdict.FAILED


def test_the_finished_run_is_handed_to_third_parties_once(project: Project) -> None:
    seen = project.pytester.path / "seen"
    with (project.pytester.path / "conftest.py").open("a") as conftest:
        conftest.write(
            "\ndef pytest_iopbackup_run_finished(record):\n"
            f"    written = Path({str(project.pytester.path)!r}, 'reports', record.run, 'record.json').is_file()\n"
            f"    with open({str(seen)!r}, 'a') as file:\n"
            "        print(record.run, record.verdict.value, len(record.scenarios), written, file=file)\n"
        )
    project.run("--iop-scenario=mine", "--iop-scenario=pitr")
    assert seen.read_text() == f"{project.records()[0].run} passed 2 True\n"

    project.pytester.makepyfile(test_it="def test_it(): pass")
    project.run("test_it.py")
    assert len(seen.read_text().splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--collect-only"], ["-k", "nothing_of_the_kind"]])
def test_a_run_that_runs_nothing_reports_nothing(project: Project, arguments: list[str]) -> None:
    project.run("--iop-scenario=mine", *arguments)
    assert project.drills == []
    assert project.reports == []
    assert project.left == []


def test_a_report_that_cannot_be_written_does_not_pass_and_hides_no_result(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> str:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(writer, "to_markdown", full)
    result = project.run("--iop-scenario=mine")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["mine *passed *", "cannot write reports in *reports: No space left on device", "HINT: choose a directory *"]
    )
    assert "Traceback" not in all_output(result)


def test_sigterm_is_handled_as_before_when_the_run_is_over(project: Project) -> None:
    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        project.run("--iop-scenario=mine").assert_outcomes(passed=1)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nothing_is_left_of_a_run(project: Project) -> None:
    project.run("--iop-scenario=mine").assert_outcomes(passed=1)
    assert project.left == []
