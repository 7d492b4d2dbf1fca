"""Records as data, and the reports made of them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_iopbackup.errors import MachineError
from pytest_iopbackup.points import PointFacts, PointsFacts
from pytest_iopbackup.proven import Differing, Finding, LedgerJudgement, PhysicalFacts, Verdict
from pytest_iopbackup.record import SCHEMA_VERSION, RunRecord, ScenarioRecord, StepRecord
from pytest_iopbackup.reports.codec import from_json, to_json
from pytest_iopbackup.reports.markdown import to_markdown
from pytest_iopbackup.reports.table import run_table, step_table
from pytest_iopbackup.reports.text import note, number, size
from pytest_iopbackup.reports.writer import make_parent, write_reports
from scripted import BACKUP, CHECKS, DIFFERENT, MARK, MISTAKE, NOON, PHYSICAL, PROOF, RESTORE, TABLE, WRITE

PASSED, FAILED, UNKNOWN = Verdict.PASSED, Verdict.FAILED, Verdict.UNKNOWN


def step(position: int, verb: str, title: str, verdict: Verdict = PASSED, reason: str | None = None) -> StepRecord:
    return StepRecord(
        number=position,
        verb=verb,
        title=title,
        line=position + 4,
        started=NOON,
        seconds=1.5,
        verdict=verdict,
        reason=reason,
    )


STEPS = (
    replace(step(1, "backup", "backup full"), backup=BACKUP),
    replace(step(2, "write", "write 200 transactions, 4 clients"), write=WRITE),
    replace(step(3, "mark", "mark here"), mark=MARK),
    replace(step(4, "mistake", "mistake: DELETE FROM identity.membership"), mistake=MISTAKE),
    step(5, "lose", "lose the data-directory"),
    replace(step(6, "restore", "restore to here by time"), restore=RESTORE),
    replace(step(7, "expect", "expect the rows of here"), proof=PROOF),
    replace(step(8, "check", "check: all green"), checks=CHECKS),
)


def scenario(
    *steps: StepRecord, verdict: Verdict = PASSED, reason: str | None = None, name: str = "pitr"
) -> ScenarioRecord:
    return ScenarioRecord(
        name=name,
        title="A restore brings back what was there",
        file=f"{name}.yaml",
        stack="local",
        seed=42,
        users=2000,
        started=NOON,
        setup_seconds=3.25,
        seconds=12.5,
        steps=steps or STEPS,
        planned=len(STEPS),
        versions={"postgresql": "15.8", "pgbackrest": "2.45"},
        configuration={"backup.sh": "c" * 64},
        verdict=verdict,
        reason=reason,
    )


def run(*scenarios: ScenarioRecord, name: str = "20260115T120000Z-0a1b2c3d") -> RunRecord:
    return RunRecord(
        run=name,
        started=NOON,
        finished=NOON + timedelta(seconds=61),
        versions={"postgresql": "15.8", "pgbackrest": "2.45"},
        scenarios=scenarios,
        verdict=Verdict.worst(one.verdict for one in scenarios),
    )


FAILING = scenario(
    *STEPS[:6],
    replace(
        step(7, "expect", "expect the rows of here", FAILED, "identity.membership: 1 row missing"), proof=DIFFERENT
    ),
    verdict=FAILED,
    reason="identity.membership: 1 row missing",
)


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ((), UNKNOWN),
        ((PASSED,), PASSED),
        ((PASSED, PASSED), PASSED),
        ((UNKNOWN,), UNKNOWN),
        ((FAILED,), FAILED),
        ((PASSED, UNKNOWN), UNKNOWN),
        ((PASSED, FAILED), FAILED),
        ((UNKNOWN, FAILED), FAILED),
        ((PASSED, UNKNOWN, FAILED), FAILED),
    ],
)
def test_verdicts_combine_to_the_worst_in_any_order(verdicts: Sequence[Verdict], worst: Verdict) -> None:
    assert {Verdict.worst(order) for order in permutations(verdicts)} == {worst}


# As a run makes them: times in UTC, and figures that JSON has.
st.register_type_strategy(datetime, st.datetimes(timezones=st.just(timezone.utc)))
st.register_type_strategy(float, st.floats(min_value=0, allow_infinity=False))


@given(st.from_type(RunRecord))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
def test_a_record_comes_back_from_json_as_it_was(record: RunRecord) -> None:
    assert from_json(to_json(record), RunRecord) == record


def test_json_has_its_version_plain_values_and_times_with_their_offset() -> None:
    content = json.loads(to_json(run(scenario(), FAILING)))
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["verdict"] == "failed"
    assert content["started"] == "2026-01-15T12:00:00+00:00"
    assert [one["verdict"] for one in content["scenarios"]] == ["passed", "failed"]
    assert content["scenarios"][1]["steps"][6]["proof"]["tables"][0]["missing"] == {
        "total": 1,
        "examples": ["user_id=7|org_id=3"],
    }


def test_json_keeps_text_of_any_language_readable() -> None:
    assert "Zoë 李" in to_json(replace(scenario(), title="Zoë 李"))


def markdown(*scenarios: ScenarioRecord) -> str:
    """Return the report with a table's padding taken away, so that its layout is free."""
    return re.sub(" +", " ", to_markdown(run(*scenarios)))


