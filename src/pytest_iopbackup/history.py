"""What a drill has noted on the way: marks, named backups, the ledger, and what restores gave up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.targets import By, Target, format_time, parse_time
from pytest_iopbackup.dataset.ledger import Entry, Ledger, Outcome
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.names import suggest
from pytest_iopbackup.proof.mark import Mark
from pytest_iopbackup.proven import RestoreFacts
from pytest_iopbackup.record import BackupFacts

T = TypeVar("T")

_LONGEST_NAME = 60
"""Bytes: a restore point's name has at most 63 (``MAXFNAMELEN`` in PostgreSQL's source, less the end), and a mark that
takes several appends a number to it."""


@dataclass(frozen=True, slots=True)
class _Marked:
    point: Mark
    given_up: frozenset[str]
    """Requests committed before the mark that earlier restores had given up."""


class History:
    """Kept outside the database, in ``evidence``."""

    def __init__(self, evidence: Path) -> None:
        self.ledger = Ledger(evidence / "ledger.jsonl")
        self._evidence = evidence
        self._marks: dict[str, _Marked] = {}
        self._backups: dict[str, BackupFacts] = {}
        self._given_up: set[str] = set()

    def place_for_mark(self, name: str) -> Path:
        """Return where a new mark's row sets go. Raises UsageError for a name that cannot be, or was used before."""
        if name in self._marks:
            raise UsageError(
                f"mark {name!r} was taken before", hint="a restore point's first use wins; choose another name"
            )
        if not 0 < len(name.encode()) <= _LONGEST_NAME:
            raise UsageError(f"mark {name!r}: a mark's name has 1 to {_LONGEST_NAME} bytes")
        return self._evidence / f"mark-{name}"

    def add_mark(self, mark: Mark) -> None:
        """Note a mark."""
        self._marks[mark.facts.name] = _Marked(mark, frozenset(self._given_up))

    def mark(self, name: str) -> Mark:
        """Return a mark. Raises UsageError, with the nearest name."""
        return _known("mark", name, self._marks).point

    @property
    def marks(self) -> tuple[Mark, ...]:
        """All marks, in the order in which they were taken."""
        return tuple(marked.point for marked in self._marks.values())

    def require_new_backup(self, name: str | None) -> None:
        """Raise UsageError for a name used before."""
        if name in self._backups:
            raise UsageError(f"backup {name!r} was taken before", hint="choose another name")

    def add_backup(self, name: str, facts: BackupFacts) -> None:
        """Note a backup by name."""
        self._backups[name] = facts

    def entries(self, mark: str | None = None) -> tuple[Entry, ...]:
        """Return the ledger for a mark, or for now: what a restore before gave up is rolled back, and never returns."""
        given_up = self._given_up if mark is None else _known("mark", mark, self._marks).given_up
        return tuple(
            replace(entry, outcome=Outcome.ROLLED_BACK) if entry.request_id in given_up else entry
            for entry in self.ledger.entries()
        )

    def give_up(self, target: Target, mark: str | None, facts: RestoreFacts | None = None) -> None:
        """Note what lies behind a target that was restored to: by time where that is known, else by LSN."""
        if target.by is By.DEFAULT:
            return
        moment: datetime | None = self.mark(mark).facts.time if mark else None
        if target.by is By.TIME and target.value is not None:
            moment = parse_time(target.value)
        ends = [entry.stop_lsn for entry in self._backups.values() if facts and entry.label == facts.backup_set]
        lsn = target.value if target.by is By.LSN else ends[0] if target.by is By.IMMEDIATE else None
        for entry in self.ledger.entries():
            if entry.time is None or entry.lsn is None:
                continue
            if moment or lsn is None:
                last = moment or (facts.last_transaction if facts else None)
                behind = last is not None and entry.time > last
            else:
                behind = parse_lsn(entry.lsn) > parse_lsn(lsn)
            if behind:
                self._given_up.add(entry.request_id)

    def target(self, mark: str | None, by: str, value: str | None = None, backup: str | None = None) -> Target:
        """Return where a restore is to stop: at a mark, at a raw value, at a named backup's end. Raises UsageError."""
        if backup is not None:
            return Target(by=By.IMMEDIATE, backup_set=_known("backup", backup, self._backups).label)
        if mark is None:
            if value is not None and by == "default":
                raise UsageError(f"restore to {value!r} by what?", hint="by='time', 'lsn', 'xid' or 'name'")
            try:
                return Target(by=By(by), value=value)
            except ValueError:
                raise UsageError(f"cannot restore by {by!r}", hint=suggest(by, [kind.value for kind in By])) from None
        point = self.mark(mark).facts
        values = {
            "time": format_time(point.time),
            "lsn": point.lsn,
            "xid": str(point.xid),
            "name": point.restore_point or point.name,
        }
        if by == "default":
            by = "name"
        if by not in values:
            raise UsageError(f"cannot restore to a mark by {by!r}", hint=suggest(by, values))
        return Target(by=By(by), value=values[by], timeline=point.timeline, at_lsn=point.lsn)


def _known(kind: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise UsageError(f"there is no {kind} {name!r} here", hint=suggest(name, known))
    return known[name]
