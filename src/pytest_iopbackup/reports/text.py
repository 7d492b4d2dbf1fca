"""A step's facts in a few words, and figures as people read them."""

from __future__ import annotations

from pytest_iopbackup.record import ProofFacts, RestoreFacts, ScheduleFacts, StepRecord


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


def note(step: StepRecord) -> str:
    """Return what a step found, on one line; empty where it found nothing to speak of."""
    if step.backup:
        backup = step.backup
        on = f" on {backup.prior}" if backup.prior else ""
        return f"{backup.label}{on}, {size(backup.database_size)}, {size(backup.repository_size)} in the repository"
    if step.write:
        write = step.write
        rest = f", {write.indeterminate} indeterminate" if write.indeterminate else ""
        return f"{write.acknowledged} acknowledged, {write.rolled_back} rolled back{rest}"
    if step.mark:
        mark = step.mark
        held = f"writers held {mark.writers_waited * 1000:.0f} ms"
        return f"LSN {mark.lsn}, {number(mark.rows)} rows in {mark.tables} tables, {held}"
    if step.mistake:
        return "done" if step.mistake.rows is None else f"{number(step.mistake.rows)} rows hit"
    if step.restore:
        return _restore(step.restore)
    if step.restores and step.proof:
        return f"{len(step.restores)} backups, {_proof(step.proof)}"
    if step.proof:
        return _proof(step.proof)
    if step.schedule:
        return _schedule(step.schedule)
    if step.operation:
        return step.operation.said
    return ", ".join(check.name for check in step.checks)


def _restore(restore: RestoreFacts) -> str:
    return (
        f"{restore.backup_set}: stop {restore.stop_seconds:.1f} s, restore {restore.restore_seconds:.1f} s, "
        f"replay {restore.replay_seconds:.1f} s, ready {restore.ready_seconds:.1f} s; {restore.reached}"
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
    return "exactly as marked: " + ", ".join(parts)
