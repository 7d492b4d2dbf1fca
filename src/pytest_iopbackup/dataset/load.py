"""Load a dataset into an empty database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import scalar_row

from pytest_iopbackup.dataset import own_tables
from pytest_iopbackup.dataset.generate import Dataset, Table, make_dataset
from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.errors import MachineError, UsageError

SCHEMAS = ("identity", own_tables.SCHEMA)


def load(
    connection: psycopg.Connection[Any], spec: DatasetSpec, progress: Callable[[int, int], None]
) -> Mapping[str, int]:
    """Create the schemas, and the rows of ``identity`` in one transaction; return the number of rows of each table.

    Keys and indexes are made after the rows, which is faster; statistics last, of a small sample: plans by key need no
    more, and it takes a tenth of the time. Calls ``progress(rows done, rows in all)`` every few thousand rows. The
    connection's role must be allowed to create roles. Raises UsageError where the database is not in UTF8 or has one of
    the schemas already, MachineError where PostgreSQL lacks ICU.
    """
    dataset = make_dataset(spec)
    with connection.transaction():
        _refuse_unfit(connection)
        _create_tables(connection)
        done = 0
        for table in dataset.tables:
            for rows in _copy(connection, table):
                done += rows
                progress(done, dataset.rows)
        _create_large_objects(connection, dataset)
        _run_script(connection, "constraints.sql")
        names = [_qualified(table.name) for table in dataset.tables]
        connection.execute("SET LOCAL default_statistics_target = 10")
        connection.execute(sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(names)))
    return {table.name: table.rows for table in dataset.tables}


def _refuse_unfit(connection: psycopg.Connection[Any]) -> None:
    with connection.cursor(row_factory=scalar_row) as cursor:
        encoding = cursor.execute("SHOW server_encoding").fetchone()
        if encoding != "UTF8":
            raise UsageError(
                f"dataset: database {connection.info.dbname} is in {encoding}",
                hint="create it with ENCODING 'UTF8'; the rows hold text of many scripts",
            )
        there = "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s) ORDER BY nspname"
        if (schema := cursor.execute(there, [list(SCHEMAS)]).fetchone()) is not None:
            raise UsageError(
                f"dataset: database {connection.info.dbname} has a schema {schema} already",
                hint="load into a new database; nothing is ever overwritten",
            )


def _create_tables(connection: psycopg.Connection[Any]) -> None:
    try:
        _run_script(connection, "schema.sql")
    except psycopg.errors.FeatureNotSupported as error:
        raise MachineError(
            f"dataset: {error}",
            hint="take a PostgreSQL built --with-icu, as the distributions' packages and the official images are",
        ) from error


def _run_script(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(files(__package__).joinpath(name).read_bytes())


def _copy(connection: psycopg.Connection[Any], table: Table) -> Iterator[int]:
    """Load a table, yielding the number of rows sent at a time."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (ENCODING 'UTF8')").format(
        _qualified(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for chunk in table.chunks():
            copy.write(chunk.data)
            yield chunk.rows


def _create_large_objects(connection: psycopg.Connection[Any], dataset: Dataset) -> None:
    for large_object in dataset.large_objects:
        connection.execute("SELECT lo_from_bytea(%s::oid, %s)", [large_object.oid, large_object.content])


def _qualified(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))
