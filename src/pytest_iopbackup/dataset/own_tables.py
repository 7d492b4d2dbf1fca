"""Tables that a client of the workload makes, fills, empties, alters and drops: COPY, TRUNCATE, DDL, in transactions.

They are in a schema of their own, and each belongs to one client, which takes its ACCESS EXCLUSIVE locks only after
it has inserted its audit row. So no client ever waits for another one, and whoever has locked ``identity.audit_log``
finds them all unlocked. A table's name is used once, so that the ledger's effects on its rows stay true when it is
gone; while it is there, it has rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from pytest_iopbackup.dataset import copytext
from pytest_iopbackup.dataset.change import Change, identifier
from pytest_iopbackup.dataset.ledger import Effect

SCHEMA = "workload"

MOST_TABLES = 3
"""Of one client."""

_COLUMNS = ("id", "version", "name")
_LISTED = """
    SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind = 'r' ORDER BY c.relname COLLATE "C"
"""

Row = tuple[str, str]
"""Key, a UUID, and name."""


def make(table: str, rows: Sequence[Row], version: int) -> list[Change]:
    """Create a table with rows in it."""
    return [
        _ddl("CREATE TABLE {} (id uuid PRIMARY KEY, version integer NOT NULL, name text NOT NULL)", table),
        insert(table, rows, version),
    ]


def insert(table: str, rows: Sequence[Row], version: int) -> Change:
    """Insert several rows at once."""
    row = sql.SQL("({})").format(sql.SQL(", ").join([sql.Placeholder()] * len(_COLUMNS)))
    return Change(
        sql.SQL("INSERT INTO {} ({}) VALUES {}").format(
            identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, _COLUMNS)),
            sql.SQL(", ").join([row] * len(rows)),
        ),
        tuple(value for key, name in rows for value in (key, version, name)),
        _left(table, (key for key, _ in rows), version),
        rows=len(rows),
    )


def copy(table: str, rows: Sequence[Row], version: int) -> Change:
    """Load rows by COPY."""
    columns = ([key for key, _ in rows], [str(version)] * len(rows), [copytext.text(name) for _, name in rows])
    return Change(
        sql.SQL("COPY {} ({}) FROM STDIN WITH (ENCODING 'UTF8')").format(
            identifier(table), sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
        ),
        effects=_left(table, (key for key, _ in rows), version),
        rows=len(rows),
        data=copytext.lines(columns),
    )


def empty(table: str, there: Mapping[str, int], row: Row, version: int) -> list[Change]:
    """Truncate a table and put one row into it; ``there`` are the versions of its rows, by key."""
    return [_ddl("TRUNCATE {}", table, _left(table, there, None)), insert(table, [row], version)]


def alter(table: str, there: Mapping[str, int], column: str, step: int) -> Change:
    """Add a column and ``step`` to each row's version, which rewrites the table."""
    query = sql.SQL(
        "ALTER TABLE {} ADD COLUMN {} text NOT NULL DEFAULT 'none',"
        " ALTER COLUMN version TYPE integer USING version + {}"
    ).format(identifier(table), sql.Identifier(column), sql.Literal(step))
    effects = (Effect(table=table, key=key, version=version + step) for key, version in there.items())
    return Change(query, effects=tuple(effects), rows=None)


def drop(table: str, there: Mapping[str, int]) -> Change:
    """Drop a table."""
    return _ddl("DROP TABLE {}", table, _left(table, there, None))


def read(connection: psycopg.Connection[Any]) -> Mapping[str, Mapping[str, int]]:
    """Return the versions of all rows of all these tables, by table and key."""
    found: dict[str, Mapping[str, int]] = {}
    with connection.cursor(row_factory=tuple_row) as cursor:
        for (table,) in cursor.execute(_LISTED, [SCHEMA]).fetchall():
            query = sql.SQL("SELECT id::text, version FROM {} ORDER BY id").format(identifier(table))
            found[table] = dict(cursor.execute(query).fetchall())
    return found


def _ddl(statement: str, table: str, effects: tuple[Effect, ...] = ()) -> Change:
    return Change(sql.SQL(statement).format(identifier(table)), effects=effects, rows=None)


def _left(table: str, keys: Iterable[str], version: int | None) -> tuple[Effect, ...]:
    return tuple(Effect(table=table, key=key, version=version) for key in keys)
