"""The table that a run ends with on the terminal."""

from __future__ import annotations

from tabulate import tabulate

from pytest_iopbackup.record import RunRecord, ScenarioRecord, StepRecord, Verdict
from pytest_iopbackup.reports.text import note

_LONGEST = 78


def run_table(run: RunRecord) -> str:
    """Return one row per scenario."""
    rows = [
        (
            scenario.name,
            scenario.verdict.value,
            f"{scenario.setup_seconds:.1f}",
            f"{scenario.seconds:.1f}",
            _fastest(scenario),
            _proven(scenario),
        )
        for scenario in run.scenarios
    ]
    headers = ("scenario", "verdict", "set-up s", "steps s", "restore s", "proven")
    return tabulate(
        rows, headers, tablefmt="simple", disable_numparse=True, colalign=("left", "left", *["right"] * 3, "left")
    )


def step_table(scenario: ScenarioRecord) -> str:
    """Return one row per step, those not run included in a last line."""
    rows = [
        (step.number, step.title, _verdict(step), f"{step.seconds:.1f}", _cut(_said(step))) for step in scenario.steps
    ]
    table = tabulate(
        rows,
        ("#", "step", "verdict", "s", "what was seen"),
        tablefmt="simple",
        disable_numparse=True,
        colalign=("right", "left", "left", "right", "left"),
    )
    left = scenario.planned - len(scenario.steps)
    return table + (f"\n({left} step{'s' * (left > 1)} not run)" if left else "")


def restores(scenario: ScenarioRecord) -> list[float]:
    """Return how long each restore took in all: files, replay, ready."""
    return [
        step.restore.restore_seconds + step.restore.replay_seconds + step.restore.ready_seconds
        for step in scenario.steps
        if step.restore
    ]


def _fastest(scenario: ScenarioRecord) -> str:
    times = restores(scenario)
    return f"{min(times):.1f}-{max(times):.1f}" if len(times) > 1 else f"{times[0]:.1f}" if times else "-"


def _proven(scenario: ScenarioRecord) -> str:
    if scenario.verdict is not Verdict.PASSED:
        return _cut(_first_line(scenario.reason))
    proofs = [step for step in scenario.steps if step.proof]
    return f"{len(proofs)} × {note(proofs[-1]).removeprefix('exactly as marked: ')}" if proofs else "-"


def _said(step: StepRecord) -> str:
    return note(step) if step.verdict is Verdict.PASSED else _first_line(step.reason)


def _verdict(step: StepRecord) -> str:
    return step.verdict.value


def _first_line(reason: str | None) -> str:
    return (reason or "").partition("\n")[0]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
