"""Watches the backup worker at its schedule: what it takes by itself, in which order, and what retention removes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.pgbackrest import Progress
from pytest_iopbackup.errors import DeadlineError, IopError, UsageError
from pytest_iopbackup.limits import Limits, wait_until
from pytest_iopbackup.record import BackupFacts, ScheduleFacts
from pytest_iopbackup.stack.base import Stack

_FREQUENCY, _FULL_AGE = "DATABASE_BACKUP_FREQUENCY", "IOP_FULL_BACKUP_AGE"
_PAUSE = 0.5
"""Seconds between two looks: each asks pgBackRest, and the worker needs the machine, too."""
_LEEWAY = 2
"""Seconds: ages are told in whole seconds, and a backup takes some itself."""


def watch(
    stack: Stack, *, full: int, diff: int, variables: Mapping[str, str], limits: Limits, progress: Progress
) -> ScheduleFacts:
    """Wait until the worker has taken at least ``full`` and ``diff`` backups and retention has removed one.

    ``variables`` are the stack's, which say what was promised. Raises UsageError where they do not, IopError where
    order or retention are not so.
    """
    missing = [name for name in (_FREQUENCY, _FULL_AGE) if name not in variables]
    if missing:
        raise UsageError(
            f"the schedule to be watched is not set: {', '.join(missing)}",
            hint="set seconds among the scenario's variables: by default backups are an hour and a week apart",
        )
    frequency, age = float(variables[_FREQUENCY]), float(variables[_FULL_AGE])
    before = {backup.label for backup in pgbackrest.info(stack, limits).backups}
    seen: dict[str, BackupFacts] = {}
    kept: tuple[str, ...] = ()

    def look() -> list[BackupFacts]:
        """Return all that was ever seen, the oldest first; note what is there now."""
        nonlocal kept
        found = pgbackrest.info(stack, limits).backups
        seen.update({backup.label: backup for backup in found})
        kept = tuple(backup.label for backup in found)
        return sorted(seen.values(), key=lambda backup: backup.stopped)

    def enough() -> bool:
        kinds = [backup.type for backup in look() if backup.label not in before]
        done = min(kinds.count("full"), full) + min(kinds.count("diff"), diff)
        expired = len(seen) > len(kept)
        progress(done + expired, full + diff + 1)
        return done == full + diff and expired

    wait_until(
        enough,
        limit=full * (age + limits.command) + diff * (frequency + limits.command),
        what=f"{full} full and {diff} differential backups by the worker, and one that retention removes",
        hint="see the backup worker's log; retention is set among the scenario's variables",
        pause=_PAUSE,
    )
    with suppress(DeadlineError):  # a backup is listed a moment before retention makes room for it
        wait_until(
            lambda: not list(judge_retention(look(), kept, variables)),
            limit=limits.command,
            what="retention to hold",
            pause=_PAUSE,
        )
    backups = sorted(seen.values(), key=lambda backup: backup.stopped)
    problems = [*judge_order(backups, age), *judge_retention(backups, kept, variables)]
    if problems:
        raise IopError("the backup worker's schedule: " + "; ".join(problems))
    return ScheduleFacts(
        taken=tuple(backup for backup in backups if backup.label not in before),
        expired=tuple(backup.label for backup in backups if backup.label not in kept),
        kept=kept,
    )


def judge_order(backups: Sequence[BackupFacts], age: float) -> Iterator[str]:
    """Judge what was taken when: a full one first, each differential on the last full one while that is young."""
    if backups[0].type != "full":
        yield f"the first backup is {backups[0].label}, not a full one"
    last = backups[0]
    for backup in backups[1:]:
        elapsed = (backup.started - last.stopped).total_seconds()
        if backup.type == "full":
            if elapsed < age - _LEEWAY:
                yield f"{backup.label} is full although {last.label} was only {elapsed:.0f} s old"
            last = backup
        else:
            if backup.prior != last.label:
                yield f"{backup.label} builds on {backup.prior}, not on the last full backup {last.label}"
            if elapsed > age + _LEEWAY:
                yield f"{backup.label} is differential although {last.label} was {elapsed:.0f} s old"
    for one, other in pairwise(backups):
        if other.started < one.stopped:
            yield f"{other.label} began before {one.label} had ended"


def judge_retention(backups: Sequence[BackupFacts], kept: Sequence[str], variables: Mapping[str, str]) -> Iterator[str]:
    """Judge what is kept: the newest, as many as promised, and each with the full backup that it builds on."""
    for kind in ("full", "diff"):
        promised = variables.get(f"PGBACKREST_REPO1_RETENTION_{kind.upper()}")
        taken = [backup.label for backup in backups if backup.type == kind]
        left = [label for label in taken if label in kept]
        if promised is not None and len(left) > int(promised):
            yield f"{len(left)} {kind} backups are kept, more than {promised}"
        if left and left != taken[-len(left) :]:
            yield f"of the {kind} backups not the newest are kept, but {', '.join(left)}"
        if kind == "full" and promised is not None and len(left) < min(int(promised), len(taken)):
            yield f"only {len(left)} full backups are kept, fewer than {promised}"
    for backup in backups:
        if backup.label in kept and backup.prior is not None and backup.prior not in kept:
            yield f"{backup.label} is kept, but {backup.prior} is gone, which it builds on"
