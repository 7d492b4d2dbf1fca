"""The row set of a table: how many rows, and a digest that does not depend on their order.

A row's image is what ``record_send`` gives: the type and the binary form of each column, NULL apart from every value,
lengths in front. Two 64-bit hashes of the whole image (``hash_record_extended`` of a record of one bytea, two seeds)
are summed over the rows, each modulo 2**64. A sum, because xor is blind to a row that is there twice; of hashes of the
whole image, because a combination of hashes of columns can be blind to rows that swap values.

Not every type has a binary form that says all. ``xml_send`` leaves out the XML declaration, and some types have no
send function (aclitem, many of extensions): columns with such a type anywhere inside count by their text form.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from psycopg import sql

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.session import Connection, Cursor, reading, value

ALGORITHM = "sum128(hash_record_extended(record_send))"
SEEDS = (0x1B873593, 0x2545F491)
"""Any two different ones would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What made a digest. The hash may change with the major version and the byte order; the probe shows that."""

    algorithm: str
    server: int
    """Major version of PostgreSQL."""
    probe: str
    """Hash of a fixed string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A relation as the catalogs describe it. ``name`` is qualified and quoted as SQL needs it."""

    name: str
    columns: tuple[tuple[str, str | None], ...]
    """Name, and the type to cast to where the binary form will not do."""
    key: tuple[str, ...]
    """Columns of the primary key, in its order; empty without one."""
    skipped: str | None = None
    """Why its rows are not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSet:
    """The rows of one table. ``as_text``: columns that count by their text form."""

    table: str
    key: tuple[str, ...]
    rows: int
    digest: str
    as_text: tuple[str, ...] = ()


TABLES = """
WITH RECURSIVE parts (type, part) AS (
    SELECT DISTINCT a.atttypid, a.atttypid
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'm')
  UNION
    SELECT parts.type, inner_type.oid
    FROM parts
    JOIN pg_catalog.pg_type AS t ON t.oid = parts.part
    CROSS JOIN LATERAL (
        SELECT t.typbasetype AS oid
        UNION ALL SELECT t.typelem
        UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
                  WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    ) AS inner_type
    WHERE inner_type.oid <> 0
), lossy (type) AS (
    SELECT DISTINCT parts.type
    FROM parts JOIN pg_catalog.pg_type AS t ON t.oid = parts.part
    WHERE t.typsend = 0 OR t.oid = 'pg_catalog.xml'::pg_catalog.regtype
)
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attname,
                   CASE WHEN a.atttypid NOT IN (SELECT lossy.type FROM lossy) THEN NULL
                        WHEN a.atttypid = 'pg_catalog.xml[]'::pg_catalog.regtype THEN 'text[]'
                        ELSE 'text' END) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY k.place)
        FROM pg_catalog.pg_index AS i
        CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts),
       CASE WHEN c.relpersistence = 'u' THEN 'unlogged: recovery empties it'
            WHEN c.relkind = 'f' THEN 'foreign: its rows are elsewhere'
            WHEN NOT c.relispopulated THEN 'materialized view without data' END
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'f') AND c.relpersistence <> 't' AND n.nspname <> 'pg_toast'
  -- 16384 is the first OID that initdb does not use; large objects are rows of two system tables
  AND (c.oid >= 16384 OR c.oid IN ('pg_catalog.pg_largeobject'::pg_catalog.regclass,
                                   'pg_catalog.pg_largeobject_metadata'::pg_catalog.regclass))
ORDER BY 1
"""


def method(cursor: Cursor) -> Method:
    """Return what digests made on this server are made with."""
    probe = value(cursor, f"SELECT pg_catalog.hash_record_extended(ROW('row set'::bytea), {SEEDS[0]})")
    return Method(
        algorithm=ALGORITHM,
        server=cursor.connection.info.server_version // 10000,
        probe=f"{probe % 2**64:016x}",
    )