def test_markdown_tells_what_was_done_and_what_was_proven() -> None:
    text = markdown(scenario())
    for words in (
        "20260115T120000Z-0a1b2c3d: ✅ passed",
        "2026-01-15 12:00:00 UTC, 61 s",
        "## pitr: ✅ passed",
        "A restore brings back what was there.",
        "2 000 users",
        "seed 42",
        "190 transactions were committed",
        "32 rows: `DELETE FROM identity.membership`",
        "back after 2.5 s; PostgreSQL: “recovery stopping before commit of transaction 749”",
        "| 20260115-120000F | full |",
        "0/3000028 to 0/3000100",
        "36.7 MB",
        "| time | `2026-01-15 12:00:00+00` | 20260115-120000F | 1 → 2 | 0.50 | 1.25 | 0.50 | 0.25 |",
        "LSN 0/5A00110",
        "sum of SHA-256",
        "4 sequences and 284 objects",
        "0 lost, 0 unexpected, 0 recovered",
        "| backup.sh | `cccccccccccccccc…` |",
        "| postgresql | 15.8 |",
        "| pgbackrest | 2.45 |",
    ):
        assert words in text
    for title in (one.title for one in STEPS):
        assert f"| `{title}` | ✅ passed | 1.5 |" in text
    assert re.search(r"\| identity\.membership \| 32 \| `a+…?` \| .*equal", text)
    assert "❌" not in text
    assert "not run" not in text


def test_markdown_of_a_failure_names_the_reason_the_rows_and_what_was_not_run() -> None:
    proof = replace(
        DIFFERENT,
        findings=(Finding(kind="sequence", name="identity.users_id_seq", expected="at least 9", actual="3"),),
        ledger=LedgerJudgement(
            acknowledged=9,
            rows=9,
            lost=Differing(total=2, examples=("r-1", "r-2")),
            unexpected=Differing(total=1, examples=("r-3",)),
        ),
    )
    text = markdown(replace(FAILING, steps=(*FAILING.steps[:6], replace(FAILING.steps[6], proof=proof))))
    for words in (
        "20260115T120000Z-0a1b2c3d: ❌ failed",
        "## pitr: ❌ failed",
        "**Failed:** identity.membership: 1 row missing",
        "| `expect the rows of here` | ❌ failed | 1.5 | identity.membership: 1 row missing |",
        "missing: 1 (`user_id=7|org_id=3`)",
        "lost: 2 (`r-1`; `r-2`)",
        "unexpected: 1 (`r-3`)",
        "- sequence identity.users_id_seq: expected at least 9, found 3",
        "1 step was not run.",
    ):
        assert words in text
    assert "exactly as marked" not in text.lower()
    assert "equal |" not in text


POINT = PointFacts(
    name="xid 749", by="xid", target="749", exclusive=True, backup_set=BACKUP.label, expected=1204, mark="here",
    reached="recovery stopping before commit of transaction 749", verdict=PASSED, seconds=0.42,
)  # fmt: skip
DENIED = PointFacts(
    name="no offset", by="time", target="2026-01-15 12:00:00", refusal="it has no UTC offset",
    reached="target time '2026-01-15 12:00:00': it has no UTC offset", verdict=PASSED, seconds=0.1,
)  # fmt: skip
POINTS = PointsFacts(points=(POINT, DENIED), restores=1, window="661 transactions", seed=7)


