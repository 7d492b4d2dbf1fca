"""A stack with everything needed to drill on it: the verbs of a scenario as methods, for YAML and for Python tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_iopbackup import writing
from pytest_iopbackup.cluster import checks, pgbackrest, restore
from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.dataset.ledger import Ledger, Outcome
from pytest_iopbackup.dataset.prepared import roll_back_left_over
from pytest_iopbackup.dataset.workload import WorkloadSpec
from pytest_iopbackup.errors import IopError, UsageError
from pytest_iopbackup.faults.base import Fault, injected
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.history import History
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.names import suggest
from pytest_iopbackup.operations import Operations
from pytest_iopbackup.proof import rowset
from pytest_iopbackup.proof.at_hand import name_from_source
from pytest_iopbackup.proof.mark import take_mark
from pytest_iopbackup.proof.prove import prove
from pytest_iopbackup.proof.requests import request_ids
from pytest_iopbackup.proof.verdict import describe, verdict
from pytest_iopbackup.proven import ProofFacts, RestoreFacts, Verdict
from pytest_iopbackup.record import (
    BackupFacts,
    CheckFacts,
    MarkFacts,
    MistakeFacts,
    WriteFacts,
)
from pytest_iopbackup.scenario.model import PREFIX
from pytest_iopbackup.stack.base import Restorable, Service, Stack

if TYPE_CHECKING:
    import psycopg

Progress = Callable[[int, int], None]


def nothing(_done: int, _total: int) -> None:
    """Take progress and show none."""


class Drill(Operations):
    """Backup, write, mark, mistake, lose, restore, prove: on a running stack.

    ``evidence`` is a directory outside the database; the ledger and the marks' row sets are kept there.
    """

    def __init__(
        self,
        stack: Stack,
        evidence: Path,
        *,
        seed: int,
        limits: Limits,
        variables: Mapping[str, str] | None = None,
        faults: Mapping[str, type[Fault]] | None = None,
        before: tuple[str, ...] = (),
        writes: int = 0,
        redact: bool = False,
    ) -> None:
        self.stack = stack
        self.seed = seed
        self.limits = limits
        self.variables: Mapping[str, str] = variables or {}
        """Variables of the deployed system that differ from their defaults."""
        self.faults: Mapping[str, type[Fault]] = faults or {}
        """What can be broken on purpose, by name."""
        self.history = History(evidence)
        self.progress: Progress = nothing
        self.failed = False
        """Whether what ran on it did not pass: ``--iop-keep=failed`` then leaves the stack's directory."""
        self.unharmed = False
        """Whether all that was done to it was healed, and seen to be: another trial may follow on it."""
        self.before = before
        """The trials before, on the same stack."""
        self.writes = writes
        """How often the workload has written to its database."""
        self._redact = redact
        self.seeded: frozenset[str] | None = None
        """Requests in the database before the workload first wrote."""

    @property
    def ledger(self) -> Ledger:
        """What the workload committed, kept outside the database."""
        return self.history.ledger

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to the application's database as superuser, in autocommit mode."""
        return self.stack.connect()

    def backup(self, kind: str = "auto", name: str | None = None) -> BackupFacts:
        """Take a backup with ``backup.sh``: ``full``, ``diff``, or ``auto``; ``name`` is for :meth:`restore`.

        Raises UsageError for a name used before.
        """
        self.history.require_new_backup(name)
        facts = pgbackrest.backup(self.stack, kind, self.limits, self.progress)
        if name is not None:
            self.history.add_backup(name, facts)
        return facts

    def write(self, transactions: int, clients: int = 4, *, marks: int = 0, prefix: str = PREFIX) -> WriteFacts:
        """Let the workload commit ``transactions``, and keep them in the ledger; clients that lose the server stop.

        Takes so many marks while it goes on, ``prefix-1`` and so on, evenly spread.
        """
        if self.seeded is None:
            with self.stack.connect() as connection:
                self.seeded = request_ids(connection)
        self.writes += 1
        spec = WorkloadSpec(seed=self.seed, number=self.writes, transactions=transactions, clients=clients, times=marks)
        return writing.write(self.stack, self.history, spec, prefix=prefix, limits=self.limits, progress=self.progress)

    def mark(self, name: str, *, settled: bool = True) -> MarkFacts:
        """Take a point to recover to, with the row sets expected there. Raises UsageError for a name used before.

        Not ``settled``, it can be taken while nothing is archived; :meth:`settle` waits until it can be restored to.
        """
        place = self.history.place_for_mark(name)
        with self.stack.connect() as connection:  # or it would hold locks for ever
            roll_back_left_over(connection)
        mark = take_mark(self.stack, name, place, self.limits, self.progress, settled=settled)
        self.history.add_mark(mark)
        return mark.facts

    def settle(self, mark: str) -> None:
        """Wait until all WAL that a restore to a mark needs is in the repository. Raises DeadlineError."""
        pgbackrest.await_archived(self.stack, self.history.mark(mark).segment, self.limits)

    def mistake(self, statement: str) -> MistakeFacts:
        """Run SQL that a human should not have run. Raises UsageError when it hit no row: that hurts nobody."""
        with self.stack.connect() as connection:
            rows = connection.execute(statement.encode()).rowcount
        if rows == 0:
            raise UsageError(f"the mistake changed no row: {statement}", hint="it must do harm that a restore can undo")
        return MistakeFacts(sql=statement, rows=rows if rows > 0 else None)  # DROP and TRUNCATE count none

    def lose(self) -> None:
        """Lose the data directory: the server is killed, its files are deleted. The workers go on."""
        self.stack.stop(Service.DATABASE, immediate=True)
        self.stack.wipe_data()

    def restore(
        self, mark: str | None = None, by: str = "default", *, value: str | None = None, backup: str | None = None
    ) -> RestoreFacts:
        """Restore the stack: to a mark ``by`` time, lsn, xid or name; to a raw ``value``; to a named backup's end.

        Without arguments, to the end of the archived WAL. Raises TargetError before anything was touched for a target
        that cannot be reached, RecoveryError when PostgreSQL refuses.
        """
        target = self.history.target(mark, by, value, backup)
        facts = restore.restore(self.stack, target, self.limits, files=self.progress, replay=self.progress)
        self.history.give_up(target, mark, facts)
        return facts

    def rehearse(
        self,
        mark: str,
        by: str = "name",
        *,
        base: str | None = None,
        limits: Limits | None = None,
        physical: bool = True,
    ) -> tuple[RestoreFacts, ProofFacts]:
        """Restore beside the running stack, which goes on, and compare with a mark.

        ``by`` default restores to the end of the archived WAL; the mark then says what has to be there. ``base`` is the
        label of the backup to begin with; without it, the newest that will do. ``physical`` is :meth:`prove`'s. With
        ``limits`` of its own time matters, and the stack may hang: it is not asked to name rows.
        """
        target = replace(self.history.target(None if by == "default" else mark, by), backup_set=base)
        copy = self.stack.copy()
        try:
            facts = restore.restore(copy, target, limits or self.limits, resume=())
            return facts, self.prove(mark, copy, physical=physical, at_hand=limits is None)
        finally:
            copy.close()

    def prove(
        self, mark: str, on: Restorable | None = None, *, physical: bool = True, at_hand: bool = True
    ) -> ProofFacts:
        """Compare the database, or a copy, with a mark and with the ledger; returns what was found, good or bad.

        With ``physical``, the cluster is looked over as well: page checksums, heaps, indexes, constraints. Rows of a
        copy that differ are named with their values, where the stack's own, if ``at_hand``, still are as at the mark.
        """
        ledger = None if self.seeded is None else (self.history.entries(mark), self.seeded)
        seconds = self.limits.examine if physical else None
        with (on or self.stack).connect(autocommit=False) as connection:
            proof = prove(
                connection,
                self.history.mark(mark),
                ledger,
                seconds=seconds,
                progress=self.progress,
                redact=self._redact,
            )
            if on is None or not at_hand:
                return proof
            return name_from_source(proof, self.stack.connect, connection, redact=self._redact)

    def expect(self, mark: str) -> ProofFacts:
        """Prove that the database holds exactly what a mark says; raises AssertionError that names the differences."""
        facts = self.prove(mark)
        outcome, reason = verdict(facts)
        if outcome is not Verdict.PASSED:
            raise AssertionError(f"{outcome.value}: {reason}\n{describe(facts)}")
        return facts

    def committed_between(self, mark: str, backup: BackupFacts) -> tuple[str, ...]:
        """Name the transactions acknowledged after a mark and before a backup's end, by the ledger."""
        after = parse_lsn(self.history.mark(mark).facts.lsn)
        return tuple(
            f"{entry.request_id} at {entry.lsn}"
            for entry in self.history.entries(mark)
            if entry.outcome is Outcome.ACKNOWLEDGED
            and entry.lsn is not None
            and after < parse_lsn(entry.lsn) <= parse_lsn(backup.stop_lsn)
        )

    def rows(self, table: str) -> rowset.RowSet:
        """Return a table's present row set: how many rows, and their digest. ``table`` is ``schema.table``."""
        with self.stack.connect(autocommit=False) as connection:
            return rowset.read(connection, table)

    def logs(self) -> Mapping[str, str]:
        """Return the last lines of each of the stack's logs."""
        return self.stack.logs()

    def fault(self, name: str) -> Fault:
        """Return a new fault of that name. Raises UsageError: with the nearest name, or why it cannot be done here."""
        if name not in self.faults:
            raise UsageError(f"there is no fault {name!r}", hint=suggest(name, self.faults))
        obstacle = self.faults[name].obstacle(self.stack.kind)
        if obstacle:
            raise UsageError(obstacle)
        return self.faults[name]()

    @contextmanager
    def broken(self, name: str) -> Iterator[str]:
        """Break something, and heal it whatever happens; gives the evidence that it is broken.

        Raises ProofError where it is not broken after all, HealError where it cannot be healed.
        """
        with injected(self.fault(name), Site(self.stack, self.limits)) as evidence:
            yield evidence

    def check(self) -> tuple[CheckFacts, ...]:
        """Run the stack's own checks once. Raises IopError when one is not ok."""
        status = checks.run_checks(self.stack, self.limits)
        if status.status != "ok":
            raise IopError(f"the stack's own checks are not green: {status.describe()}")
        return status.checks
