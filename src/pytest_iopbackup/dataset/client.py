"""One client of the workload: carries out its plans and enters each in the ledger when it has ended.

Most transactions take two round trips: all of their statements, then COMMIT with what the ledger wants to know of it.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from pytest_iopbackup.dataset import prepared
from pytest_iopbackup.dataset.change import Change, control
from pytest_iopbackup.dataset.ending import Ending
from pytest_iopbackup.dataset.ledger import Entry, Ledger, Outcome
from pytest_iopbackup.dataset.pace import Pace
from pytest_iopbackup.dataset.plan import Plan, Planner
from pytest_iopbackup.dataset.share import Share
from pytest_iopbackup.errors import ProofError

_LAST_WORDS = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)
"""What a server says before it hangs up; libpq may not have noticed yet that it did."""

_BEGIN = control(sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED"))
_SAVEPOINT = control(sql.SQL("SAVEPOINT attempt"))
_BACK = control(sql.SQL("ROLLBACK TO SAVEPOINT attempt"))
_RELEASE = control(sql.SQL("RELEASE SAVEPOINT attempt"))
_XID = Change(sql.Composed([sql.SQL("SELECT pg_current_xact_id()::text::bigint")]))
_ROLLBACK = control(sql.SQL("ROLLBACK"))


class Client:
    """Works on a connection of its own, which it sets up for the purpose, and on its own share of the rows."""

    def __init__(
        self, number: int, connection: psycopg.Connection[Any], share: Share, planner: Planner, ledger: Ledger
    ) -> None:
        self.outcomes = Counter(dict.fromkeys(Outcome, 0))  # complete: another thread adds them up
        self._number = number
        self._connection = connection
        self.session = connection.info.backend_pid
        """The server's process that works for it."""
        self.lost = False
        """The connection was lost, inside a transaction."""
        self.ended = False
        self._share = share
        self._planner = planner
        self._ledger = ledger
        connection.autocommit = True  # BEGIN and COMMIT are sent by hand, so as to know when COMMIT is
        # An acknowledgement must mean that the commit is on disk, and no statement may wait for ever.
        connection.execute("SET synchronous_commit = on")
        connection.execute("SET statement_timeout = '30s'")

    def run(self, transactions: int, pace: Pace) -> None:
        """Carry out so many transactions, at that pace; fewer if it is stopped or the connection is lost.

        A client without a connection ends: it cannot know in which version its last transaction left its rows. Other
        errors are raised once the transaction's entry has been written. Does not close the connection.
        """
        try:
            for number in range(transactions):
                if not pace.step():
                    return
                if not self._carry_out(self._planner.plan(number)):
                    self.lost = True
                    return
        finally:
            self.ended = True

    def hang_up(self) -> None:
        """Cut the connection from another thread, so that a client that waits for the server sees it lost and ends.

        The socket is shut down but not closed, since closing would take it away under libpq.
        """
        with (
            suppress(psycopg.OperationalError, OSError),  # it is closed already
            socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)

    def _carry_out(self, plan: Plan) -> bool:
        """Return whether the client can go on."""
        xid = None
        try:
            xid = self._write(plan)
            if plan.ending.prepares:
                self._prepare(plan)
        except (psycopg.Error, ProofError) as error:
            self._enter(plan, Outcome.ROLLED_BACK, xid)
            if isinstance(error, errors.DeadlockDetected):  # with someone else: clients do not wait for one another
                self._connection.execute("ROLLBACK")
                return True
            if self._is_lost(error):
                return False
            raise
        if not plan.commits:
            self._enter(plan, Outcome.ROLLED_BACK, xid)
            return True
        try:
            lsn, time = self._commit(plan, xid)
        except (psycopg.Error, ProofError) as error:
            self._enter(plan, Outcome.INDETERMINATE, xid)
            if self._is_lost(error):
                return False
            raise
        self._enter(plan, Outcome.ACKNOWLEDGED, xid, lsn, time)
        self._share.apply(plan.unit.effects)
        return True

    def _write(self, plan: Plan) -> int:
        """Send everything but the end, or all of it to a plain rollback; return the transaction's id."""
        sent: list[tuple[Change, psycopg.Cursor[Any]]] = []
        for loading, changes in groupby(_changes(plan), lambda change: change.data is not None):
            if loading:  # no COPY in a pipeline
                sent += map(self._load, changes)
                continue
            with self._connection.pipeline():
                sent += map(self._send, changes)
        for change, cursor in sent:
            if change.rows is not None and cursor.rowcount != change.rows:
                raise ProofError(
                    f"workload: a statement changed {cursor.rowcount} rows where {change.rows} was expected: "
                    f"{change.effects}",
                    hint="nothing else may change the rows of schema identity while the workload runs",
                )
        ((xid,),) = next(cursor for change, cursor in sent if change is _XID).fetchall()
        return int(xid)

    def _send(self, change: Change) -> tuple[Change, psycopg.Cursor[Any]]:
        return change, self._connection.cursor(row_factory=tuple_row).execute(change.query, change.parameters)

    def _load(self, change: Change) -> tuple[Change, psycopg.Cursor[Any]]:
        cursor = self._connection.cursor()
        with cursor.copy(change.query) as copy:
            copy.write(change.data or b"")
        return change, cursor

    def _prepare(self, plan: Plan) -> None:
        """Prepare, and roll back where that is how the transaction ends."""
        said = self._connection.execute(prepared.prepare(plan.unit.request_id)).statusmessage
        if said != "PREPARE TRANSACTION":  # of a transaction that had failed, it makes a rollback
            raise ProofError(f"workload: the server answered PREPARE TRANSACTION with {said}")
        if not plan.commits:
            self._connection.execute(prepared.finish(plan.unit.request_id, commits=False))

    def _commit(self, plan: Plan, xid: int) -> tuple[str, datetime]:
        """Commit; return the WAL insert position after it and the time of the commit."""
        words = "COMMIT"
        facts = self._connection.cursor(row_factory=tuple_row)
        with self._connection.pipeline():
            if plan.ending is Ending.COMMIT_PREPARED:
                words = "COMMIT PREPARED"
                commit = self._connection.execute(prepared.finish(plan.unit.request_id, commits=True))
            else:
                commit = self._connection.execute("COMMIT")
            facts.execute(
                "SELECT pg_current_wal_insert_lsn()::text, pg_xact_commit_timestamp(%s::text::xid8::xid)", [str(xid)]
            )
        if commit.statusmessage != words:  # of a transaction that had failed, COMMIT makes a rollback
            raise ProofError(f"workload: the server answered {words} with {commit.statusmessage}")
        ((lsn, time),) = facts.fetchall()
        return lsn, time.astimezone(timezone.utc)

    def _enter(
        self, plan: Plan, outcome: Outcome, xid: int | None = None, lsn: str | None = None, time: datetime | None = None
    ) -> None:
        if plan.undone:
            self._ledger.append(
                Entry(
                    request_id=plan.undone.request_id,
                    client=self._number,
                    kind="savepoint",
                    outcome=Outcome.ROLLED_BACK,
                    xid=None,
                    lsn=None,
                    time=None,
                    effects=plan.undone.effects,
                )
            )
        self._ledger.append(
            Entry(
                request_id=plan.unit.request_id,
                client=self._number,
                kind=plan.unit.kind,
                outcome=outcome,
                xid=xid,
                lsn=lsn,
                time=time,
                effects=plan.unit.effects,
            )
        )
        self.outcomes[outcome] += 1

    def _is_lost(self, error: Exception) -> bool:
        return self._connection.closed or isinstance(error, _LAST_WORDS)


def _changes(plan: Plan) -> Iterator[Change]:
    """Give all of a transaction's statements in order; not its end, unless that is a plain rollback."""
    audit, *changes = plan.unit.changes
    yield _BEGIN
    yield audit
    if plan.undone:
        yield _SAVEPOINT
        yield from plan.undone.changes
        yield _BACK
    if plan.nested:
        yield _SAVEPOINT
    yield from changes
    if plan.nested:
        yield _RELEASE
    yield _XID
    if plan.ending is Ending.ROLLBACK:
        yield _ROLLBACK
