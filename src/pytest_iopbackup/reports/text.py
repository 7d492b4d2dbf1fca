"""A step's facts in a few words, and figures as people read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_iopbackup.crashes import CrashFacts, quantile
from pytest_iopbackup.detection import Answer, FaultFacts
from pytest_iopbackup.points import PointsFacts, compared
from pytest_iopbackup.proven import PhysicalFacts, ProofFacts, RestoreFacts
from pytest_iopbackup.record import BackupFacts, MarkFacts, MistakeFacts, ScheduleFacts, StepRecord, WriteFacts


def size(count: int) -> str:
    """Return bytes in the unit that fits."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def number(count: int) -> str:
    """Return a count with thin groups: 12 345."""
    return f"{count:,}".replace(",", " ")


def spread(values: Sequence[float], digits: int) -> str:
    """Return the median, the 95th percentile (nearest rank) and the greatest of some figures."""
    shown = {"p50": quantile(values, 0.5), "p95": quantile(values, 0.95), "max": max(values)}
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in shown.items())


def note(step: StepRecord) -> str:
    """Return what a step found, on one line; empty where it found nothing to speak of."""
    if step.restores and step.proof:
        return f"{len(step.restores)} backups, {_proof(step.proof)}"
    for name, words in _WORDS.items():
        facts = getattr(step, name)
        if facts:
            return words(facts)
    return ""


def _backup(backup: BackupFacts) -> str:
    on = f" on {backup.prior}" if backup.prior else ""
    return f"{backup.label}{on}, {size(backup.database_size)}, {size(backup.repository_size)} in the repository"


def _write(write: WriteFacts) -> str:
    rest = f", {write.indeterminate} indeterminate" if write.indeterminate else ""
    if write.marks:
        longest = max(mark.writers_waited for mark in write.marks)
        rest += f"; {len(write.marks)} marks meanwhile, no writer held longer than {longest * 1000:.0f} ms"
    return f"{write.acknowledged} acknowledged, {write.rolled_back} rolled back{rest}"


def _mark(mark: MarkFacts) -> str:
    held = f"writers held {mark.writers_waited * 1000:.0f} ms"
    if mark.requests > 1:
        held += f" at most, {mark.queued * 1000:.0f} ms in {mark.requests} requests for locks"
    return f"LSN {mark.lsn}, {number(mark.rows)} rows in {mark.tables} tables, {held}"


def _mistake(mistake: MistakeFacts) -> str:
    return "done" if mistake.rows is None else f"{number(mistake.rows)} rows hit"


def _restore(restore: RestoreFacts) -> str:
    return (
        f"{restore.backup_set}: stop {restore.stop_seconds:.1f} s, restore {restore.restore_seconds:.1f} s, "
        f"replay {restore.replay_seconds:.1f} s, ready {restore.ready_seconds:.1f} s; {restore.reached}"
    )


def _fault(fault: FaultFacts) -> str:
    silent = sum(reading.answer is Answer.SILENT for reading in fault.readings)
    found = fault.detected
    said = f"{found.signal} after {found.after:.1f} s: {found.said.partition('; ')[0]}; " if found else ""
    return f"{said}{silent} of {len(fault.readings)} signals silent; healed, both restores exact"


def _crash(facts: CrashFacts) -> str:
    return (
        f"{len(facts.crashes)} crashes; without the disk lost: {spread(facts.ages, 2)} s of {facts.promised:g} "
        f"promised, {spread(facts.counts, 0)} transactions; with it: none"
    )


def _schedule(schedule: ScheduleFacts) -> str:
    kinds = [backup.type for backup in schedule.taken]
    taken = f"{kinds.count('full')} full and {kinds.count('diff')} differential taken"
    return f"{taken}, {len(schedule.expired)} expired, {len(schedule.kept)} kept"


def _proof(proof: ProofFacts) -> str:
    parts = [f"{number(proof.rows)} rows in {len(proof.tables)} tables", f"{proof.sequences} sequences"]
    parts.append(f"{proof.objects} objects")
    if proof.ledger:
        parts.append(f"{proof.ledger.acknowledged} transactions")
    sound = f"; {physical(proof.physical)}" if proof.physical else ""
    return "exactly as marked: " + ", ".join(parts) + sound


def physical(facts: PhysicalFacts) -> str:
    """Return how much was found sound, and how much was not looked at; page checksums by name, for they are much."""
    sound = [f"{number(facts.pages)} pages"] if facts.pages else []
    sound += [f"{number(facts.tables)} heaps", f"{number(facts.indexes)} indexes"] if facts.tables else []
    sound += [f"{number(facts.constraints)} constraints"]
    text = f"sound: {', '.join(sound)}"
    left = [
        f"{name} ({facts.omissions[name]})"
        for name in ("page checksums", "heaps and indexes")
        if name in facts.omissions
    ]
    others = len(facts.omissions) - len(left)
    left += [f"{others} by name"] if others else []
    return f"{text}; not checked: {', '.join(left)}" if left else text


def _points(tried: PointsFacts) -> str:
    exact = f"{compared(tried.points)} of {len(tried.points)} points restored exactly"
    marked = sum(point.mark is not None for point in tried.points)
    refused = f", {len(tried.refused)} rightly refused" if tried.refused else ""
    restores = f"{tried.restores} restore{'s' if tried.restores != 1 else ''}"
    sound = f", {len(tried.sound)} sound" if tried.sound else ""
    seed = f", seed {tried.seed}" if tried.seed is not None else ""
    return f"{exact}{refused}, {restores}{sound}{seed}; {marked} with all row sets; {tried.window}"


_WORDS: Mapping[str, Callable[[Any], str]] = {
    "backup": _backup,
    "write": _write,
    "mark": _mark,
    "mistake": _mistake,
    "restore": _restore,
    "fault": _fault,
    "crash": _crash,
    "proof": _proof,
    "points": _points,
    "schedule": _schedule,
    "operation": lambda operation: str(operation.said),
    "checks": lambda checks: ", ".join(check.name for check in checks),
}
"""What is said of each kind of facts; of a step that has several, the first here."""
