"""Recovery targets: what may be asked for, and which backup a restore to it must start from.

PostgreSQL's rules are in its manual under "Recovery Target"; pgBackRest's choice of a set is in ``restore`` of its
command reference. pgBackRest picks by time (whole seconds) and by LSN; for a transaction, a name or no target it
takes the latest backup, from which an earlier target cannot be reached, so the choice is made here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum

from pytest_iopbackup.cluster.lsn import parse_lsn, segment_timeline
from pytest_iopbackup.errors import TargetError
from pytest_iopbackup.record import BackupFacts

_TIME = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[ T](?P<time>\d\d:\d\d:\d\d)(?P<fraction>\.\d{1,6})?"
    r"\s*(?P<offset>Z|[+-]\d\d(?::?\d\d)?)?"
)


class By(str, Enum):
    """What kind of target recovery stops at."""

    DEFAULT = "default"
    """The end of the archived WAL."""
    IMMEDIATE = "immediate"
    """The end of the backup."""
    TIME = "time"
    LSN = "lsn"
    XID = "xid"
    NAME = "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where recovery is to stop."""

    by: By = By.DEFAULT
    value: str | None = None
    exclusive: bool = False
    """Stop before the target, not behind it: for a time, an LSN or a transaction."""
    backup_set: str | None = None
    """A backup's label; None leaves the choice to :func:`choose_set`."""
    timeline: int | None = None
    """None follows the newest."""
    at_lsn: str | None = None
    """Where in WAL the target lies, when that is known: chooses the set for a transaction or a name."""

    def describe(self) -> str:
        """Return the target in words."""
        if self.by is By.DEFAULT:
            return "the end of the archived WAL"
        if self.by is By.IMMEDIATE:
            return f"the end of backup {self.backup_set or 'latest'}"
        return f"{self.by.value} {self.value}{', exclusive' if self.exclusive else ''}"


def parse_time(text: str) -> datetime:
    """Return a target time as an aware datetime.

    Raises TargetError without a UTC offset: pgBackRest would read it in its own zone and PostgreSQL in its own, and a
    named zone is ambiguous when clocks are set back.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise TargetError(
            f"target time {text!r}: not a time with a numeric UTC offset",
            hint="write it as 2026-01-15 21:30:00+00 (microseconds may follow the seconds)",
        )
    if match["offset"] is None:
        raise TargetError(
            f"target time {text!r}: it has no UTC offset, and pgBackRest and PostgreSQL may each assume another zone",
            hint=f"add it: {match['date']} {match['time']}{match['fraction'] or ''}+00 if it is UTC",
        )
    offset = "+00:00" if match["offset"] == "Z" else match["offset"]
    digits = offset[1:].replace(":", "").ljust(4, "0")
    fraction = (match["fraction"] or ".0").ljust(7, "0")
    try:
        zone = timezone((1 if offset[0] == "+" else -1) * timedelta(hours=int(digits[:2]), minutes=int(digits[2:])))
        return datetime.strptime(f"{match['date']} {match['time']}{fraction}", "%Y-%m-%d %H:%M:%S.%f").replace(
            tzinfo=zone
        )
    except ValueError as error:
        raise TargetError(f"target time {text!r}: {error}", hint="write it as 2026-01-15 21:30:00+00") from None


def format_time(moment: datetime) -> str:
    """Write a time as both PostgreSQL and pgBackRest read it, in UTC with microseconds."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00")


def plain_time(moment: datetime) -> str:
    """Write a time in its own offset as pgBackRest takes it, which knows neither ``T`` nor ``Z``."""
    return moment.isoformat(sep=" ", timespec="microseconds")


