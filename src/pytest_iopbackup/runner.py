"""Runs one scenario on a stack, step by step, into a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pytest_iopbackup.blame import blame, words
from pytest_iopbackup.crash import Crashes
from pytest_iopbackup.crashes import CrashPlan
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import IopError
from pytest_iopbackup.everywhere.sweep import Sweep
from pytest_iopbackup.everywhere.targets import try_every_target
from pytest_iopbackup.progress import Narrator
from pytest_iopbackup.proof.verdict import verdict
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import ScenarioRecord, StepRecord
from pytest_iopbackup.reports.text import note
from pytest_iopbackup.scenario import model
from pytest_iopbackup.stack.supply import Stage
from pytest_iopbackup.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a scenario runs: how to get a stack for it, and what the record says about it."""

    provide: Callable[[model.Dataset, Stage], AbstractContextManager[Drill]]
    seed: int
    stack: str
    versions: Mapping[str, str]
    configuration: Mapping[str, str]


def run_scenario(scenario: model.Scenario, setting: Setting, narrator: Narrator) -> ScenarioRecord:
    """Bring a stack up, run the steps until one does not pass, and take the stack down whatever happens.

    Trouble becomes a verdict: ``failed`` where the system under test is at fault, ``unknown`` where the harness could
    not find out. Only what ends the process (Ctrl-C) passes through.
    """
    started, clock = datetime.now(timezone.utc), time.monotonic()
    begun = ended = None
    steps: list[StepRecord] = []
    logs: Mapping[str, str] = {}
    narrator.begin(f"{scenario.name}: bringing the stack up")
    try:
        with setting.provide(scenario.dataset, narrator.stage) as drill:
            begun = time.monotonic()
            narrator.end(begun - clock, f"{setting.stack}, {scenario.dataset.users} users")
            drill.progress = narrator.advance
            steps = _run_steps(scenario, drill, narrator)
            ended = time.monotonic()
            drill.failed = _conclude(steps)[0] is not Verdict.PASSED
            logs = drill.logs() if drill.failed else {}
        outcome, reason = _conclude(steps)
    except Exception as error:  # whatever it is, it is a verdict with a reason
        outcome = Verdict.worst([*(step.verdict for step in steps), blame(error)])
        reason = f"{'taking the stack down' if steps else 'bringing the stack up'}: {words(error)}"
        if steps and steps[-1].reason:
            reason = f"{steps[-1].reason}; and {reason}"
        if begun is None:
            narrator.end(time.monotonic() - clock, f"{outcome.value.upper()}: {reason}")
    over = time.monotonic()
    dataset = scenario.dataset
    return ScenarioRecord(
        name=scenario.name,
        title=scenario.title,
        file=scenario.path.name,
        stack=setting.stack,
        seed=setting.seed if dataset.seed is None else dataset.seed,
        users=dataset.users,
        started=started,
        setup_seconds=(begun or over) - clock,
        seconds=(ended or over) - (begun or over),
        steps=tuple(steps),
        planned=len(scenario.steps),
        versions=setting.versions,
        configuration=setting.configuration,
        verdict=outcome,
        reason=reason,
        logs=logs,
    )


def _run_steps(scenario: model.Scenario, drill: Drill, narrator: Narrator) -> list[StepRecord]:
    records: list[StepRecord] = []
    for number, step in enumerate(scenario.steps, start=1):
        total = len(scenario.steps)
        narrator.begin(f"{scenario.name} [{number:>{len(str(total))}}/{total}] {step.action.title}")
        started, clock = datetime.now(timezone.utc), time.monotonic()
        facts: dict[str, Any] = {}
        reason: str | None = None
        try:
            facts = _VERBS[type(step.action)](drill, step.action)
            outcome = Verdict.PASSED
            procedure = facts.get("fault") or facts.get("crash")
            if procedure:
                outcome, reason = procedure.verdict, procedure.trouble
            elif "proof" in facts:
                outcome, reason = verdict(facts["proof"])
            elif "points" in facts:
                outcome, reason = facts["points"].verdict, facts["points"].reason
        except Exception as error:  # whatever it is, it is a verdict with a reason
            outcome, reason = blame(error), words(error)
        record = StepRecord(
            number=number,
            verb=step.verb,
            title=step.action.title,
            line=step.line,
            started=started,
            seconds=time.monotonic() - clock,
            verdict=outcome,
            reason=reason,
            **facts,
        )
        ending = note(record) if outcome is Verdict.PASSED else f"{outcome.value.upper()}: {reason}"
        narrator.end(record.seconds, ending)
        records.append(record)
        if outcome is not Verdict.PASSED:
            break
    return records


