"""A restore into the stack itself: validated first, then destructive, then watched to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.lsn import parse_lsn, segment_end, segment_sizes, segment_timeline
from pytest_iopbackup.cluster.pgbackrest import Progress
from pytest_iopbackup.cluster.recovery import await_recovery
from pytest_iopbackup.cluster.targets import By, Target, choose_set, parse_time, plain_time, validate
from pytest_iopbackup.errors import ProofError, TargetError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.proven import RestoreFacts
from pytest_iopbackup.record import BackupFacts
from pytest_iopbackup.stack.base import Restorable, Service

DELTA = "--delta"
_WORKERS = (Service.BACKUP, Service.CHECK)


def plan(stack: Restorable, target: Target, limits: Limits) -> BackupFacts:
    """Check a target against the repository and choose the backup to start from; touches nothing.

    Raises TargetError for a target that cannot be reached.
    """
    validate(target, datetime.now(timezone.utc))
    known = pgbackrest.info(stack, limits)
    lineage: dict[int, str | None] = {target.timeline or 1: None}
    if known.archive_id is not None:
        lineage = pgbackrest.lineage(stack, known.archive_id, target.timeline, limits)
    chosen = choose_set(target, known.backups, lineage)
    if known.newest_wal is not None:
        end = segment_end(known.newest_wal, segment_size(chosen))
        _refuse_beyond_wal(stack, target, known.newest_wal, end, lineage)
    return chosen


def segment_size(backup: BackupFacts) -> int:
    """Return the size of a WAL segment of a backup's cluster in bytes: of those that fit its start, the largest.

    No server has to run for that. Where several fit, an LSN behind the last WAL is refused by PostgreSQL alone.
    Raises ProofError where none fits.
    """
    sizes = segment_sizes(parse_lsn(backup.start_lsn), backup.start_wal)
    if not sizes:
        raise ProofError(f"backup {backup.label} begins at {backup.start_lsn}, which cannot be in {backup.start_wal}")
    return max(sizes)


def restore_options(target: Target, chosen: BackupFacts, action: str = "promote") -> list[str]:
    """Return pgBackRest's options for a restore to ``target`` from ``chosen``.

    ``action`` is what PostgreSQL does there: ``promote``, or ``pause``.
    """
    options = [f"--set={chosen.label}"]
    if target.by is not By.DEFAULT:
        options += [f"--type={target.by.value}", f"--target-action={action}"]
    if target.by is By.TIME and target.value is not None:
        options.append(f"--target={plain_time(parse_time(target.value))}")
    elif target.value is not None:
        options.append(f"--target={target.value}")
    if target.exclusive:
        options.append("--target-exclusive")
    if target.timeline is not None:
        options.append(f"--target-timeline={target.timeline}")
    return options


def restore(
    stack: Restorable,
    target: Target,
    limits: Limits,
    *,
    files: Progress | None = None,
    replay: Progress | None = None,
    resume: Sequence[Service] = _WORKERS,
    options: Sequence[str] = (),
) -> RestoreFacts:
    """Replace the stack's database by what the repository holds at ``target``, and let the workers ``resume``.

    ``files`` follows pgBackRest, ``replay`` WAL segments. ``options`` are pgBackRest's own, beside those that follow
    from the target; with ``--delta`` the data directory is left as it is, for pgBackRest to mend. Raises TargetError
    before anything was touched, RecoveryError when PostgreSQL refuses; the stack is then left stopped, as it is.
    """
    chosen = plan(stack, target, limits)
    stopping = time.monotonic()
    for service in (*_WORKERS, Service.DATABASE):
        stack.stop(service)
    if DELTA not in options:
        stack.wipe_data()
    stopped = time.monotonic()
    copied = pgbackrest.restore(stack, [*restore_options(target, chosen), *options], limits, files)
    recovery = await_recovery(stack, stack.database_log_size(), limits, _segments(chosen, target, replay))
    for service in resume:
        stack.start(service)
    return RestoreFacts(
        by=target.by.value,
        target=target.value,
        backup_set=chosen.label,
        target_timeline=target.timeline,
        reached=recovery.reached,
        last_transaction=recovery.last_transaction,
        timeline=recovery.timeline,
        stop_seconds=stopped - stopping,
        restore_seconds=copied.seconds,
        replay_seconds=recovery.replay_seconds,
        ready_seconds=recovery.ready_seconds,
    )


def _segments(chosen: BackupFacts, target: Target, progress: Progress | None) -> Callable[[int], None]:
    """Report segments fetched, against how many there are where the target's place in WAL is known."""
    last = target.value if target.by is By.LSN else target.at_lsn
    size = segment_size(chosen)
    total = parse_lsn(last) // size - parse_lsn(chosen.start_lsn) // size + 1 if last is not None else 0

    def report(fetched: int) -> None:
        if progress is not None and fetched:
            progress(fetched, max(total, fetched))

    return report


def _refuse_beyond_wal(
    stack: Restorable, target: Target, newest_wal: str, end: int, lineage: Mapping[int, str | None]
) -> None:
    if target.by is not By.LSN or target.value is None or segment_timeline(newest_wal) not in lineage:
        return
    if stack.running(Service.DATABASE):  # what it has written by now is archived when it stops
        with stack.connect() as connection:
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        end = max(end, parse_lsn(row[0])) if row else end
    if parse_lsn(target.value) > end:
        raise TargetError(
            f"target LSN {target.value} lies after the last WAL (segment {newest_wal} is the newest in the repository)",
            hint="choose an earlier target, or none to recover to the end of WAL",
        )