def validate(target: Target, now: datetime) -> None:
    """Raise TargetError for a target that no repository could restore."""
    if target.exclusive and target.by not in {By.TIME, By.LSN, By.XID}:
        raise TargetError(
            f"a restore by {target.by.value} cannot be exclusive",
            hint="only one by time, lsn or xid stops before its target",
        )
    if target.by in {By.DEFAULT, By.IMMEDIATE}:
        return
    if not target.value:
        raise TargetError(f"a restore by {target.by.value} needs a value")
    if target.by is By.TIME and parse_time(target.value) > now:
        raise TargetError(
            f"target time {target.value} lies in the future (it is {format_time(now)})",
            hint="check date and UTC offset",
        )
    if target.by is By.LSN:
        try:
            parse_lsn(target.value)
        except ValueError as error:
            raise TargetError(f"target LSN: {error}") from None
    if target.by is By.XID and not target.value.isdigit():
        raise TargetError(f"target transaction {target.value!r} is not a number")


def choose_set(target: Target, backups: Sequence[BackupFacts], lineage: Mapping[int, str | None]) -> BackupFacts:
    """Return the newest backup from which the target can be reached.

    ``lineage`` maps each timeline that recovery passes through to the LSN at which it leaves it. Raises TargetError.
    """
    if not backups:
        raise TargetError("the repository holds no backup to restore", hint="take one: backup.sh full")
    if target.backup_set is not None:
        return _chosen_set(target, target.backup_set, backups, lineage)
    there = [backup for backup in backups if on_line(backup, lineage)]
    reachable = [backup for backup in there if _ends_before(backup, target)]
    if not reachable:
        oldest = min(there or backups, key=lambda backup: backup.stopped)
        raise TargetError(
            f"no backup ends before the target ({target.describe()}), so it cannot be reached",
            hint=f"the oldest recoverable moment is the end of backup {oldest.label}: "
            f"{format_time(oldest.stopped)}, LSN {oldest.stop_lsn}",
        )
    return max(reachable, key=lambda backup: (backup.stopped, backup.label))


def _chosen_set(
    target: Target, label: str, backups: Sequence[BackupFacts], lineage: Mapping[int, str | None]
) -> BackupFacts:
    """Return the backup that was asked for.

    Neither pgBackRest nor PostgreSQL refuses an earlier target where nothing was committed while the backup ran: such a
    restore ends behind the backup, and looks well.
    """
    backup = next((backup for backup in backups if backup.label == label), None)
    if backup is None:
        raise TargetError(
            f"backup set {label!r} is not in the repository",
            hint="it holds " + ", ".join(backup.label for backup in backups),
        )
    if target.by is By.IMMEDIATE:  # needs no other timeline than the backup's own
        return backup
    if not on_line(backup, lineage):
        raise TargetError(
            f"backup set {label} was taken on a timeline that does not lead to the target ({target.describe()})",
            hint=f"the target's timelines are {', '.join(map(str, sorted(lineage)))}; choose a backup on one of them",
        )
    if not _ends_before(backup, target):
        raise TargetError(
            f"backup set {label} ends after the target ({target.describe()}), so it cannot be reached from there",
            hint=f"it ended at {format_time(backup.stopped)}, LSN {backup.stop_lsn}: choose an older one, or none",
        )
    return backup


def on_line(backup: BackupFacts, lineage: Mapping[int, str | None]) -> bool:
    """Whether recovery along a lineage (see :func:`choose_set`) can begin with a backup."""
    timeline = segment_timeline(backup.start_wal)
    if timeline not in lineage:
        return False
    left_at = lineage[timeline]
    return left_at is None or parse_lsn(backup.stop_lsn) <= parse_lsn(left_at)


def _ends_before(backup: BackupFacts, target: Target) -> bool:
    lsn = target.value if target.by is By.LSN else target.at_lsn
    if lsn is not None:
        return parse_lsn(backup.stop_lsn) <= parse_lsn(lsn)
    if target.by is By.TIME and target.value is not None:
        # info has whole seconds; a backup that stops within the target's second may end after it
        return backup.stopped < parse_time(target.value).replace(microsecond=0)
    return True
