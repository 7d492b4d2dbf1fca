"""One client of the workload: carries out its plans and enters each in the ledger when it has ended.

A transaction takes two round trips: all of its statements, then COMMIT with what the ledger wants to know of it.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from contextlib import suppress
from datetime import datetime, timezone
from threading import Event
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import tuple_row

from pytest_iopbackup.dataset.change import Change
from pytest_iopbackup.dataset.ledger import Entry, Ledger, Outcome
from pytest_iopbackup.dataset.plan import Plan, Planner
from pytest_iopbackup.dataset.share import Share
from pytest_iopbackup.errors import ProofError

_LAST_WORDS = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)
"""What a server says before it hangs up; libpq may not have noticed yet that it did."""


class Client:
    """Works on a connection of its own, which it sets up for the purpose, and on its own share of the rows."""

    def __init__(
        self, number: int, connection: psycopg.Connection[Any], share: Share, planner: Planner, ledger: Ledger
    ) -> None:
        self.outcomes = Counter(dict.fromkeys(Outcome, 0))  # complete: another thread adds them up
        self._number = number
        self._connection = connection
        self._share = share
        self._planner = planner
        self._ledger = ledger
        connection.autocommit = True  # BEGIN and COMMIT are sent by hand, so as to know when COMMIT is
        # An acknowledgement must mean that the commit is on disk, and no statement may wait for ever.
        connection.execute("SET synchronous_commit = on")
        connection.execute("SET statement_timeout = '30s'")

    def run(self, transactions: int, stop: Event) -> None:
        """Carry out so many transactions; fewer if ``stop`` is set or the connection is lost.

        A client without a connection ends: it cannot know in which version its last transaction left its rows. Other
        errors are raised once the transaction's entry has been written. Does not close the connection.
        """
        for number in range(transactions):
            if stop.is_set() or not self._carry_out(self._planner.plan(number)):
                return

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
        try:
            xid = self._write(plan)
        except (psycopg.Error, ProofError) as error:
            self._enter(plan, Outcome.ROLLED_BACK)
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
            lsn, time = self._commit(xid)
        except (psycopg.Error, ProofError) as error:
            self._enter(plan, Outcome.INDETERMINATE, xid)
            if self._is_lost(error):
                return False
            raise
        self._enter(plan, Outcome.ACKNOWLEDGED, xid, lsn, time)
        self._share.apply(plan.unit.effects)
        return True

    def _write(self, plan: Plan) -> int:
        """Send everything but COMMIT; return the transaction's id."""
        audit, *changes = plan.unit.changes
        with self._connection.pipeline():
            self._connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            sent = [self._send(audit)]
            if plan.undone:
                self._connection.execute("SAVEPOINT attempt")
                sent += map(self._send, plan.undone.changes)
                self._connection.execute("ROLLBACK TO SAVEPOINT attempt")
            sent += map(self._send, changes)
            id_cursor = self._connection.cursor(row_factory=tuple_row)
            id_cursor.execute("SELECT pg_current_xact_id()::text::bigint")
            if not plan.commits:
                self._connection.execute("ROLLBACK")
        for change, cursor in sent:
            if cursor.rowcount != 1:
                raise ProofError(
                    f"workload: a statement changed {cursor.rowcount} rows where 1 was expected: {change.effect}",
                    hint="nothing else may change the rows of schema identity while the workload runs",
                )
        ((xid,),) = id_cursor.fetchall()
        return int(xid)

    def _send(self, change: Change) -> tuple[Change, psycopg.Cursor[Any]]:
        return change, self._connection.execute(change.query, change.parameters)

    def _commit(self, xid: int) -> tuple[str, datetime]:
        """Commit; return the WAL insert position after it and the time of the commit."""
        with self._connection.pipeline():
            commit = self._connection.execute("COMMIT")
            facts = self._connection.cursor(row_factory=tuple_row)
            facts.execute(
                "SELECT pg_current_wal_insert_lsn()::text, pg_xact_commit_timestamp(%s::text::xid8::xid)", [str(xid)]
            )
        if commit.statusmessage != "COMMIT":  # of a transaction that had failed, COMMIT makes a rollback
            raise ProofError(f"workload: the server answered COMMIT with {commit.statusmessage}")
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
