"""The runner: what becomes of what each step gives, without a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_iopbackup import runner
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import (
    CommandError,
    DeadlineError,
    IopError,
    MachineError,
    ProofError,
    RecoveryError,
    TargetError,
    UsageError,
)
from pytest_iopbackup.everywhere.sweep import Sweep
from pytest_iopbackup.points import PointFacts, PointsFacts
from pytest_iopbackup.progress import Narrator
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import ScenarioRecord
from pytest_iopbackup.runner import Setting, run_scenario
from pytest_iopbackup.scenario import model
from pytest_iopbackup.stack import supply
from pytest_iopbackup.stack.base import CommandResult
from scripted import (
    CHECKS,
    DIFFERENT,
    NOTHING_COMPARED,
    OPERATION,
    PROOF,
    REFUSAL,
    RESTORE,
    SCHEDULE,
    WRITE,
    Script,
    ScriptedDrill,
)

ACTIONS: dict[str, model.Action] = {
    "backup": model.Backup("full", "one"),
    "write": model.Write(200),
    "mark": model.Mark("here"),
    "mistake": model.Mistake("DELETE FROM identity.membership"),
    "lose": model.Lose(),
    "restore": model.Restore(mark="here", by="time"),
    "expect": model.Expect("here"),
    "check": model.Check(),
    "configure": model.Configure({"IOP_READY_LIMIT": "9"}),
    "schedule": model.Schedule(2, 3),
    "restorekept": model.RestoreKept("here"),
    "control": model.Control("here", "lsn"),
    "refuse": model.Refuse(),
}
VERBS = list(ACTIONS)
ASKED = [
    ("backup", "full", "one"),
    ("write", 200, 4),
    ("mark", "here"),
    ("mistake", "DELETE FROM identity.membership"),
    ("lose",),
    ("restore", "here", "time", None, None),
    ("expect", "here"),
    ("check",),
    ("configure", {"IOP_READY_LIMIT": "9"}),
    ("schedule", 2, 3),
    ("restore-kept", "here"),
    ("control", "here", "lsn"),
    ("refuse",),
]
COMMAND = CommandError(CommandResult(("backup.sh", "full"), 55, "", "ERROR: [055]: no stanza", 0.2))


class Stage:
    """Runs a scenario of all verbs on a scripted drill, and keeps what can be seen of it."""

    def __init__(self, tmp_path: Path, script: Script | None = None) -> None:
        self.drill = ScriptedDrill(tmp_path, script or {})
        self.before: Exception | None = None
        self.after: Exception | None = None
        self.left = False
        self.said: list[str] = []

    @contextmanager
    def provide(self, _dataset: model.Dataset, _stage: supply.Stage) -> Iterator[Drill]:
        if self.before:
            raise self.before
        try:
            yield self.drill
        finally:
            self.left = True
        if self.after:
            raise self.after

    def run(self, verbs: Sequence[str] = VERBS, dataset: model.Dataset | None = None) -> ScenarioRecord:
        return self.run_actions([ACTIONS[verb] for verb in verbs], dataset)

    def run_actions(self, actions: Sequence[model.Action], dataset: model.Dataset | None = None) -> ScenarioRecord:
        steps = tuple(
            model.Step(type(action).__name__.lower(), action, line) for line, action in enumerate(actions, start=5)
        )
        scenario = model.Scenario(
            name="drill", title="It holds", path=Path("/s/drill.yaml"), steps=steps, dataset=dataset or model.Dataset()
        )
        setting = Setting(
            provide=self.provide,
            seed=42,
            stack="local",
            versions={"postgresql": "15.8"},
            configuration={"backup.sh": "c" * 64},
        )
        return run_scenario(scenario, setting, Narrator(self.said.append, live=False))


def test_a_run_whose_steps_all_pass_is_passed_and_holds_what_each_found(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    record = stage.run(dataset=model.Dataset(users=500))
    assert (record.verdict, record.reason) == (Verdict.PASSED, None)
    assert stage.drill.asked == ASKED
    assert [step.verb for step in record.steps] == VERBS
    assert [step.line for step in record.steps] == list(range(5, 5 + len(VERBS)))
    assert record.planned == len(VERBS)
    assert (record.name, record.file, record.stack, record.users, record.seed) == (
        "drill",
        "drill.yaml",
        "local",
        500,
        42,
    )
    assert record.steps[1].write == WRITE
    assert record.steps[6].proof == PROOF
    assert record.steps[7].checks == CHECKS
    assert record.steps[9].schedule == SCHEDULE
    assert (record.steps[10].restores, record.steps[10].proof) == ((RESTORE, RESTORE), PROOF)
    assert record.steps[11].operation == OPERATION
    assert record.steps[12].operation == REFUSAL
    assert stage.left
    assert not stage.drill.failed


def test_a_restore_hands_on_whichever_target_it_has(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    targets = [model.Restore(), model.Restore(by="lsn", value="0/1"), model.Restore(by="immediate", backup="one")]
    stage.run_actions(targets)
    assert stage.drill.asked == [
        ("restore", None, "default", None, None),
        ("restore", None, "lsn", "0/1", None),
        ("restore", None, "immediate", None, "one"),
    ]


def test_a_seed_in_the_file_wins_over_the_runs(tmp_path: Path) -> None:
    assert Stage(tmp_path).run(dataset=model.Dataset(seed=0)).seed == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (IopError("the server lost a row"), Verdict.FAILED),
        (COMMAND, Verdict.FAILED),
        (RecoveryError("FATAL: recovery ended before the target"), Verdict.FAILED),
        (TargetError("the target lies before the oldest backup"), Verdict.FAILED),
        (UsageError("the mistake changed no row"), Verdict.UNKNOWN),
        (ProofError("a table could not be read"), Verdict.UNKNOWN),
        (MachineError("no space"), Verdict.UNKNOWN),
        (DeadlineError("waited 60 s for WAL, in vain"), Verdict.UNKNOWN),
        (OSError(28, "No space left on device"), Verdict.UNKNOWN),
        (RuntimeError("a mistake of our own"), Verdict.UNKNOWN),
        (AssertionError("likewise"), Verdict.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
@pytest.mark.parametrize("verb", ["backup", "restore", "check"])
def test_an_error_in_a_step_is_a_verdict_and_ends_the_run(
    tmp_path: Path, verb: str, error: Exception, expected: Verdict
) -> None:
    stage = Stage(tmp_path, {verb: error})
    record = stage.run()
    last = record.steps[-1]
    words = error.args[0] if not isinstance(error, OSError) else str(error)
    assert (record.verdict, last.verdict) == (expected, expected)
    assert words in (record.reason or "")
    assert record.reason == last.reason
    assert "Traceback" not in (record.reason or "")
    assert stage.drill.verbs == VERBS[: VERBS.index(verb) + 1]
    assert [step.verdict for step in record.steps[:-1]] == [Verdict.PASSED] * VERBS.index(verb)
    assert record.planned == len(VERBS)
    assert stage.drill.failed
    assert stage.left


def test_an_error_keeps_its_hint(tmp_path: Path) -> None:
    record = Stage(tmp_path, {"mark": UsageError("mark 'here' was taken before", hint="choose another name")}).run()
    assert record.reason == "mark 'here' was taken before\nHINT: choose another name"


@pytest.mark.parametrize(
    ("proof", "expected", "words"),
    [
        (DIFFERENT, Verdict.FAILED, "1 row missing (user_id=7|org_id=3)"),
        (NOTHING_COMPARED, Verdict.UNKNOWN, "nothing was compared"),
    ],
)
def test_a_comparison_that_is_not_clean_ends_the_run_with_its_facts(
    tmp_path: Path, proof: object, expected: Verdict, words: str
) -> None:
    stage = Stage(tmp_path, {"expect": proof})
    record = stage.run()
    assert record.verdict is expected
    assert words in (record.reason or "")
    assert record.steps[-1].proof == proof
    assert stage.drill.verbs[-1] == "expect"


def test_a_workload_that_lost_the_server_fails(tmp_path: Path) -> None:
    record = Stage(tmp_path, {"write": replace(WRITE, not_attempted=3)}).run()
    assert record.verdict is Verdict.FAILED
    assert "3 transactions were not attempted" in (record.reason or "")


@pytest.mark.parametrize("verbs", [["backup", "restore", "check"], ["check"], []])
def test_a_run_that_compares_no_rows_is_unknown(tmp_path: Path, verbs: list[str]) -> None:
    stage = Stage(tmp_path)
    record = stage.run(verbs)
    assert record.verdict is Verdict.UNKNOWN
    assert record.reason
    assert stage.drill.failed


@pytest.mark.parametrize(
    ("error", "expected"),
    [(MachineError("no space"), Verdict.UNKNOWN), (IopError("the checks are not green"), Verdict.FAILED)],
)
def test_a_stack_that_does_not_come_up_is_a_verdict_without_steps(
    tmp_path: Path, error: Exception, expected: Verdict
) -> None:
    stage = Stage(tmp_path)
    stage.before = error
    record = stage.run()
    assert (record.verdict, record.steps, record.planned) == (expected, (), len(VERBS))
    assert record.reason == f"bringing the stack up: {error}"
    assert record.seconds == 0
    assert len(stage.said) == 2
    assert stage.said[1].startswith("drill: bringing the stack up  0.")
    assert stage.said[1].endswith(f"{expected.value.upper()}: bringing the stack up: {error}\n")


@pytest.mark.parametrize(
    ("script", "error", "expected", "reason"),
    [
        ({}, MachineError("it hangs"), Verdict.UNKNOWN, "taking the stack down: it hangs"),
        ({}, IopError("it broke"), Verdict.FAILED, "taking the stack down: it broke"),
        (
            {"restore": IopError("refused")},
            MachineError("it hangs"),
            Verdict.FAILED,
            "refused; and taking the stack down: it hangs",
        ),
        (
            {"restore": DeadlineError("late")},
            IopError("it broke"),
            Verdict.FAILED,
            "late; and taking the stack down: it broke",
        ),
    ],
)
def test_a_stack_that_does_not_go_down_is_never_passed_and_hides_no_first_error(
    tmp_path: Path, script: Script, error: Exception, expected: Verdict, reason: str
) -> None:
    stage = Stage(tmp_path, script)
    stage.after = error
    record = stage.run()
    assert (record.verdict, record.reason) == (expected, reason)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_the_process_passes_through_and_the_stack_is_taken_down(tmp_path: Path, end: BaseException) -> None:
    stage = Stage(tmp_path, {"restore": end})
    with pytest.raises(type(end)):
        stage.run()
    assert stage.left


def test_every_step_is_announced_as_it_starts_and_ends_with_its_time(tmp_path: Path) -> None:
    stage = Stage(tmp_path, {"restore": IopError("refused")})
    stage.run()
    heads = [
        "drill: bringing the stack up",
        "drill [ 1/13] backup full as one",
        "drill [ 2/13] write 200 transactions, 4 clients",
        "drill [ 3/13] mark here",
        "drill [ 4/13] mistake: DELETE FROM identity.membership",
        "drill [ 5/13] lose the data-directory",
        "drill [ 6/13] restore to here by time",
    ]
    assert stage.said[::2] == [f"{head} …\n" for head in heads]
    assert all(line.startswith(f"{head}  0.0 s") for head, line in zip(heads, stage.said[1::2], strict=True))
    assert stage.said[3].endswith("20260115-120000F, 36.7 MB, 5.9 MB in the repository\n")
    assert stage.said[-1].endswith("FAILED: refused\n")


def test_only_a_scenario_that_did_not_pass_carries_the_stacks_logs(tmp_path: Path) -> None:
    assert Stage(tmp_path / "good").run().logs == {}
    assert Stage(tmp_path / "bad", {"expect": DIFFERENT}).run().logs == {"postgresql.log": "LOG:  ready"}


@pytest.mark.parametrize("verb", ["targets", "sweep"])
@pytest.mark.parametrize("outcome", list(Verdict))
def test_points_that_were_tried_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, outcome: Verdict
) -> None:
    bad = PointFacts(name="xid 7", by="xid", target="7", expected=3, verdict=outcome, reason="lost", seconds=1)
    good = PointFacts(name="xid 8", by="xid", target="8", expected=3, verdict=Verdict.PASSED, seconds=1)
    facts = PointsFacts(points=(good, bad), restores=1, window="all")
    monkeypatch.setattr(runner, "try_every_target", lambda _drill: facts)
    monkeypatch.setattr(Sweep, "run", lambda _sweep: facts)
    action = model.Targets() if verb == "targets" else model.Sweep(2)
    record = Stage(tmp_path).run_actions([action])
    assert record.verdict is outcome
    assert record.steps[0].points == facts
    assert record.reason == (None if outcome is Verdict.PASSED else "xid 7: lost")
