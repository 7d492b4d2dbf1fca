"""Crashes without a server: when they come, what a ledger says is lost, what the runner and the reports make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reports import run as run_record
from test_reports import scenario
from test_runner import Stage

from pytest_iopbackup import runner
from pytest_iopbackup.cluster.promise import draw_moments
from pytest_iopbackup.crashes import CrashFacts, CrashPlan, quantile
from pytest_iopbackup.dataset.ledger import Entry, Outcome
from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.cut import Everything
from pytest_iopbackup.proof.loss import Scene, loss, settle
from pytest_iopbackup.proof.session import Connection
from pytest_iopbackup.proven import Differing, Verdict
from pytest_iopbackup.record import ScenarioRecord, StepRecord
from pytest_iopbackup.relay import wanted_by
from pytest_iopbackup.reports.losses import losses
from pytest_iopbackup.reports.markdown import to_markdown
from pytest_iopbackup.reports.table import run_table
from pytest_iopbackup.reports.text import note
from pytest_iopbackup.scenario import model
from scripted import CRASH, CRASHES, NOON

COMMITTED, LOST_SIGHT, ROLLED = Outcome.ACKNOWLEDGED, Outcome.INDETERMINATE, Outcome.ROLLED_BACK


def entry(number: int, outcome: Outcome, before: float | None = None, *, xid: int | None = 9, kind: str = "x") -> Entry:
    time = None if before is None else NOON - timedelta(seconds=before)
    request = str(UUID(int=number))
    return Entry(
        request_id=request, client=1, kind=kind, outcome=outcome, xid=xid, lsn="0/1", time=time, effects=()
    )  # fmt: skip


def scene(*entries: Entry, before: int = 0) -> Scene:
    return Scene(since="0/1000000", moment=NOON, after=9, entries=entries, before=before)


@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0.5, 200))
def test_moments_are_spread_around_the_promise_and_one_lies_beyond_it(seed: int, times: int, promised: float) -> None:
    moments = draw_moments(seed, times, promised)
    assert len(moments) == times
    assert all(0 <= moment <= 1.5 * promised for moment in moments)
    assert max(moments) >= 1.1 * promised
    width = 1.5 * promised / times
    assert len({int(moment // width) for moment in sorted(moments)[:-1]}) >= times - 2  # spread over all of it
    assert moments == draw_moments(seed, times, promised)


def test_another_seed_draws_others() -> None:
    assert draw_moments(1, 5, 5.0) != draw_moments(2, 5, 5.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([7], (7, 7, 7)), ([2, 1], (1, 2, 2)), ([5, 1, 4, 2, 3], (3, 5, 5)), (range(1, 101), (50, 95, 100))],
)
def test_quantiles_are_of_the_nearest_rank(values: Sequence[float], expected: tuple[float, ...]) -> None:
    assert tuple(quantile(values, share) for share in (0.5, 0.95, 1.0)) == expected


def test_a_loss_is_what_was_acknowledged_and_is_not_there_the_oldest_first() -> None:
    there = entry(1, COMMITTED, 3.0)
    young, old = entry(2, COMMITTED, 0.25), entry(3, COMMITTED, 1.5)
    found, oldest = loss(scene(there, young, old, entry(4, LOST_SIGHT), entry(5, ROLLED)), {there.request_id})
    assert (found.total, oldest) == (2, 1.5)
    assert found.examples == (
        f"{old.request_id} (x, client 1), 1.500 s before the crash",
        f"{young.request_id} (x, client 1), 0.250 s before the crash",
    )
    assert loss(scene(there), {there.request_id}) == (Differing(), 0.0)


def test_what_was_written_before_earlier_crashes_may_be_lost_as_well() -> None:
    assert loss(scene(entry(1, COMMITTED, 70.0), entry(2, COMMITTED, 1.0), before=1), set())[1] == 70.0


def test_a_loss_without_a_time_cannot_be_measured() -> None:
    with pytest.raises(ProofError, match="no commit time"):
        loss(scene(entry(1, COMMITTED)), set())


def test_in_flight_is_what_lost_the_server_in_commit_or_before_it() -> None:
    entries = (
        entry(1, LOST_SIGHT),  # of an earlier crash
        entry(2, COMMITTED, 1.0),
        entry(3, LOST_SIGHT),
        entry(4, ROLLED, xid=None),
        entry(5, ROLLED),  # as planned
        entry(6, ROLLED, xid=None, kind="savepoint"),
    )
    assert scene(*entries, before=1).in_flight == 2
    assert scene(*entries[:2], before=1).in_flight == 0


class Server:
    """Answers with a place in WAL and a time, and keeps which xids were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def execute(self, _: str, values: list[str]) -> Server:
        self.asked += values
        return self

    def fetchall(self) -> list[tuple[str, datetime]]:
        return [("0/9", NOON)]


