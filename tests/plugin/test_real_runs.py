"""Real runs from end to end, two of them at once in one checkout."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import RunRecord, ScenarioRecord
from pytest_iopbackup.reports.codec import from_json
from running import SCENARIO, Remains, Run, remains, work_directory, write_scenario

pytestmark = pytest.mark.integration

CONFTEST = """\
from pathlib import Path

HERE = Path(__file__).parent


def pytest_iopbackup_register(registry):
    registry.add_scenarios(HERE / "drills")


def pytest_iopbackup_run_finished(record):
    with (HERE / "finished").open("a") as file:
        print(record.run, record.verdict.value, *(one.name for one in record.scenarios), file=file)
"""

OWN_TESTS = """\
import pytest

pytestmark = pytest.mark.iop_dataset(users=20)


def test_a_restore_brings_it_back(iop_stack):
    iop_stack.write(20)
    rows = iop_stack.rows("identity.membership")
    iop_stack.mark("here")
    iop_stack.backup("diff")
    iop_stack.mistake("DELETE FROM identity.membership")
    assert iop_stack.rows("identity.membership") != rows
    iop_stack.restore("here", by="lsn")
    assert iop_stack.rows("identity.membership") == rows
    iop_stack.expect("here")
    assert iop_stack.check()


def test_a_row_is_gone_after_the_restore(iop_stack):
    iop_stack.mark("here")
    iop_stack.restore("here")
    with iop_stack.connect() as connection:
        (user,) = connection.execute(
            "DELETE FROM identity.sessions WHERE id = (SELECT min(id::text)::uuid FROM identity.sessions) RETURNING id"
        ).fetchone()
        print("GONE", user)
    iop_stack.expect("here")
"""


@dataclass(frozen=True)
class Outcome:
    """What a run left to look at."""

    code: int
    output: str
    record: RunRecord

    def scenario(self, name: str) -> ScenarioRecord:
        (found,) = (one for one in self.record.scenarios if one.name == name)
        return found


@dataclass(frozen=True)
class Both:
    """Two runs that went on at the same time: one under pytest-xdist, one alone with a fixture's tests."""

    project: Path
    spread: Outcome
    alone: Outcome
    left: Remains


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Run both to their ends."""
    project = tmp_path_factory.mktemp("project")
    for folder in ("drills", "tests"):
        (project / folder).mkdir()
    for name in ("one", "two"):
        write_scenario(project / "drills", name)
    (project / "conftest.py").write_text(CONFTEST)
    (project / "pytest.ini").write_text("[pytest]\ntestpaths = tests\naddopts = --strict-markers\n")
    (project / "tests" / "test_own.py").write_text(OWN_TESTS)
    with (
        work_directory() as base,
        Run("pytest", "-n", "2", "--iop-scenario=one", "--iop-scenario=two", cwd=project, base=base) as spread,
        Run("pytest", "tests", "--iop-scenario=one", cwd=project, base=base) as alone,
    ):
        codes = spread.end(limit=120), alone.end(limit=120)
        records = {
            len(record.scenarios): record
            for record in (
                from_json(file.read_text(), RunRecord) for file in (project / "reports").glob("2*/record.json")
            )
        }
        yield Both(
            project,
            Outcome(codes[0], spread.output, records[2]),
            Outcome(codes[1], alone.output, records[1]),
            remains(base),
        )


def test_under_xdist_there_is_one_report_of_all_scenarios(both: Both) -> None:
    assert both.spread.code == pytest.ExitCode.OK, both.spread.output
    assert "2 passed" in both.spread.output
    assert both.spread.record.verdict is Verdict.PASSED
    assert {one.name for one in both.spread.record.scenarios} == {"one", "two"}
    assert re.findall(r"^report: reports/(.*)/report.md", both.spread.output, re.MULTILINE) == [both.spread.record.run]
    assert both.spread.output.count("= backup drills =") == 1


def test_under_xdist_the_result_is_the_same(both: Both) -> None:
    def essence(record: ScenarioRecord) -> object:
        proof = record.steps[-1].proof
        assert proof is not None
        tables = [(table.table, table.equal) for table in proof.tables]
        return record.verdict, record.seed, record.users, [(step.title, step.verdict) for step in record.steps], tables

    assert essence(both.spread.scenario("one")) == essence(both.alone.scenario("one"))
    assert both.spread.scenario("one").verdict is Verdict.PASSED


def test_under_xdist_every_step_is_told_too(both: Both) -> None:
    for name in ("one", "two"):
        for step in both.spread.scenario(name).steps:
            assert f"{name} [{step.number}/5] {step.title} …" in both.spread.output
            assert f"{name} [{step.number}/5] {step.title}  " in both.spread.output


def test_the_finished_run_is_handed_over_once_by_each(both: Both) -> None:
    spread, alone = both.spread.record, both.alone.record
    lines = (both.project / "finished").read_text().splitlines()
    assert sorted(line.split()[:2] for line in lines) == sorted([[spread.run, "passed"], [alone.run, "passed"]])
    assert sorted(len(line.split()) for line in lines) == [3, 4]


def test_two_runs_at_once_each_have_their_report(both: Both) -> None:
    runs = {both.spread.record.run, both.alone.record.run}
    assert {path.name for path in (both.project / "reports").iterdir()} == {*runs, "latest"}
    assert (both.project / "reports" / "latest").readlink().name in runs


def test_somebodys_own_test_of_a_restore_passes(both: Both) -> None:
    assert "1 failed, 2 passed" in both.alone.output


def test_somebodys_own_test_fails_on_the_row_that_was_deleted_after_the_restore(both: Both) -> None:
    assert both.alone.code == pytest.ExitCode.TESTS_FAILED
    gone = re.search(r"^GONE (\S+)", both.alone.output, re.MULTILINE)
    assert gone
    assert re.search(rf"failed: identity\.sessions: 1 row missing \(id={gone[1]}\)", both.alone.output)
    assert "FAILED tests/test_own.py::test_a_row_is_gone_after_the_restore" in both.alone.output


def test_nothing_is_left_of_either(both: Both) -> None:
    assert not both.left


def test_a_failed_runs_stack_is_kept_where_it_is_said(tmp_path: Path, base: Path) -> None:
    """The mark is wrong on purpose: what was written after it has no business there."""
    steps = "  - mark: early\n  - write: {transactions: 5}\n  - expect: {rows: early}\n"
    (tmp_path / "wrong.yaml").write_text(SCENARIO.format(name="wrong", mark="here").partition("  - write")[0] + steps)
    arguments = ("--iop-scenario=./wrong.yaml", "--iop-keep=failed", "--iop-report-dir=out")
    with Run("pytest", *arguments, cwd=tmp_path, base=base) as run:
        assert run.end() == pytest.ExitCode.TESTS_FAILED
    (kept,) = set(re.findall(r"^kept: (\S+)$", run.output, re.MULTILINE))
    record = from_json((tmp_path / "out" / "latest" / "record.json").read_text(), RunRecord)
    assert (record.verdict, record.scenarios[0].kept) == (Verdict.FAILED, kept)
    assert "Traceback" not in run.output
    assert {"data", "repo", "log", "conf", "evidence"} <= {path.name for path in Path(kept).iterdir()}
    assert (Path(kept) / "data" / "PG_VERSION").is_file()
    left = remains(base)
    assert (left.processes, left.segments) == (frozenset(), frozenset())
    assert [path.name for path in Path(kept).parent.iterdir()] == ["s-main-1"]
    shutil.rmtree(Path(kept).parent)