def test_points_have_a_line_each_in_markdown_and_one_for_all_elsewhere() -> None:
    swept = replace(step(3, "sweep", "sweep: 2 random recovery points"), points=POINTS)
    told = "1 of 2 points restored exactly, 1 rightly refused, 1 restore, seed 7; 1 with all row sets; 661 transactions"
    assert note(swept) == told
    text = to_markdown(run(scenario(swept)))
    assert "### Recovery points of step 3" in text
    assert "2 points, 1 restore; 661 transactions; drawn with seed 7." in text
    assert "not read again" not in text
    rested = replace(swept, points=replace(POINTS, points=(replace(POINT, mark=None, still=10), DENIED)))
    assert "At 1 of them up to 10 tables were not read again" in to_markdown(run(scenario(rested)))
    (exact,) = [line for line in text.splitlines() if line.startswith("| xid 749")]
    for part in ("xid, exclusive", "`749`", "1 204 transactions, the rows of `here`", "✅ passed", "0.42"):
        assert part in exact
    (denied,) = [line for line in text.splitlines() if line.startswith("| no offset")]
    assert "refused: it has no UTC offset" in denied
    assert "1 of 2 points restored exactly" in run_table(run(scenario(swept)))
    assert from_json(to_json(run(scenario(swept))), RunRecord) == run(scenario(swept))


def test_points_tell_how_much_of_what_was_restored_is_sound() -> None:
    points = replace(POINTS, points=(replace(POINT, physical=PHYSICAL), replace(POINT, physical=None), DENIED))
    swept = replace(step(3, "sweep", "sweep: 2 random recovery points"), points=points)
    assert "1 rightly refused, 1 restore, 1 sound, seed 7; " in note(swept)
    broken = replace(points, points=(replace(POINT, physical=PHYSICAL, verdict=Verdict.FAILED, reason="index i"),))
    assert "sound" not in to_markdown(run(scenario(replace(swept, points=broken))))
    text = to_markdown(run(scenario(swept)))
    sound = "sound: 4 622 pages, 353 heaps, 531 indexes, 129 constraints"
    assert f"1 restored cluster is sound; of the largest: {sound}." in text
    assert from_json(to_json(run(scenario(swept))), RunRecord) == run(scenario(swept))


def test_markdown_survives_reasons_that_would_break_its_tables() -> None:
    broken = step(1, "backup", "backup full", UNKNOWN, "one | two\nthree")
    text = to_markdown(run(scenario(broken, verdict=UNKNOWN, reason="one | two\nthree")))
    assert "one \\| two three |" in text


OMITTED = {"page checksums": "data checksums are off", "constraint s.t.c": "NOT VALID", "index s.i": "not valid"}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (PHYSICAL, "; sound: 4 622 pages, 353 heaps, 531 indexes, 129 constraints"),
        (
            replace(PHYSICAL, pages=0, omissions=OMITTED),
            "; sound: 353 heaps, 531 indexes, 129 constraints; "
            "not checked: page checksums (data checksums are off), 2 by name",
        ),
        (
            replace(PHYSICAL, tables=0, indexes=0, omissions={"heaps and indexes": "no amcheck"}),
            "; sound: 4 622 pages, 129 constraints; not checked: heaps and indexes (no amcheck)",
        ),
    ],
)
def test_a_proof_says_what_it_has_looked_over_and_what_not(facts: PhysicalFacts, words: str) -> None:
    assert note(replace(STEPS[6], proof=replace(PROOF, physical=facts))).endswith(words)


def test_markdown_names_what_was_not_looked_over() -> None:
    proof = replace(PROOF, physical=replace(PHYSICAL, omissions=OMITTED))
    text = markdown(scenario(*STEPS[:6], replace(STEPS[6], proof=proof), STEPS[7]))
    assert "Seconds, side by side: page checksums 0.07, heaps and indexes of 3 databases 0.25, constraints 0.12" in text
    for what, why in OMITTED.items():
        assert f"- {what}: not checked, {why}" in text


def test_a_record_without_a_physical_proof_can_still_be_read() -> None:
    record = run(scenario())
    older = re.sub(r',\s*"physical": null', "", to_json(record))
    assert older != to_json(record)
    assert from_json(older, RunRecord) == record


def test_the_run_table_has_a_row_for_each_scenario() -> None:
    late = scenario(verdict=UNKNOWN, reason="waited 60 s\nHINT: wait longer", name="late")
    lines = run_table(run(scenario(), FAILING, late)).splitlines()
    assert lines[0].split() == ["scenario", "verdict", "set-up", "s", "steps", "s", "outage", "s", "proven"]
    assert lines[2].split()[:5] == ["pitr", "passed", "3.2", "12.5", "2.5"]
    assert "32 rows, 1 tables, 284 objects, 190 transactions" in lines[2]
    assert "failed" in lines[3]
    assert lines[3].endswith("identity.membership: 1 row missing")
    assert "unknown" in lines[4]
    assert lines[4].endswith("waited 60 s")
    assert len(lines) == 5


def test_the_run_table_spans_the_restores_of_a_scenario() -> None:
    slow = replace(STEPS[5], restore=replace(RESTORE, restore_seconds=9.25))
    assert "2.5-10.5" in run_table(run(scenario(*STEPS, slow)))


