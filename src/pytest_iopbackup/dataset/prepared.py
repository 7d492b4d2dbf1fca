"""The workload's prepared transactions, and what is done with one whose client was lost.

A prepared transaction keeps its locks, across restarts and restores, until somebody finishes it by its id. COMMIT
PREPARED is sent by its own client alone. So what is left over has never been acknowledged, or it was and a restore went
back to before that: either way it must not come back, and is rolled back.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import scalar_row

from pytest_iopbackup.errors import DeadlineError

_PREFIX = "iop-workload-"

_BUSY_SECONDS = 10.0
"""For the session of a lost client, in which it may still be at work."""

_LEFT = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, %s) ORDER BY gid"
_FREE = """
    SELECT current_setting('max_prepared_transactions')::int - (SELECT count(*) FROM pg_prepared_xacts)::int
"""


def transaction_id(request_id: str) -> str:
    """Return the id under which a request's transaction is prepared: no other one has it."""
    return f"{_PREFIX}{request_id}"


def prepare(request_id: str) -> sql.Composed:
    """Return the first of the two phases."""
    return sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(transaction_id(request_id)))


def finish(request_id: str, *, commits: bool) -> sql.Composed:
    """Return the second one."""
    return sql.SQL("COMMIT PREPARED {}" if commits else "ROLLBACK PREPARED {}").format(
        sql.Literal(transaction_id(request_id))
    )


def allowed(connection: psycopg.Connection[Any], clients: int) -> bool:
    """Whether the server has room for a prepared transaction of each client; by default PostgreSQL has for none."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        free = cursor.execute(_FREE).fetchone()
    return free is not None and int(free) >= clients


def roll_back_left_over(connection: psycopg.Connection[Any], sessions: tuple[int, ...] = ()) -> tuple[str, ...]:
    """Roll back what lost clients left prepared in this database; return the ids.

    For a time when no client is at work. ``connection`` must be in autocommit mode. ``sessions`` are the server's
    processes of clients that were just lost: waited for, since one may be about to prepare or to commit. Raises
    DeadlineError if one goes on.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    with connection.cursor(row_factory=scalar_row) as cursor:
        while (
            sessions
            and cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)", [list(sessions)]).fetchone()
        ):
            _pause(deadline, f"server processes {sessions} of lost clients")
        left = tuple(cursor.execute(_LEFT, [_PREFIX]).fetchall())
        for gid in left:
            while not _rolled_back(cursor, gid):
                _pause(deadline, f"prepared transaction {gid}, which a session is working on")
    return left


def _rolled_back(cursor: psycopg.Cursor[Any], gid: str) -> bool:
    try:
        cursor.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
    except errors.UndefinedObject:  # finished meanwhile
        return True
    except errors.ObjectNotInPrerequisiteState:  # "is busy"
        return False
    return True


def _pause(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise DeadlineError(f"workload: waited {_BUSY_SECONDS:g} s for {what}, in vain", hint="see pg_stat_activity")
    time.sleep(0.02)  # between two polls: nothing outside our process can wake us