def test_what_crash_recovery_has_not_found_is_rolled_back_for_ever_and_the_rest_committed() -> None:
    server, kept, gone = Server(), entry(1, LOST_SIGHT, xid=7), entry(2, LOST_SIGHT, xid=8)
    settled = settle(scene(kept, gone, entry(3, COMMITTED, 1.0)), {kept.request_id}, cast("Connection", server))
    assert settled == {
        kept.request_id: replace(kept, outcome=COMMITTED, lsn="0/9", time=NOON),
        gone.request_id: replace(gone, outcome=ROLLED),
    }
    assert server.asked == ["7"]


def test_with_the_disk_all_that_was_acknowledged_must_be_there() -> None:
    holds = {outcome: Everything().holds(entry(1, outcome, 1.0)) for outcome in Outcome}
    assert holds == {COMMITTED: True, LOST_SIGHT: None, ROLLED: False}


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: CrashFacts) -> tuple[ScenarioRecord, list[object]]:
    asked: list[object] = []

    class Scripted:
        def __init__(self, _drill: Drill, plan: CrashPlan) -> None:
            asked.append(plan)

        def run(self) -> CrashFacts:
            return facts

    monkeypatch.setattr(runner, "Crashes", Scripted)
    action = model.Crash(times=2, clients=3, archive_timeout=2)
    return Stage(tmp_path).run_actions([action, model.Check()]), asked


def test_crashes_that_kept_their_promise_prove_a_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, asked = run(tmp_path, monkeypatch, CRASHES)
    assert (record.verdict, record.reason) == (Verdict.PASSED, None)
    assert record.steps[0].crash == CRASHES
    assert asked == [CrashPlan(times=2, clients=3, archive_timeout=2)]


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.UNKNOWN])
def test_crashes_that_did_not_end_the_run_with_their_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: Verdict
) -> None:
    facts = replace(CRASHES, verdict=verdict, trouble="crash 1: 9 lost")
    record, _ = run(tmp_path, monkeypatch, facts)
    assert (record.verdict, record.reason, len(record.steps)) == (verdict, "crash 1: 9 lost", 1)
    assert record.steps[0].crash == facts


def test_crashes_are_told_on_one_line_and_in_a_table() -> None:
    step = StepRecord(
        number=1, verb="crash", title="crash", line=1, started=NOON, seconds=1, verdict=Verdict.PASSED, crash=CRASHES
    )
    assert note(step) == (
        "2 crashes; without the disk lost: p50 0.00, p95 1.50, max 1.50 s of 5 promised, p50 0, p95 300, max 300 "
        "transactions; with it: none"
    )
    text = " ".join(
        "\n".join(losses(replace(CRASHES, crashes=(*CRASHES.crashes, replace(CRASH, hole="A" * 24))))).split()
    )
    for words in (
        "older than 5 s (archive_timeout 2 s, archive-timeout 3 s)",
        "without archived WAL the schedule would promise 3600 s",
        "`fsync = on`",
        "| 1 | 12:00:00.000 | 5.25 | 1 100 | 4 | 300 | 1.50 | 2 | 1 | 2.50 | 0.25 | 61 |",
        "over 3 of 2 crashes: p50 1.50, p95 1.50, max 1.50 s",
        "- crash 1, the oldest lost: `11111111-2222-4333-8444-555555555555 (login, client 2), 1.500 s before`",
        f"- crash 3: WAL segment `{'A' * 24}` was missing",
    ):
        assert words in text
    assert "### Crashes" in "\n".join(losses(replace(CRASHES, crashes=(), verdict=Verdict.FAILED, trouble="no")))


def test_the_tables_and_the_story_tell_the_greatest_loss_and_the_promise() -> None:
    step = StepRecord(
        number=1, verb="crash", title="crash", line=1, started=NOON, seconds=1, verdict=Verdict.PASSED, crash=CRASHES
    )
    record = run_record(scenario(step, name="crash"))
    assert run_table(record).splitlines()[2].endswith("2 crashes, lost with the disk: 1.5 s at most, 5 promised")
    text = to_markdown(record)
    assert "killed 2 times under load. Without its disk at most 1.5 s of commits were lost, with 5 s promised." in text
    assert "### Crashes" in text


def test_a_scenario_that_crashes_gets_a_server_that_writes_through() -> None:
    def durable(*actions: model.Action) -> bool:
        steps = tuple(model.Step("x", action, 1) for action in actions)
        one = model.Scenario(name="x", title="x", path=Path("x.yaml"), steps=steps)
        return wanted_by(one, "local", DatasetSpec(seed=1, users=20), {}).durable

    assert durable(model.Check(), model.Crash(times=2))
    assert not durable(model.Check())
