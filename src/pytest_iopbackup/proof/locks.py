"""SHARE locks on all tables of a database that is written to, and what they cost its writers.

PostgreSQL's lock queue is fair: a SHARE request that waits behind one writer holds back every writer after it. So a
request gives up soon and leaves the writers alone for a while, several times as long as it held them back. What it
waits for is then tried again with the tables that there are by then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors, sql

from pytest_iopbackup.errors import ProofError

Connection = psycopg.Connection[tuple[Any, ...]]

MODE = sql.SQL("SHARE")
"""Conflicts with every change of rows, and with itself not at all."""

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.4
"""Seconds that a request waits: twice as long each time, for transactions that just take longer than the first."""
_REST = 3
"""How many times as long as that writers are then left alone."""

_TABLES = """
    SELECT coalesce(array_agg(format('%I.%I', n.nspname, c.relname) ORDER BY n.nspname, c.relname), '{}')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"""
_SNAPSHOT = f"SELECT ({_TABLES}), pg_export_snapshot(), pg_current_snapshot()::text"
_HOLDERS = """
    SELECT format('%s: %s on %s', CASE WHEN x.gid IS NULL THEN format('process %s, %s', l.pid, a.state)
                                       ELSE format('prepared transaction %L', x.gid) END,
                  l.mode, string_agg(DISTINCT c.oid::regclass::text, ', ')),
           max(extract(epoch FROM clock_timestamp() - coalesce(x.prepared, a.xact_start)))::float8
    FROM pg_locks AS l
    JOIN pg_class AS c ON c.oid = l.relation AND c.relkind IN ('r', 'p')
    JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_'
    JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    LEFT JOIN pg_locks AS t ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid'
                           AND t.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_prepared_xacts AS x ON x.transaction = t.transactionid
    WHERE l.granted AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareLock')
      AND l.pid IS DISTINCT FROM pg_backend_pid()
    GROUP BY l.pid, a.state, x.gid, l.mode
    ORDER BY 2 DESC NULLS LAST LIMIT 5"""
"""A prepared transaction keeps the number of its virtual transaction, without the session (PostgreSQL's twophase.c),
and has not its own id there, as the manual's page on pg_locks says; the lock on that id leads to it. Of two with the
same number both are named.
"""


@dataclass(slots=True)
class Waits:
    """How writers were held back, in seconds."""

    requests: list[float] = field(default_factory=list)
    """How long each request was waited for: writers queue behind it."""
    held: float = 0.0
    """How long the locks were held in the end."""

    @property
    def longest(self) -> float:
        """The longest that any one writer can have waited."""
        return max([*self.requests[:-1], self.requests[-1] + self.held], default=0.0)


@dataclass(frozen=True, slots=True)
class Locked:
    """Tables that are locked, and what of them can be seen."""

    tables: sql.Composed
    since: float
    """By the monotonic clock."""
    snapshot: str
    """Exported under this name."""
    seen: str
    """The same as a pg_snapshot."""


def lock_tables(connection: Connection, mark: str, deadline: float, waits: Waits) -> Locked:
    """Begin a REPEATABLE READ transaction, lock all tables in one order, and take its snapshot when they are.

    The locks go with the transaction. Raises ProofError after ``deadline`` of the monotonic clock, which says who holds
    what.
    """
    begun = time.monotonic()
    wait = _FIRST_WAIT
    while True:
        ((names,),) = connection.execute(_TABLES)
        connection.rollback()
        if not names:
            raise ProofError(f"mark {mark}: the database has no tables")
        tables = sql.SQL(", ").join(map(sql.SQL, names))
        # Locked before the first query: under REPEATABLE READ that query takes the snapshot. A worker of autovacuum
        # gives way to a request that has waited for deadlock_timeout.
        connection.execute(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL deadlock_timeout = '20ms'; "
            f"SET LOCAL statement_timeout = {wait * 1000:.0f}".encode()
        )
        asked = time.monotonic()
        try:
            connection.execute(
                sql.SQL("LOCK TABLE {} IN {} MODE; SET LOCAL statement_timeout = 0").format(tables, MODE)
            )
            granted = time.monotonic()
            waits.requests.append(granted - asked)
            ((there, snapshot, seen),) = connection.execute(_SNAPSHOT.encode())
            if there == names:
                return Locked(tables, granted, snapshot, seen)
            waits.requests[-1] += time.monotonic() - granted
            reason = "tables come and go"
        except (
            errors.QueryCanceled,
            errors.DeadlockDetected,
            errors.UndefinedTable,
            errors.InvalidSchemaName,
        ) as error:
            waits.requests.append(time.monotonic() - asked)
            reason = str(error).partition("\n")[0]
        connection.rollback()
        if time.monotonic() > deadline:
            raise _refusal(connection, mark, time.monotonic() - begun, reason, waits)
        time.sleep(_REST * waits.requests[-1])  # so that writers get on: nothing to be polled for
        wait = min(2 * wait, _LONGEST_WAIT)


def _refusal(connection: Connection, mark: str, seconds: float, reason: str, waits: Waits) -> ProofError:
    holders = [f"{who}, for {age or 0:.0f} s" for who, age in connection.execute(_HOLDERS)]
    connection.rollback()
    return ProofError(
        f"mark {mark}: no SHARE lock on all tables within {seconds:.1f} s, asked for {len(waits.requests)} times "
        f"({reason}); {'; '.join(holders) or 'nobody holds one against it now'}",
        hint="end that transaction: COMMIT PREPARED or ROLLBACK PREPARED with its id, pg_terminate_backend(process); "
        "or raise --iop-timeout-scale",
    )
