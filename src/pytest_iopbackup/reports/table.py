"""The table that a run ends with on the terminal."""

from __future__ import annotations

from tabulate import tabulate

from pytest_iopbackup.detection import Answer
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import RunRecord, ScenarioRecord, StepRecord
from pytest_iopbackup.reports.matrix import CHECK, faults_of, summary
from pytest_iopbackup.reports.text import note, number

_LONGEST = 78


def run_table(run: RunRecord) -> str:
    """Return one row per scenario, but for those that a row of :func:`fault_table` is about; empty if none is left."""
    scenarios = [scenario for scenario in run.scenarios if not any(step.fault for step in scenario.steps)]
    if not scenarios:
        return ""
    rows = [
        (
            scenario.name,
            scenario.verdict.value,
            f"{scenario.setup_seconds:.1f}",
            f"{scenario.seconds:.1f}",
            _outages(scenario),
            _proven(scenario),
        )
        for scenario in scenarios
    ]
    headers = ("scenario", "verdict", "set-up s", "steps s", "outage s", "proven")
    return tabulate(
        rows, headers, tablefmt="simple", disable_numparse=True, colalign=("left", "left", *["right"] * 3, "left")
    )


def fault_table(run: RunRecord) -> str:
    """Return one row per fault that was tried, and the sentence on all of them; empty where there was none."""
    faults = faults_of(run)
    if not faults:
        return ""
    rows = [
        (
            fault.name,
            fault.verdict.value,
            f"{sum(fault.laps.values()):.1f}",
            fault.signal,
            f"{fault.detected.after:.1f}" if fault.detected and fault.detected.answer is Answer.ALARM else "-",
            "silent" if fault.answer(CHECK) is Answer.SILENT else str(getattr(fault.answer(CHECK), "value", "-")),
            _cut(fault.detected.said if fault.detected and not fault.trouble else _first_line(fault.trouble)),
        )
        for fault in faults
    ]
    headers = ("fault", "verdict", "s", "reported by", "after s", "pgbackrest check", "what it said")
    aligned = ("left", "left", "right", "left", "right", "left", "left")
    table = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=aligned)
    return f"{table}\n\n{summary(faults)}"


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


def _outages(scenario: ScenarioRecord) -> str:
    times = [step.restore.outage_seconds for step in scenario.steps if step.restore]
    return f"{min(times):.1f}-{max(times):.1f}" if len(times) > 1 else f"{times[0]:.1f}" if times else "-"


def _proven(scenario: ScenarioRecord) -> str:
    if scenario.verdict is not Verdict.PASSED:
        return _cut(_first_line(scenario.reason))
    crashes = "; ".join(
        f"{len(step.crash.crashes)} crashes, lost with the disk: {max(step.crash.ages):.1f} s at most, "
        f"{step.crash.promised:g} promised"
        for step in scenario.steps
        if step.crash
    )
    proofs = [step.proof for step in scenario.steps if step.proof]
    if not proofs:
        told = [crashes, *(note(step) for step in scenario.steps if step.points)]
        return _cut("; ".join(filter(None, told)))
    parts = [
        (_range([proof.rows for proof in proofs]), "rows"),
        (_range([len(proof.tables) for proof in proofs]), "tables"),
        (_range([proof.objects for proof in proofs]), "objects"),
        (_range([proof.ledger.acknowledged for proof in proofs if proof.ledger]), "transactions"),
    ]
    compared = f"{len(proofs)} × " + ", ".join(f"{figures} {what}" for figures, what in parts if figures)
    return f"{compared}; {crashes}" if crashes else compared


def _range(figures: list[int]) -> str:
    """Return a figure, or the least and the most where they differ; empty where there is none."""
    return " to ".join(number(figure) for figure in sorted({min(figures), max(figures)})) if figures else ""


def _said(step: StepRecord) -> str:
    return note(step) if step.verdict is Verdict.PASSED else _first_line(step.reason)


def _verdict(step: StepRecord) -> str:
    return step.verdict.value


def _first_line(reason: str | None) -> str:
    return (reason or "").partition("\n")[0]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
