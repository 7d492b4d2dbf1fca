"""An exact mark on a live database: a point in WAL and the row sets that are there.

In one transaction SHARE locks are taken on every table, then an exported snapshot, the sequences, which follow no
snapshot, and last the transaction's id and a restore point. SHARE conflicts with every writer, so no writer's
transaction spans the point. A second connection adopts the snapshot, the locks go, and the row sets are read at
leisure; TRUNCATE, ALTER and DROP TABLE, which follow no snapshot either, wait for that.

What is committed without a lock that conflicts (a table made, a role altered, a large object) is looked for
afterwards: if any such transaction may have committed between snapshot and point, another point is taken.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.pgbackrest import Progress
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.proof.capture import Capture, capture
from pytest_iopbackup.proof.locks import Connection, Locked, Waits, lock_tables
from pytest_iopbackup.proof.readers import share
from pytest_iopbackup.proof.sequences import SequenceState, read_states, widened
from pytest_iopbackup.record import MarkFacts
from pytest_iopbackup.stack.base import Stack

_ADOPT_SECONDS = 0.1
"""For the second connection's ACCESS SHARE locks: they wait where ACCESS EXCLUSIVE is already waited for."""
_UNDECIDED_SECONDS = 1.0
"""For a transaction that had not ended at the snapshot. WAL up to the point is on disk by then, so one that had written
its commit has ended long before."""
_ATTEMPTS = 10

_POINT = """
    SELECT pg_current_xact_id()::text::bigint, pg_create_restore_point(%s)::text,
           ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int, clock_timestamp()"""
_BETWEEN = """
    WITH open (xid) AS (
        SELECT pg_snapshot_xip(%(snapshot)s::pg_snapshot)::text::bigint
      UNION
        SELECT generate_series(pg_snapshot_xmax(%(snapshot)s::pg_snapshot)::text::bigint,
                               pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)
    ), told (xid, status) AS (
        SELECT xid, pg_xact_status(xid::text::xid8) FROM open WHERE xid <> %(ours)s
    )
    SELECT count(*) FILTER (WHERE status = 'committed'
                              AND pg_xact_commit_timestamp((xid %% 4294967296)::text::xid) <= %(placed)s),
           count(*) FILTER (WHERE status = 'in progress' AND xid < %(ours)s)
    FROM told"""
"""Transactions that the snapshot does not see: those that may be before the point, and those that have not ended.
A commit has its time before it is written to WAL: one with a later time than the point's is behind it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A point to recover to, together with what is expected there."""

    facts: MarkFacts
    capture: Capture
    segment: str
    """The WAL segment with the sentinel: the mark can be restored to once it is in the repository."""


@dataclass(frozen=True, slots=True)
class _Point:
    name: str
    xid: int
    lsn: str
    timeline: int
    sequences: tuple[SequenceState, ...]


def take_mark(
    stack: Stack,
    name: str,
    directory: Path,
    limits: Limits,
    progress: Progress | None = None,
    *,
    settled: bool = True,
    switched: bool = True,
) -> Mark:
    """Take a mark and, if it is to be ``settled``, wait until recovery can stop there.

    That is, until its WAL and a later commit are in the repository. ``directory`` takes what is needed to name
    differing rows later. Not ``switched``, its WAL segment is archived when it is full, or somebody switches WAL.
    Raises ProofError when the locks cannot be had.
    """
    waits = Waits()
    options = "-c quote_all_identifiers=off"  # a name has one form
    with (
        stack.connect(autocommit=False, options=options) as locking,
        stack.connect(autocommit=False, options=options) as reading,
    ):
        point = _place(locking, reading, name, limits, waits)
        moment = _commit_time(locking, point.xid)
        # Recovery to a time stops only at a later commit or abort record, and a restore point is neither.
        sentinel = _sentinel(locking)
        if _commit_time(locking, sentinel) <= moment:
            raise ProofError(f"mark {name}: the clock went backwards between two commits, so no time names this point")
        segment = switch_wal(locking) if switched else _segment(locking)
        locking.rollback()
        with locking.cursor() as cursor:
            sequences = widened(point.sequences, read_states(cursor))
        locking.rollback()
        state = capture(reading, directory, progress, sequences=sequences, shared=share(reading))
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
            writers_waited=waits.longest,
            locked=waits.held,
            queued=sum(waits.requests),
            requests=len(waits.requests),
            restore_point=point.name,
        ),
        state,
        segment,
    )


def _place(locking: Connection, reading: Connection, name: str, limits: Limits, waits: Waits) -> _Point:
    """Lock, hand the snapshot over, create the restore point, unlock; again until it is exact.

    A restore point's first use wins, so that each one has its own name.
    """
    names = [name, *(f"{name}~{number}" for number in range(2, _ATTEMPTS + 1))]
    deadline = time.monotonic() + limits.lock
    while names:
        reading.execute(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; "
            f"SET LOCAL lock_timeout = {_ADOPT_SECONDS * 1000:.0f}".encode()
        )
        locked = lock_tables(locking, name, deadline, waits)
        # From here to the commit writers wait: as few round trips as can be.
        row = None
        if _adopt(reading, locked):
            with locking.cursor() as cursor:
                sequences = read_states(cursor)
                with locking.pipeline():
                    cursor.execute(_POINT, (names[0],))
                    locking.commit()
                row = cursor.fetchone()
        else:
            locking.rollback()
        waits.held = time.monotonic() - locked.since
        if row is not None:
            xid, lsn, timeline, placed = row
            if _exact(locking, locked.seen, xid, placed):
                return _Point(names[0], xid, lsn, timeline, sequences)
            names.pop(0)
        waits.requests[-1] += waits.held
        reading.rollback()
        if row is None and time.monotonic() > deadline:
            raise ProofError(
                f"mark {name}: within {limits.lock:g} s the snapshot could not be handed over: TRUNCATE, ALTER or DROP "
                "TABLE was always waiting for the locks",
                hint="let no tables be altered while a mark is taken, or raise --iop-timeout-scale",
            )
    raise ProofError(
        f"mark {name}: {_ATTEMPTS} times a transaction without locks on tables committed beside the point",
        hint="let no roles, schemas or large objects be changed while a mark is taken",
    )


def _adopt(reading: Connection, locked: Locked) -> bool:
    """Take the snapshot over, and keep out what does not respect it; False where somebody waits to do that already."""
    adopt = sql.SQL("SET TRANSACTION SNAPSHOT {}; LOCK TABLE {} IN ACCESS SHARE MODE")
    try:
        reading.execute(adopt.format(sql.Literal(locked.snapshot), locked.tables))
    except psycopg.errors.LockNotAvailable:
        reading.rollback()
        return False
    return True


def _exact(connection: Connection, snapshot: str, ours: int, placed: datetime) -> bool:
    """Whether all that was committed before the point is in the snapshot."""
    deadline = time.monotonic() + _UNDECIDED_SECONDS
    while True:
        row = connection.execute(_BETWEEN, {"snapshot": snapshot, "ours": ours, "placed": placed}).fetchone()
        connection.rollback()
        committed, open_still = row or (1, 0)
        if committed or not open_still or time.monotonic() > deadline:
            return not committed
        time.sleep(0.01)  # between two polls: nothing outside our process can wake us


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


def switch_wal(connection: Connection) -> str:
    """Switch WAL and return the segment that is now complete."""
    row = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
    return str(row[0]) if row else ""


def _segment(connection: Connection) -> str:
    """Return the segment that is being written."""
    row = connection.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()
    return str(row[0]) if row else ""
