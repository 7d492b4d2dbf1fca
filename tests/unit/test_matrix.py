"""The detection matrix and the sentence on it."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from pytest_iopbackup.detection import Answer, FaultFacts, Reading
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import RunRecord, ScenarioRecord, StepRecord
from pytest_iopbackup.reports import matrix
from pytest_iopbackup.reports.codec import from_json, to_json
from pytest_iopbackup.reports.markdown import to_markdown
from pytest_iopbackup.reports.table import fault_table, run_table

NOW = datetime(2026, 1, 15, 21, 30, tzinfo=timezone.utc)


def reading(signal: str, answer: Answer, after: float = 1.0, said: str = "critical: words") -> Reading:
    return Reading(signal=signal, answer=answer, said=said, after=after)


def fault(name: str, *readings: Reading, signal: str = "archiver", verdict: Verdict = Verdict.PASSED) -> FaultFacts:
    return FaultFacts(
        name=name,
        title="Something is broken",
        tags=("archiving",),
        signal=signal,
        reason="words",
        within=10,
        silent=name.startswith("hidden"),
        evidence="it is broken",
        readings=readings,
        written=20,
        lost=None,
        restores=(),
        proofs=(),
        laps={"green": 1.0, "inject": 0.5},
        verdict=verdict,
        trouble=None if verdict is Verdict.PASSED else "archiver did not report it | at all",
    )


SEEN = fault(
    "seen",
    reading("archiver", Answer.ALARM, 2.0),
    reading("space", Answer.SILENT),
    reading("pgbackrest-check", Answer.ALARM, 3.0),
    reading("check-worker", Answer.ALARM, 2.5),
)
HIDDEN = fault(
    "hidden",
    reading("archiver", Answer.ALARM, 4.0),
    reading("space", Answer.SILENT),
    reading("pgbackrest-check", Answer.SILENT),
    reading("check-worker", Answer.SILENT),
)
MISSED = fault("missed", reading("pgbackrest-check", Answer.HUNG), verdict=Verdict.FAILED)


def run(*faults: FaultFacts, not_run: dict[str, str] | None = None) -> RunRecord:
    scenarios = tuple(
        ScenarioRecord(
            name=one.name, title=one.title, file=f"{one.name}.yaml", stack="local", seed=1, users=20, started=NOW,
            setup_seconds=1, seconds=2, planned=1, versions={}, configuration={}, verdict=one.verdict,
            reason=one.trouble,
            steps=(
                StepRecord(
                    number=1, verb="fault", title=f"fault {one.name}", line=5, started=NOW, seconds=2,
                    verdict=one.verdict, reason=one.trouble, fault=one,
                ),
            ),
        )
        for one in faults
    )  # fmt: skip
    return RunRecord(
        run="r", started=NOW, finished=NOW, versions={}, scenarios=scenarios, not_run=not_run or {},
        verdict=Verdict.worst(one.verdict for one in faults),
    )  # fmt: skip


def test_each_fault_is_a_row_and_each_signal_a_column_the_tools_last() -> None:
    header, rows = matrix.matrix(matrix.faults_of(run(SEEN, MISSED, HIDDEN)))
    assert header == ("fault", "archiver", "space", "check-worker", "pgbackrest-check")
    assert rows == [
        ("hidden ★", "**4.0**", "·", "·", "·"),
        ("missed", "", "", "", "hung"),
        ("seen", "**2.0**", "·", "2.5", "3.0"),
    ]


def test_the_sentence_counts_what_plain_check_missed() -> None:
    assert matrix.summary([SEEN, HIDDEN]) == (
        "2 of 2 faults reported by the signal that must, healed, and nothing lost; "
        "reported after 3.0 s (median), 4.0 s at most; silent for plain pgbackrest check: 1 of 2"
    )
    assert matrix.summary([MISSED]).startswith("0 of 1 faults")
    assert matrix.summary([MISSED]).endswith("silent for plain pgbackrest check: 1 of 1")


def test_the_terminal_has_a_row_for_each_and_no_second_table() -> None:
    record = run(SEEN, MISSED)
    assert run_table(record) == ""
    lines = fault_table(record).splitlines()
    assert lines[2].split() == ["missed", "failed", "1.5", "archiver", "-", "hung", *MISSED.trouble.split()]  # type: ignore[union-attr]
    assert lines[3].split()[:6] == ["seen", "passed", "1.5", "archiver", "2.0", "alarm"]
    assert fault_table(run()) == ""


def test_the_report_has_the_matrix_each_fault_and_what_was_not_run() -> None:
    text = to_markdown(run(SEEN, HIDDEN, MISSED, not_run={"frozen": "it takes root"}))
    assert "## Detection matrix" in text
    assert "| hidden ★ | **4.0** | ·" in " ".join(text.split())
    assert "### Fault `seen`" in text
    assert "Seen to be there: it is broken." in text
    assert "## Not run" in text
    assert "it takes root" in text


def test_a_report_without_faults_has_no_matrix() -> None:
    assert "Detection matrix" not in to_markdown(run())


@pytest.mark.parametrize("one", [SEEN, MISSED])
def test_facts_survive_json(one: FaultFacts) -> None:
    assert from_json(to_json(run(one)), RunRecord) == run(one)
