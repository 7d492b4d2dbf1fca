"""An exact mark on a live database: a point in WAL and the row sets that are there.

In one transaction SHARE locks are taken on every table, then the transaction's id, a restore point and an exported
snapshot; sequences, which follow no snapshot, are read there, too. SHARE conflicts with every writer, so no writer's
transaction spans the point. A second connection adopts the snapshot, the locks go, and the row sets are read at
leisure.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.pgbackrest import Progress
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.proof.capture import Capture, capture
from pytest_iopbackup.proof.sequences import SequenceState, sequence_states
from pytest_iopbackup.record import MarkFacts
from pytest_iopbackup.stack.base import Stack

Connection = psycopg.Connection[tuple[Any, ...]]

_LOCK_TIMEOUT_MS = 200
_TABLES = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY 1, 2"""
_POINT = """
    SELECT pg_current_xact_id()::text::bigint, pg_create_restore_point(%s)::text, pg_export_snapshot(),
           ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point to recover to, together with what is expected there."""

    facts: MarkFacts
    capture: Capture
    segment: str
    """The WAL segment with the sentinel: the mark can be restored to once it is in the repository."""


@dataclass(frozen=True, slots=True)
class _Point:
    xid: int
    lsn: str
    timeline: int
    sequences: tuple[SequenceState, ...]
    locked_seconds: float


def take_mark(
    stack: Stack, name: str, directory: Path, limits: Limits, progress: Progress | None = None, *, settled: bool = True
) -> Mark:
    """Take a mark and, if it is to be ``settled``, wait until recovery can stop there.

    That is, until its WAL and a later commit are in the repository. ``directory`` takes what is needed to name
    differing rows later. Raises ProofError when the locks cannot be had.
    """
    with stack.connect(autocommit=False) as locking, stack.connect(autocommit=False) as reading:
        point = _place(locking, reading, name, limits)
        moment = _commit_time(locking, point.xid)
        # Recovery to a time stops only at a later commit or abort record, and a restore point is neither.
        sentinel = _sentinel(locking)
        if _commit_time(locking, sentinel) <= moment:
            raise ProofError(f"mark {name}: the clock went backwards between two commits, so no time names this point")
        segment = _switch(locking)
        state = capture(reading, directory, progress, sequences=point.sequences)
    if settled:
        pgbackrest.await_archived(stack, segment, limits)
    return Mark(
        MarkFacts(
            name=name,
            lsn=point.lsn,
            xid=point.xid,
            time=moment,
            timeline=point.timeline,
            tables=len(state.tables),
            rows=sum(table.rows for table in state.tables),
            writers_waited=point.locked_seconds,
        ),
        state,
        segment,
    )


def _place(locking: Connection, reading: Connection, name: str, limits: Limits) -> _Point:
    """Lock, create the restore point, hand the snapshot over, unlock; again while writers hold what we need."""
    tables = [sql.Identifier(*row) for row in locking.execute(_TABLES)]
    locking.rollback()
    if not tables:
        raise ProofError(f"mark {name}: the database has no tables")
    lock = sql.SQL("LOCK TABLE {} IN {} MODE")
    names = sql.SQL(", ").join(tables)
    deadline = time.monotonic() + limits.lock
    while True:
        try:
            # Locked before the first query: under REPEATABLE READ that query takes the snapshot.
            locking.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            locking.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
            started = time.monotonic()
            locking.execute(lock.format(names, sql.SQL("SHARE")))
            break
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            locking.rollback()
            if time.monotonic() > deadline:
                raise ProofError(
                    f"mark {name}: no SHARE lock on all tables within {limits.lock:g} s: {error}",
                    hint="a transaction stays open on a table; see pg_locks, or raise --iop-timeout-scale",
                ) from error
    row = locking.execute(_POINT, (name,)).fetchone()
    if row is None:
        raise ProofError(f"mark {name}: PostgreSQL gave no restore point")
    xid, lsn, snapshot, timeline = row
    reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    reading.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
    # TRUNCATE and ALTER TABLE follow no snapshot either; this keeps them out until the row sets are read.
    reading.execute(lock.format(names, sql.SQL("ACCESS SHARE")))
    sequences = sequence_states(locking)
    locking.commit()
    return _Point(xid, lsn, timeline, sequences, time.monotonic() - started)


def _commit_time(connection: Connection, xid: int) -> datetime:
    """Return the time in the transaction's commit record (needs ``track_commit_timestamp``)."""
    row = connection.execute("SELECT pg_xact_commit_timestamp(%s::text::xid)", (str(xid % 2**32),)).fetchone()
    connection.rollback()
    if row is None or row[0] is None:
        raise ProofError(f"transaction {xid} has no commit time", hint="set track_commit_timestamp = on")
    moment: datetime = row[0]
    return moment


def _sentinel(connection: Connection) -> int:
    """Commit a transaction that changes nothing; having an id, it leaves a commit record."""
    row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    connection.commit()
    return int(row[0]) if row else 0


def _switch(connection: Connection) -> str:
    """Switch WAL and return the segment that is now complete."""
    row = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
    connection.rollback()
    return str(row[0]) if row else ""