def user_tables(cursor: Cursor) -> tuple[Table, ...]:
    """Return all tables with rows of their own: ordinary ones, leaf partitions, materialized views, large objects."""
    cursor.execute(TABLES)
    return tuple(
        Table(
            name=name,
            columns=tuple((column, cast) for column, cast in columns or ()),
            key=tuple(key or ()),
            skipped=skipped,
        )
        for name, columns, key, skipped in cursor
    )


def row_hashes(table: Table) -> tuple[sql.Composable, sql.Composable]:
    """Return two expressions over a row ``t`` of a table: its two 64-bit hashes, with sign."""
    first, second = (
        sql.SQL("pg_catalog.hash_record_extended({}, {})").format(_image(table), sql.Literal(seed)) for seed in SEEDS
    )
    return first, second


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
    first, second = (f"coalesce(pg_catalog.sum(pg_catalog.hash_record_extended(image, {seed})), 0)" for seed in SEEDS)
    query = sql.SQL("SELECT pg_catalog.count(*), {}, {} FROM ({}) AS rows").format(
        sql.SQL(first), sql.SQL(second), _images(table, ())
    )
    row = cursor.execute(query).fetchone()
    assert row is not None  # an aggregate without GROUP BY gives one row
    return RowSet(
        table=table.name,
        key=table.key,
        rows=row[0],
        digest=to_digest(int(row[1]), int(row[2])),
        as_text=tuple(name for name, cast in table.columns if cast),
    )


def lines(cursor: Cursor, table: Table, key: tuple[str, ...]) -> Generator[bytes, None, None]:
    """Stream one line per row, in physical order: key, TAB, the row's two hashes in hex, newline.

    The key is a JSON array of the columns' text forms; without key columns, of the whole row's first 200 characters.
    The line is in COPY's text format: each backslash is doubled. Close the generator if it is left early: the COPY
    goes on until then.
    """
    hashes = " || ".join(f"pg_catalog.int8send(pg_catalog.hash_record_extended(image, {seed}))" for seed in SEEDS)
    query = sql.SQL("COPY (SELECT key, pg_catalog.encode({}, 'hex') FROM ({}) AS rows) TO STDOUT").format(
        sql.SQL(hashes), _images(table, (_key(key),))
    )
    with cursor.copy(query) as copy:
        for line in copy:
            yield bytes(line)  # one message is one row: PostgreSQL's manual, "Message Formats", CopyData


def to_digest(first: int, second: int) -> str:
    """Return two sums as 32 hex digits."""
    return f"{first % 2**64:016x}{second % 2**64:016x}"


def _images(table: Table, before: tuple[sql.Composable, ...]) -> sql.Composed:
    """Return a query that gives ``before`` and each row's image.

    ``OFFSET 0`` keeps the planner from merging it with the query around it, which would make each image twice.
    """
    image = _image(table) + sql.SQL(" AS image")
    return sql.SQL("SELECT {} FROM ONLY {} AS t OFFSET 0").format(
        sql.SQL(", ").join((*before, image)), sql.SQL(table.name)
    )


def _image(table: Table) -> sql.Composed:
    columns = sql.SQL(", ").join(
        sql.SQL("t.{}").format(sql.Identifier(name)) + sql.SQL(f"::pg_catalog.{cast}" if cast else "")
        for name, cast in table.columns
    )
    return sql.SQL("ROW(pg_catalog.record_send(ROW({})))").format(columns)


def _key(key: tuple[str, ...]) -> sql.Composable:
    parts: Sequence[sql.Composable]
    if key:
        parts = [sql.SQL("t.{}::pg_catalog.text").format(sql.Identifier(name)) for name in key]
    else:
        parts = [sql.SQL("pg_catalog.left(t::pg_catalog.text, 200)")]
    return sql.SQL("pg_catalog.json_build_array({})::pg_catalog.text AS key").format(sql.SQL(", ").join(parts))