def _conclude(steps: list[StepRecord]) -> tuple[Verdict, str | None]:
    outcome = Verdict.worst(step.verdict for step in steps)
    if outcome is not Verdict.PASSED:
        return outcome, steps[-1].reason if steps else "no step was run"
    if not any(step.proof or step.points or step.crash for step in steps):
        return Verdict.UNKNOWN, "no step compared rows with a mark, so nothing is proven: add 'expect'"
    return outcome, None


def _backup(drill: Drill, action: model.Backup) -> dict[str, Any]:
    return {"backup": drill.backup(action.type, action.name)}


def _write(drill: Drill, action: model.Write) -> dict[str, Any]:
    facts = drill.write(action.transactions, action.clients, marks=action.marks, prefix=action.prefix)
    if facts.not_attempted:
        raise IopError(f"the clients lost the server: {facts.not_attempted} transactions were not attempted")
    return {"write": facts}


def _mark(drill: Drill, action: model.Mark) -> dict[str, Any]:
    return {"mark": drill.mark(action.name)}


def _mistake(drill: Drill, action: model.Mistake) -> dict[str, Any]:
    return {"mistake": drill.mistake(action.sql)}


def _lose(drill: Drill, _: model.Lose) -> dict[str, Any]:
    drill.lose()
    return {}


def _restore(drill: Drill, action: model.Restore) -> dict[str, Any]:
    return {"restore": drill.restore(action.mark, action.by, value=action.value, backup=action.backup)}


def _expect(drill: Drill, action: model.Expect) -> dict[str, Any]:
    return {"proof": drill.prove(action.rows)}


def _schedule(drill: Drill, action: model.Schedule) -> dict[str, Any]:
    return {"schedule": drill.schedule(action.full, action.diff)}


def _configure(drill: Drill, action: model.Configure) -> dict[str, Any]:
    drill.configure(action.variables)
    return {}


def _restore_kept(drill: Drill, action: model.RestoreKept) -> dict[str, Any]:
    restores, proof = drill.restore_kept(action.rows)
    return {"restores": restores, "proof": proof}


def _control(drill: Drill, action: model.Control) -> dict[str, Any]:
    return {"operation": drill.control_restore(action.mark, action.by)}


def _refuse(drill: Drill, _: model.Refuse) -> dict[str, Any]:
    return {"operation": drill.refuse_wrong_tokens()}


def _check(drill: Drill, _: model.Check) -> dict[str, Any]:
    return {"checks": drill.check()}


def _fault(drill: Drill, action: model.Fault) -> dict[str, Any]:
    facts = Trial(drill, drill.fault(action.name)).run()
    return {"fault": facts, "proof": facts.proofs[-1] if facts.proofs else None}


def _crash(drill: Drill, action: model.Crash) -> dict[str, Any]:
    plan = CrashPlan(times=action.times, clients=action.clients, archive_timeout=action.archive_timeout)
    return {"crash": Crashes(drill, plan).run()}


def _targets(drill: Drill, _: model.Targets) -> dict[str, Any]:
    return {"points": try_every_target(drill)}


def _sweep(drill: Drill, action: model.Sweep) -> dict[str, Any]:
    return {"points": Sweep(drill, action.points, action.workers).run()}


_VERBS: Mapping[type, Callable[[Drill, Any], dict[str, Any]]] = {
    model.Backup: _backup,
    model.Write: _write,
    model.Mark: _mark,
    model.Mistake: _mistake,
    model.Lose: _lose,
    model.Restore: _restore,
    model.Expect: _expect,
    model.Check: _check,
    model.Configure: _configure,
    model.Schedule: _schedule,
    model.RestoreKept: _restore_kept,
    model.Control: _control,
    model.Refuse: _refuse,
    model.Fault: _fault,
    model.Crash: _crash,
    model.Targets: _targets,
    model.Sweep: _sweep,
}
