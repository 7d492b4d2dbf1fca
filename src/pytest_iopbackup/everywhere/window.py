"""What a repository can be restored to along one line of timelines, and what each target must leave there.

Read once, from the archived WAL, the ledger and the marks: never from a server that was restored.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.targets import Target, on_line
from pytest_iopbackup.cluster.wal import Ending, read_order
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import ProofError, UsageError
from pytest_iopbackup.everywhere.still import Still
from pytest_iopbackup.points import PointFacts
from pytest_iopbackup.proof import rowset
from pytest_iopbackup.proof.compare import compare
from pytest_iopbackup.proof.cut import InWal, cut_at, owners
from pytest_iopbackup.proof.judge import judge
from pytest_iopbackup.proof.mark import Mark
from pytest_iopbackup.proof.prove import looked_over
from pytest_iopbackup.proof.session import Connection, reading
from pytest_iopbackup.proof.verdict import verdict
from pytest_iopbackup.proven import PhysicalFacts, ProofFacts, TableComparison, Verdict
from pytest_iopbackup.record import BackupFacts

_QUIET = timedelta(seconds=0.2)
"""Nothing that ended this long after a mark was under way at it: no transaction of the workload takes so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What a restored database was found to hold."""

    expected: int
    """Transactions that had to be there."""
    mark: str | None
    tables: int
    still: int
    physical: PhysicalFacts | None
    verdict: Verdict
    reason: str | None

    def judged(self, facts: PointFacts, astray: str | None) -> PointFacts:
        """Return a point's facts with what was found there, and ``astray``: why recovery stopped at another place.

        Rows that differ say more than a place that does.
        """
        elsewhere = self.verdict is Verdict.PASSED and astray
        return replace(
            facts,
            expected=self.expected,
            mark=self.mark,
            tables=self.tables,
            still=self.still,
            physical=self.physical,
            verdict=Verdict.FAILED if elsewhere else self.verdict,
            reason=astray if elsewhere else self.reason,
        )


def archive_all(drill: Drill) -> None:
    """End the present WAL segment, and wait until it is in the repository."""
    with drill.connect() as connection:
        row = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
    if row is None:
        raise ProofError("PostgreSQL gave no WAL segment to wait for")
    pgbackrest.await_archived(drill.stack, row[0], drill.limits)


class Window:
    """The recoverable window along a timeline and its ancestors; ``timeline`` None is the newest.

    With ``changes``, also which files are changed in it. Raises ProofError where WAL in it is missing or cannot be
    read, UsageError where there is nothing to expect.
    """

    def __init__(self, drill: Drill, timeline: int | None = None, *, changes: bool = False) -> None:
        stack, limits = drill.stack, drill.limits
        known = pgbackrest.info(stack, limits)
        lineage = pgbackrest.lineage(stack, known.archive_id or "", timeline, limits)
        there = [backup for backup in known.backups if on_line(backup, lineage)]
        if not there:
            raise UsageError("there is no backup to restore", hint="take one first")
        if drill.seeded is None:
            raise UsageError("the workload has written nothing, so no row is expected anywhere", hint="write first")
        self.timeline = timeline
        self.timelines = tuple(sorted(lineage))
        self.backups = tuple(sorted(there, key=lambda backup: parse_lsn(backup.stop_lsn)))
        """The oldest first; recovery along this line can begin with each."""
        self.order = read_order(stack, self.backups[0].start_lsn, limits, timeline, changes=changes)
        self.entries = drill.ledger.entries()
        self._seeded = drill.seeded
        self._commits = {(entry.xid % 2**32, entry.time) for entry in self.entries if entry.xid and entry.lsn}
        self._unsure = {entry.xid % 2**32 for entry in self.entries if entry.xid and not entry.lsn}
        taken = [(mark.facts.xid, mark.facts.time) for mark in drill.history.marks]
        self._owners = owners(self.order, self.entries, taken)
        self.marks = tuple(mark for mark in drill.history.marks if self._lies_here(mark, lineage))
        """Those that lie on this line, in its order."""
        self.unchanged = self._unchanged()

    @property
    def endings(self) -> tuple[Ending, ...]:
        """How transactions end in it, in the order of WAL."""
        return self.order.endings

    def acknowledged(self, ending: Ending) -> bool:
        """Whether an ending is the commit of a transaction of the ledger."""
        return (ending.xid, ending.time) in self._commits  # an xid alone may be another transaction on each timeline

    def cut(self, target: Target, base: BackupFacts) -> InWal | None:
        """Return what a target leaves, by the order of WAL; None if recovery ends before it."""
        return cut_at(self.order, target, base, self._owners)

    def mark_at(self, cut: InWal) -> Mark | None:
        """Return the mark whose rows are exactly those that a cut leaves, if there is one.

        Beside the mark's own commit and the one that follows it, which change no row, nothing may lie between them.
        """
        for mark in self.marks:
            own = self._before(mark)
            if cut.stop == own or (self._committed(mark) and self._quiet_after(own) and cut.stop == own + 1):
                return mark
            if self._committed(mark) and self._sentinel(own) and self._quiet_after(own) and cut.stop == own + 2:
                return mark
        return None

    def still(self) -> Still:
        """Return what notes, for one restored server, which tables need not be read again."""
        return Still(self.order.changes, self._seeded)

    def prove(
        self, cut: InWal, connection: Connection, *, seconds: float | None = None, still: Still | None = None
    ) -> Proven:
        """Compare a restored database with what must be there: ledger, mark, tables that the workload never changes.

        With ``seconds`` for each statement of it, the cluster is looked over meanwhile; without, this reads only.
        With ``still``, tables that it vouches for are not read. Raises ProofError where that cannot be done.
        """
        mark = self.mark_at(cut)
        name = mark.facts.name if mark else ""
        nothing = ProofFacts(mark=name, algorithm="")
        proof = looked_over(nothing, connection, seconds, lambda: self._compared(nothing, cut, mark, connection, still))
        outcome, reason = verdict(proof)
        rested = len(self.unchanged) - len(proof.tables) if still and not mark else 0
        if outcome is Verdict.UNKNOWN and (rested or not proof.tables) and proof.ledger and proof.ledger.rows:
            outcome, reason = Verdict.PASSED, None  # no table with rows had to be read: the ledger has judged
        return Proven(
            expected=proof.ledger.acknowledged if proof.ledger else 0,
            mark=name or None,
            tables=len(proof.tables),
            still=rested,
            physical=proof.physical,
            verdict=outcome,
            reason=reason,
        )

    def _compared(
        self, nothing: ProofFacts, cut: InWal, mark: Mark | None, connection: Connection, still: Still | None
    ) -> ProofFacts:
        found = compare(mark.capture, connection) if mark else None
        if found and mark and not self._sequences_exact(mark, cut):
            found = replace(found, findings=tuple(one for one in found.findings if one.kind != "sequence"), sequences=0)
        if found and still:
            with reading(connection) as cursor:
                still.due(cursor, self.unchanged)
            still.witness(found.tables)
        tables = found.tables if found else _compare_unchanged(self.unchanged, connection, still)
        known = still.requests if still and not found else None
        return replace(
            nothing,
            tables=tables,
            sequences=found.sequences if found else 0,
            objects=found.objects if found else 0,
            findings=found.findings if found else (),
            ledger=judge(self.entries, cut, connection, seeded=self._seeded, known=known),
        )

    def _sequences_exact(self, mark: Mark, cut: InWal) -> bool:
        """Whether sequences stand as at the mark: what a later transaction takes from one shows before it commits."""
        if cut.stop == len(self.order.endings) or cut.target == f"name {mark.facts.name}":
            return True
        return self._committed(mark) and cut.stop <= self._before(mark) + 1

    def _lies_here(self, mark: Mark, lineage: Mapping[int, str | None]) -> bool:
        """Whether recovery along this line passes a mark."""
        if mark.facts.timeline not in lineage or parse_lsn(mark.facts.lsn) < self.order.start:
            return False
        left_at = lineage[mark.facts.timeline]
        return left_at is None or parse_lsn(mark.facts.lsn) <= parse_lsn(left_at)

    def _before(self, mark: Mark) -> int:
        """Return how many transactions end before a mark; that is where its own ends, if it is on this line."""
        return bisect_left(self.order.endings, parse_lsn(mark.facts.lsn), key=lambda ending: ending.lsn)

    def _committed(self, mark: Mark) -> bool:
        """Whether a mark's own commit is on this line: a restore to the mark by name leaves the line before it."""
        own = self.order.endings[self._before(mark) :][:1]
        return [(one.xid, one.time) for one in own] == [(mark.facts.xid % 2**32, mark.facts.time)]

    def _sentinel(self, own: int) -> bool:
        """Whether the commit that follows a mark's own is the one that :func:`take_mark` makes."""
        for following in self.order.endings[own + 1 : own + 2]:
            unknown = not self.acknowledged(following) and following.xid not in self._unsure
            return unknown and following.xid == self.order.endings[own].xid + 1
        return False

    def _quiet_after(self, own: int) -> bool:
        """Whether nothing was under way while a mark was taken: else a sequence could have gone on."""
        later = self.order.endings[own + 1 + self._sentinel(own) :][:1]
        return not later or later[0].time - self.order.endings[own].time > _QUIET

    def _unchanged(self) -> tuple[rowset.RowSet, ...]:
        """Return the row sets that are the same at all marks, if the first was taken before the workload wrote."""
        first = min((parse_lsn(entry.lsn) for entry in self.entries if entry.lsn), default=0)
        if len(self.marks) < 2 or parse_lsn(self.marks[0].facts.lsn) > first:
            return ()
        sets = [set(mark.capture.tables) for mark in self.marks]
        changed = {effect.table for entry in self.entries for effect in entry.effects}
        return tuple(rows for rows in self.marks[0].capture.tables if rows.table not in changed and _in_all(rows, sets))


def _compare_unchanged(
    expected: tuple[rowset.RowSet, ...], connection: Connection, still: Still | None
) -> tuple[TableComparison, ...]:
    with reading(connection) as cursor:
        due = still.due(cursor, expected) if still else expected
        present = {table.name: table for table in rowset.user_tables(cursor)} if due else {}
        tables = tuple(
            TableComparison(
                table=rows.table,
                expected_rows=rows.rows,
                actual_rows=found.rows if found else 0,
                expected_digest=rows.digest,
                actual_digest=found.digest if found else "no such table",
            )
            for rows in due
            for found in [rowset.digest(cursor, present[rows.table]) if rows.table in present else None]
        )
        if still:
            still.note(cursor, tables)
        return tables


def _in_all(rows: rowset.RowSet, sets: list[set[rowset.RowSet]]) -> bool:
    return all(rows in one for one in sets)
