"""The row set of a table: how many rows, and a digest that does not depend on their order.

Each row has two 64-bit hashes (see :mod:`rowhash`), which are summed over the rows, each modulo 2**64. A sum, because
xor is blind to a row that is there twice. One pass over the table, on the server, in as many parallel workers as the
planner likes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from psycopg import sql

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.rowhash import hashed, row_hashes
from pytest_iopbackup.proof.session import Connection, Cursor, reading, value
from pytest_iopbackup.proof.tables import Table, user_tables

__all__ = [
    "Method", "RowSet", "Table", "digest", "lines", "method", "read", "row_hashes", "row_set", "sums", "to_digest",
    "user_tables",
]  # fmt: skip

ALGORITHM = "sum128(typed column hashes)"

PROBE = """
SELECT pg_catalog.hashtextextended('row set' COLLATE pg_catalog."C", 5)
     # pg_catalog.hash_record_extended(ROW('row set'::bytea, pg_catalog.numeric_send(-1.50)), 6)
     # pg_catalog.hashint4extended(7, 8589934592)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What made a digest. The hash may change with the major version and the byte order; the probe shows that."""

    algorithm: str
    server: int
    """Major version of PostgreSQL."""
    probe: str
    """Hash of fixed values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSet:
    """The rows of one table. ``as_text``: columns that count by their text form."""

    table: str
    key: tuple[str, ...]
    rows: int
    digest: str
    as_text: tuple[str, ...] = ()


def method(cursor: Cursor) -> Method:
    """Return what digests made on this server are made with."""
    probe = value(cursor, PROBE)
    return Method(
        algorithm=ALGORITHM,
        server=cursor.connection.info.server_version // 10000,
        probe=f"{probe % 2**64:016x}",
    )


def read(connection: Connection, name: str) -> RowSet:
    """Return one table's row set as it is now; ProofError if there is no such table or it has no rows of its own."""
    with reading(connection) as cursor:
        for table in user_tables(cursor):
            if table.name == name and table.skipped is None:
                return digest(cursor, table)
    raise ProofError(
        f"{name} is no table with rows of its own", hint="give schema.table; of a partitioned table, give a partition"
    )


def digest(cursor: Cursor, table: Table) -> RowSet:
    """Read the table once, on the server."""
    row = cursor.execute(summed(table)).fetchone()
    assert row is not None  # an aggregate without GROUP BY gives one row
    return row_set(table, *row)


def sums(first: str, second: str) -> sql.Composable:
    """Return what :func:`row_set` is made of: aggregates over two columns, a row's hashes."""
    return sql.SQL(f"pg_catalog.count(*), coalesce(pg_catalog.sum({first}), 0), coalesce(pg_catalog.sum({second}), 0)")


def row_set(table: Table, rows: int, first: Decimal, second: Decimal) -> RowSet:
    """Return the row set of so many rows, with these sums of their hashes."""
    return RowSet(
        table=table.name,
        key=table.key,
        rows=rows,
        digest=to_digest(int(first), int(second)),
        as_text=tuple(name for name, cast in table.columns if cast),
    )


@lru_cache(maxsize=1024)
def summed(table: Table) -> bytes:
    """Return the query. To write one takes longer than to run it on a small table, which is read again and again."""
    return sql.SQL("SELECT {} FROM ({}) AS rows").format(sums("h1", "h2"), hashed(table)).as_bytes(None)


def lines(cursor: Cursor, table: Table, key: tuple[str, ...]) -> Generator[bytes, None, None]:
    """Stream one line per row, in physical order: key, TAB, the row's two hashes in hex, newline.

    The key is a JSON array of the columns' text forms; without key columns, of the whole row's first 200 characters.
    The line is in COPY's text format: each backslash is doubled. Close the generator if it is left early: the COPY
    goes on until then.
    """
    query = sql.SQL(
        "COPY (SELECT b0, pg_catalog.encode(pg_catalog.int8send(h1) || pg_catalog.int8send(h2), 'hex') "
        "FROM ({}) AS rows) TO STDOUT"
    ).format(hashed(table, (_key(key),)))
    with cursor.copy(query) as copy:
        for line in copy:
            yield bytes(line)  # one message is one row: PostgreSQL's manual, "Message Formats", CopyData


def to_digest(first: int, second: int) -> str:
    """Return two sums as 32 hex digits."""
    return f"{first % 2**64:016x}{second % 2**64:016x}"


def _key(key: tuple[str, ...]) -> sql.Composable:
    parts: Sequence[sql.Composable]
    if key:
        parts = [sql.SQL("t.{}::pg_catalog.text").format(sql.Identifier(name)) for name in key]
    else:
        parts = [sql.SQL("pg_catalog.left((t.*)::pg_catalog.text, 200)")]
    return sql.SQL("pg_catalog.json_build_array({})::pg_catalog.text").format(sql.SQL(", ").join(parts))
