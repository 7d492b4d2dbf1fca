"""All tables of a database, read by as many connections as there are processors, in one snapshot.

One query uses parallel workers where its table is large; many middling tables would be read one after the other all the
same. The biggest tables come first, so that none is left at the end for one connection alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from queue import Empty, SimpleQueue

import psycopg
from psycopg import sql

from pytest_iopbackup.proof.rowset import RowSet, digest
from pytest_iopbackup.proof.session import Connection, Cursor, reading, says_damaged, value
from pytest_iopbackup.proof.tables import Table

Connect = Callable[[], Connection]
Found = RowSet | psycopg.Error
"""A row set, or PostgreSQL's word that the table is damaged."""


def export(connection: Connection) -> str | None:
    """Name the snapshot of an open transaction so that others can share it, until the transaction ends.

    None where they would not see what it sees: when the transaction has written. Call it outside of any savepoint, for
    PostgreSQL exports no snapshot from within; so before :func:`session.reading`. Works on a standby.
    """
    with connection.cursor() as cursor:
        if value(
            cursor,
            "SELECT NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL",
        ):
            return None
        return str(value(cursor, "SELECT pg_catalog.pg_export_snapshot()"))


def digests(
    cursor: Cursor, tables: Sequence[Table], connect: Connect | None = None, snapshot: str | None = None
) -> Mapping[str, Found]:
    """Read the tables, over ``connect`` if there is a ``snapshot`` to share (see :func:`export`), else over ``cursor``.

    The cursor's connection must stay in its transaction meanwhile, and whoever changes tables must be kept out (see
    :func:`capture.capture`). Raises whatever PostgreSQL reports except damage, which is the table's result.
    """
    waiting = _biggest_first(cursor, tables)
    others = 0 if connect is None or snapshot is None else min(_processors(), len(tables)) - 1
    if others <= 0 or connect is None or snapshot is None:
        return dict(_work(cursor, waiting))
    with ThreadPoolExecutor(others, thread_name_prefix="iop-digest") as pool:
        started = [pool.submit(_join, connect, snapshot, waiting) for _ in range(others)]
        try:
            own = _work(cursor, waiting)
        except BaseException:
            _empty(waiting)  # the others stop after the table that they are at
            raise
        return dict(chain(own, *(found.result() for found in started)))


def _join(connect: Connect, snapshot: str, waiting: SimpleQueue[Table]) -> list[tuple[str, Found]]:
    with connect() as connection:
        connection.autocommit = True
        with connection.transaction(force_rollback=True):
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
            with reading(connection) as cursor:
                return _work(cursor, waiting)


def _work(cursor: Cursor, waiting: SimpleQueue[Table]) -> list[tuple[str, Found]]:
    found: list[tuple[str, Found]] = []
    while True:
        try:
            table = waiting.get_nowait()
        except Empty:
            return found
        try:
            with cursor.connection.transaction():
                found.append((table.name, digest(cursor, table)))
        except psycopg.Error as error:
            if not says_damaged(error):
                raise
            found.append((table.name, error))


def _biggest_first(cursor: Cursor, tables: Sequence[Table]) -> SimpleQueue[Table]:
    cursor.execute(
        "SELECT name, pg_catalog.pg_table_size(name::pg_catalog.regclass) FROM pg_catalog.unnest(%s::text[]) AS name",
        [[table.name for table in tables]],
    )
    sizes: dict[str, int | None] = dict(cursor.fetchall())
    waiting: SimpleQueue[Table] = SimpleQueue()
    for table in sorted(tables, key=lambda table: sizes[table.name] or 0, reverse=True):
        waiting.put(table)
    return waiting


def _empty(waiting: SimpleQueue[Table]) -> None:
    with suppress(Empty):
        while True:
            waiting.get_nowait()


def _processors() -> int:
    return len(os.sched_getaffinity(0))