def test_the_step_table_shows_each_step_and_how_many_were_not_run() -> None:
    lines = step_table(FAILING).splitlines()
    assert [line.split()[0] for line in lines[2:9]] == list("1234567")
    assert "20260115-120000F, 36.7 MB, 5.9 MB in the repository" in lines[2]
    assert "expect the rows of here" in lines[8]
    assert lines[8].endswith("identity.membership: 1 row missing")
    assert lines[9] == "(1 step not run)"
    assert "not run" not in step_table(scenario())


@pytest.mark.parametrize("reason", ["", "\n", None])
def test_no_reason_is_no_reason_to_fail_the_tables(reason: str | None) -> None:
    silent = scenario(step(1, "lose", "lose", FAILED, reason), verdict=FAILED, reason=reason)
    assert "failed" in run_table(run(silent))
    assert "failed" in step_table(silent)
    assert "failed" in to_markdown(run(silent))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (replace(STEPS[0], backup=replace(BACKUP, prior="20260115-110000F")), "20260115-120000F on 20260115-110000F"),
        (replace(STEPS[1], write=replace(WRITE, indeterminate=2)), "190 acknowledged, 10 rolled back, 2 indeterminate"),
        (
            replace(STEPS[1], write=replace(WRITE, marks=(MARK, replace(MARK, writers_waited=0.02)))),
            "190 acknowledged, 10 rolled back; 2 marks meanwhile, no writer held longer than 20 ms",
        ),
        (
            replace(STEPS[2], mark=replace(MARK, requests=3, queued=0.35)),
            "writers held 4 ms at most, 350 ms in 3 requests for locks",
        ),
        (STEPS[2], "LSN 0/5A00110, 32 rows in 1 tables, writers held 4 ms"),
        (STEPS[3], "32 rows hit"),
        (STEPS[4], ""),
        (STEPS[5], "restore 1.2 s, replay 0.5 s, ready 0.2 s; recovery stopping before"),
        (STEPS[7], "repository"),
    ],
)
def test_a_step_is_told_in_a_few_words(changed: StepRecord, words: str) -> None:
    assert words in note(changed)
    assert "\n" not in note(changed)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (36_700_000, "36.7 MB"),
        (123_400_000, "123 MB"),
        (2_000_000_000_000, "2000 GB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_fits(count: int, words: str) -> None:
    assert size(count) == words


def test_counts_are_grouped() -> None:
    assert (number(999), number(14_296), number(1_000_000)) == ("999", "14 296", "1 000 000")


def test_a_comparison_counts_the_rows_of_all_tables() -> None:
    assert replace(PROOF, tables=(TABLE, TABLE)).rows == 64


def test_a_run_writes_every_format_and_latest_points_at_it(tmp_path: Path) -> None:
    parent = tmp_path / "not" / "yet" / "there"
    make_parent(parent)
    record = run(scenario())
    directory = write_reports(record, parent)
    assert directory == parent / record.run
    assert from_json((directory / "record.json").read_text(encoding="utf-8"), RunRecord) == record
    assert (directory / "report.md").read_text(encoding="utf-8") == to_markdown(record)
    assert (parent / "latest").readlink() == Path(record.run)
    assert sorted(path.name for path in parent.iterdir()) == [record.run, "latest"]


def test_latest_is_replaced_in_one_step(tmp_path: Path) -> None:
    """Somebody who reads ``latest/record.json`` while runs end never finds it missing or half written."""
    write_reports(run(scenario(), name="r-first"), tmp_path)
    over = threading.Event()
    seen: list[str] = []

    def read() -> None:
        while not over.is_set():
            seen.append(json.loads((tmp_path / "latest" / "record.json").read_text(encoding="utf-8"))["run"])
        seen.append("end")

    reader = threading.Thread(target=read)
    reader.start()
    for position in range(60):
        write_reports(run(scenario(), name=f"r-{position}"), tmp_path)
    over.set()
    reader.join(10)
    assert seen[-1] == "end", "the reader died of a link or a file that was not there"
    assert len(set(seen)) > 2
    assert (tmp_path / "latest").readlink() == Path("r-59")


@pytest.mark.parametrize("what", [make_parent, lambda parent: write_reports(run(scenario()), parent)])
def test_a_place_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path, what: object) -> None:
    (tmp_path / "file").write_text("")
    assert callable(what)
    with pytest.raises(MachineError, match=r"cannot write reports in .*/file/reports: Not a directory") as caught:
        what(tmp_path / "file" / "reports")
    assert "--iop-report-dir=DIR" in (caught.value.hint or "")
