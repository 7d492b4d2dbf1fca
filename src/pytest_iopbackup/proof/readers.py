"""All tables of a database, read by as many connections as there are processors, in one snapshot.

One query uses parallel workers where its table is large; many middling tables would be read one after the other all the
same. The biggest tables come first, so that none is left at the end for one connection alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from pytest_iopbackup.proof.session import Connection, Cursor, connector, reading, value
from pytest_iopbackup.proof.tables import Size, Table, sizes

T = TypeVar("T")
Opened = Callable[[Cursor], AbstractContextManager[Callable[[Table], T]]]
"""Makes of a connection what reads a table; it is asked once for each connection."""

WORTH = 64 << 20
"""Bytes from which on a second connection, or the trial of the fast tier, costs less than it saves.

About half a second of reading.
"""

LOCK = "100ms"
"""For a lock on a table, of every connection but the first: that one may hold it, while somebody waits for it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A snapshot that other connections can read, until the transaction that exported it ends."""

    snapshot: str
    connect: Callable[[], Connection]
    read_only: bool


def share(connection: Connection) -> Shared | None:
    """Export the snapshot of an open transaction; None where others would not see what it sees, for it has written.

    Call it outside of any savepoint, for PostgreSQL exports no snapshot from within; so where :func:`session.reading`
    is given an open transaction, before that. Works on a standby.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        if value(
            cursor,
            "SELECT NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL",
        ):
            return None
        connect = connector(connection)
        return Shared(
            snapshot=str(value(cursor, "SELECT pg_catalog.pg_export_snapshot()")),
            connect=lambda: connect(None),
            read_only=bool(value(cursor, "SELECT pg_catalog.current_setting('transaction_read_only') = 'on'")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """All that read a database: one connection, and others if there is a snapshot that is ``shared``.

    The first connection must stay in its transaction meanwhile, and whoever changes tables must be kept out (see
    :func:`capture.capture`).
    """

    cursor: Cursor
    tables: Sequence[Table]
    sizes: Mapping[str, Size]
    shared: Shared | None

    @property
    def worth(self) -> bool:
        """Whether there is enough to read for anything to be prepared."""
        return sum(size.whole for size in self.sizes.values()) >= WORTH

    def shared_for(self, table: Table) -> Shared | None:
        """Return the snapshot if one table alone is worth more connections: the others would have nothing to do."""
        mine = self.sizes[table.name].whole
        if mine < WORTH:  # first: there may be thousands of those
            return None
        return self.shared if mine * processors() >= sum(size.whole for size in self.sizes.values()) else None

    def read(self, opened: Opened[T], done: Callable[[Table], None] = lambda _: None) -> dict[str, T]:
        """Read all tables, each once; ``done`` is called after each, by one thread at a time.

        Raises what ``opened`` does, on whatever connection.
        """
        turn = Lock()

        def told(table: Table) -> None:
            with turn:
                done(table)

        waiting: SimpleQueue[Table] = SimpleQueue()
        for table in sorted(self.tables, key=lambda table: self.sizes[table.name].whole, reverse=True):
            waiting.put(table)
        others = min(processors(), len(self.tables)) - 1 if self.worth else 0
        if others <= 0 or self.shared is None:
            return _work(self.cursor, waiting, opened, told)
        with ThreadPoolExecutor(others, thread_name_prefix="iop-digest") as pool:
            started = [pool.submit(_join, self.shared, waiting, opened, told) for _ in range(others)]
            try:
                found = _work(self.cursor, waiting, opened, told)
                for other in started:
                    found |= other.result()
            except BaseException:
                _empty(waiting)  # the others stop after the table that they are at
                raise
        return found if waiting.empty() else found | _work(self.cursor, waiting, opened, told)


def readers(cursor: Cursor, tables: Sequence[Table], shared: Shared | None) -> Readers:
    """Return what reads these tables in the snapshot of ``cursor``."""
    return Readers(cursor=cursor, tables=tables, sizes=sizes(cursor, tables), shared=shared)


@contextmanager
def joined(shared: Shared) -> Iterator[Cursor]:
    """Yield a cursor of one more connection that sees the snapshot, and waits for no lock longer than ``LOCK``."""
    with shared.connect() as connection, connection.transaction(force_rollback=True):
        mode = "READ ONLY" if shared.read_only else "READ WRITE"
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, {mode}".encode())
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(shared.snapshot)))
        with reading(connection) as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK}'")
            yield cursor


def _join(
    shared: Shared, waiting: SimpleQueue[Table], opened: Opened[T], done: Callable[[Table], None]
) -> dict[str, T]:
    with joined(shared) as cursor:
        return _work(cursor, waiting, opened, done, leave=True)


def _work(
    cursor: Cursor,
    waiting: SimpleQueue[Table],
    opened: Opened[T],
    done: Callable[[Table], None],
    *,
    leave: bool = False,
) -> dict[str, T]:
    """Read tables until none waits; ``leave`` one that is locked, and all after it, to the first connection."""
    found: dict[str, T] = {}
    with opened(cursor) as read:
        while True:
            try:
                table = waiting.get_nowait()
            except Empty:
                return found
            try:
                found[table.name] = read(table)
            except psycopg.errors.LockNotAvailable:
                if not leave:
                    raise
                waiting.put(table)
                return found
            done(table)


def _empty(waiting: SimpleQueue[Table]) -> None:
    with suppress(Empty):
        while True:
            waiting.get_nowait()


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
