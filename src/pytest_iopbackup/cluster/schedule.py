"""Watches the backup worker at its schedule: what it takes by itself, in which order, and what retention removes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.pgbackrest import Progress
from pytest_iopbackup.errors import IopError
from pytest_iopbackup.limits import Limits, wait_until
from pytest_iopbackup.record import BackupFacts, ScheduleFacts
from pytest_iopbackup.stack.base import Stack

_PAUSE = 0.5
"""Seconds between two looks: each asks pgBackRest, and the worker needs the machine, too."""
_LEEWAY = 2
"""Seconds: ages are told in whole seconds, and a backup takes some itself."""


def watch(
    stack: Stack, *, full: int, diff: int, variables: Mapping[str, str], limits: Limits, progress: Progress
) -> ScheduleFacts:
    """Wait until the worker has taken at least ``full`` and ``diff`` backups and retention has removed one.

    ``variables`` are the stack's, which say what was promised. Raises IopError where order or retention are not so.
    """
    seen: dict[str, BackupFacts] = {}
    before: list[str] = []
    kept: tuple[str, ...] = ()

    def enough() -> bool:
        nonlocal kept
        found = pgbackrest.info(stack, limits).backups
        if not seen:
            before.extend(backup.label for backup in found)
        seen.update({backup.label: backup for backup in found})
        kept = tuple(backup.label for backup in found)
        kinds = [backup.type for label, backup in seen.items() if label not in before]
        done = min(kinds.count("full"), full) + min(kinds.count("diff"), diff)
        expired = len(seen) > len(kept)
        progress(done + expired, full + diff + 1)
        return done == full + diff and expired

    frequency = float(variables.get("DATABASE_BACKUP_FREQUENCY", "3600"))
    age = float(variables.get("IOP_FULL_BACKUP_AGE", "604800"))
    wait_until(
        enough,
        limit=full * (age + limits.backup) + diff * (frequency + limits.backup),
        what=f"{full} full and {diff} differential backups by the worker, and one that retention removes",
        hint="set DATABASE_BACKUP_FREQUENCY, IOP_FULL_BACKUP_AGE and retention among the scenario's variables",
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
        if promised is not None and len(left) > int(promised) + 1:  # one more while a backup is being expired
            yield f"{len(left)} {kind} backups are kept, more than {promised}"
        if left and left != taken[-len(left) :]:
            yield f"of the {kind} backups not the newest are kept, but {', '.join(left)}"
        if kind == "full" and promised is not None and len(left) < min(int(promised), len(taken)):
            yield f"only {len(left)} full backups are kept, fewer than {promised}"
    for backup in backups:
        if backup.label in kept and backup.prior is not None and backup.prior not in kept:
            yield f"{backup.label} is kept, but {backup.prior} is gone, which it builds on"
