"""A read of one snapshot under settings that do not depend on the server, the role or the client.

Text forms, deparsed definitions and digests follow settings; a difference in settings must never look like one in data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from pytest_iopbackup.errors import ProofError

Connection = psycopg.Connection[Any]
Cursor = psycopg.Cursor[tuple[Any, ...]]

PINNED = {
    "client_encoding": "UTF8",  # the send functions convert to it
    "search_path": "",  # every name comes out qualified, and nothing shadows pg_catalog
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "row_security": "off",  # an error instead of a filtered table
    "jit": "off",  # compiling costs more than it saves in one pass
    "synchronize_seqscans": "off",  # rows come in physical order, which a restore keeps
    "enable_sort": "off",  # groups are hashed: sorting all rows of a table would spill
    "enable_indexonlyscan": "off",  # the rows must come from the heap, never from an index over all columns
    "lock_timeout": "60s",  # behind somebody's ACCESS EXCLUSIVE lock: better no answer than none in time
}


@contextmanager
def reading(connection: Connection, *, writable: bool = False) -> Iterator[Cursor]:
    """Yield a cursor that sees one snapshot, with the settings of ``PINNED``; afterwards all is as it was before.

    An idle connection gets a read-only REPEATABLE READ transaction, which works on a standby, too; a ``writable`` one
    may make temporary functions, if the server is no standby, and is rolled back likewise. A connection in a
    transaction keeps it, so that an exported snapshot can be imported first; that one must be REPEATABLE READ already.

    Raises ProofError when the snapshot could move, and for every error of the database that is not handled inside.
    """
    fresh = connection.info.transaction_status == TransactionStatus.IDLE
    # Rolled back even on success: that takes the settings back, in a savepoint as in a transaction of our own.
    with (
        _told(),
        connection.transaction(force_rollback=True),
        connection.cursor(row_factory=tuple_row) as cursor,
    ):
        if fresh:
            mode = "" if writable else ", READ ONLY"
            cursor.execute(f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ{mode}")
        elif value(cursor, "SELECT pg_catalog.current_setting('transaction_isolation')") == "read committed":
            raise ProofError(
                "the transaction is READ COMMITTED: each table would be read at another moment",
                hint="begin it with ISOLATION LEVEL REPEATABLE READ, or hand in an idle connection",
            )
        _pin(cursor, PINNED)
        yield cursor


@contextmanager
def scratch(connection: Connection, seconds: float) -> Iterator[Cursor]:
    """Yield a cursor in a transaction that may write and is rolled back whatever happens: nothing is left behind.

    No trigger of the database's own, an event trigger among them, sees what is written; a statement may take that many
    ``seconds``. On a server in recovery it can only read. ``connection`` is in autocommit mode, and idle. Raises
    ProofError as :func:`reading` does.
    """
    with _told():
        connection.execute("SET default_transaction_read_only = off")  # whatever the database or the role have set
    with (
        _told(),
        connection.transaction(force_rollback=True),
        connection.cursor(row_factory=tuple_row) as cursor,
    ):
        limit = {"statement_timeout": f"{seconds * 1000:.0f}"}
        _pin(cursor, {**PINNED, **limit, "session_replication_role": "replica"})
        yield cursor


def connector(connection: Connection) -> Callable[[str | None], Connection]:
    """Return what connects once more to the server behind ``connection``, as the same role, to a database by name.

    None is the same database again. The new connection is in autocommit mode.
    """
    dsn, password, same = connection.info.dsn, connection.info.password, connection.info.dbname

    def connect(database: str | None) -> Connection:
        return psycopg.connect(dsn, dbname=database or same, password=password or None, autocommit=True)

    return connect


def _pin(cursor: Cursor, settings: Mapping[str, str]) -> None:
    cursor.execute(
        "SELECT pg_catalog.set_config(name, value, true) "
        "FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[])) AS pinned(name, value)",
        [list(settings), list(settings.values())],
    )


@contextmanager
def _told() -> Iterator[None]:
    """Turn what PostgreSQL says into a ProofError."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise ProofError(
            f"the role may not read everything: {words(error)}",
            hint="connect as a superuser, or as a role with pg_read_all_data and BYPASSRLS",
        ) from error
    except psycopg.Error as error:
        raise ProofError(
            f"the database could not be read: {words(error)}", hint="PostgreSQL's log has more; then prove again"
        ) from error


def value(cursor: Cursor, query: str) -> Any:
    """Return the one value of a query that gives one row."""
    row = cursor.execute(query).fetchone()
    if row is None:
        raise ProofError(f"no row from: {query}")
    return row[0]


def words(error: psycopg.Error) -> str:
    """Return PostgreSQL's own words on one line: message and detail, without the query."""
    parts = (error.diag.message_primary, error.diag.message_detail)
    return "; ".join(part for part in parts if part) or " ".join(str(error).split()) or type(error).__name__


def says_damaged(error: psycopg.Error) -> bool:
    """Whether PostgreSQL speaks of damaged data (class XX) or unreadable files (class 58)."""
    return (error.sqlstate or "")[:2] in {"XX", "58"}


def says_unknown(error: psycopg.Error) -> bool:
    """Whether a function, a table, a column, a type or a schema was not found by its name."""
    return error.sqlstate in {"42883", "42P01", "42703", "42704", "3F000"}


def says_of_rows(error: psycopg.Error) -> bool:
    """Whether it speaks of rows, or of what is computed from them, and not of a connection, a limit or a query of ours.

    Damage, a value that an expression cannot take (class 22), a constraint (23), PL/pgSQL's own exceptions (P0), or a
    name that an expression needs.
    """
    return says_damaged(error) or says_unknown(error) or (error.sqlstate or "")[:2] in {"22", "23", "P0"}
