"""The detection matrix: every fault against every signal, and what plain ``pgbackrest check`` would have missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from pytest_iopbackup.detection import Answer, FaultFacts, Reading
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import RunRecord

CHECK = "pgbackrest-check"
"""The signal that most people rely on."""
_TOOLS = ("pgbackrest-info", CHECK, "pgbackrest-verify", "backup", "restore")
_WORKERS = ("check-worker", "backup-worker")


def faults_of(run: RunRecord) -> tuple[FaultFacts, ...]:
    """Return every trial of a run, by class and name."""
    found = [step.fault for scenario in run.scenarios for step in scenario.steps if step.fault]
    return tuple(sorted(found, key=lambda fault: (fault.tags[:1], fault.name)))


def signals_of(faults: Iterable[FaultFacts]) -> tuple[str, ...]:
    """Return every signal that was asked: named checks, then the workers' health, then pgBackRest's own commands."""
    asked = dict.fromkeys(reading.signal for fault in faults for reading in fault.readings)
    last = [signal for signal in (*_WORKERS, *_TOOLS) if signal in asked]
    return (*(signal for signal in asked if signal not in last), *last)


def cell(reading: Reading | None, *, named: bool) -> str:
    """Return what a signal made of a fault: the seconds until its alarm, ``·`` for silence, ``hung``; bold if named."""
    if reading is None:
        return ""
    if reading.answer is Answer.ALARM:
        return f"**{reading.after:.1f}**" if named else f"{reading.after:.1f}"
    return "·" if reading.answer is Answer.SILENT else "hung"


def matrix(faults: Sequence[FaultFacts]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the matrix's header and rows."""
    signals = signals_of(faults)
    rows = []
    for fault in faults:
        readings = {reading.signal: reading for reading in fault.readings}
        cells = (cell(readings.get(signal), named=signal == fault.signal) for signal in signals)
        rows.append((f"{fault.name}{' ★' if fault.silent else ''}", *cells))
    return ("fault", *signals), rows


def summary(faults: Sequence[FaultFacts]) -> str:
    """Say in a sentence how many were detected and healed, how fast, and how many ``pgbackrest check`` alone missed."""
    passed = [fault for fault in faults if fault.verdict is Verdict.PASSED]
    times = [found.after for fault in passed if (found := fault.detected)]
    alone = [fault for fault in faults if fault.answer(CHECK) is not None]
    missed = [fault for fault in alone if fault.answer(CHECK) is not Answer.ALARM]
    parts = [f"{len(passed)} of {len(faults)} faults reported by the signal that must, healed, and nothing lost"]
    if times:
        parts.append(f"reported after {median(times):.1f} s (median), {max(times):.1f} s at most")
    if alone:
        parts.append(f"silent for plain pgbackrest check: {len(missed)} of {len(alone)}")
    return "; ".join(parts)
