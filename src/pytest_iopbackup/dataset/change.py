"""Statements of the workload, how many rows each must change, and the effects it has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from psycopg import sql

from pytest_iopbackup.dataset.ledger import Effect

_KEY = {"identity.settings": "key"}
"""Primary key by table, where it is not ``id``."""


@dataclass(frozen=True, slots=True)
class Change:
    """One statement; it is an error if it does not change so many rows."""

    query: sql.Composed
    parameters: tuple[object, ...] = ()
    effects: tuple[Effect, ...] = ()
    """Empty where rows have no version."""
    rows: int | None = 1
    """None for a statement that counts none."""
    data: bytes | None = None
    """What COPY reads, in its text format."""


def append(table: str, **values: object) -> Change:
    """Insert a row into a table whose rows have no version and are never changed."""
    return Change(_insert(table, tuple(values)), tuple(values.values()))


def create(table: str, key: str, version: int, **values: object) -> Change:
    """Insert a row with a key of our choice."""
    columns = (_KEY.get(table, "id"), "version", *values)
    return Change(
        _insert(table, columns), (key, version, *values.values()), (Effect(table=table, key=key, version=version),)
    )


def update(table: str, key: str, version: int, step: int, **values: object) -> Change:
    """Update the row if it still has this version, and add ``step`` to it."""
    return Change(
        _update(table, tuple(values)),
        (*values.values(), version + step, key, version),
        (Effect(table=table, key=key, version=version + step),),
    )


def delete(table: str, key: str, version: int) -> Change:
    """Delete the row if it still has this version."""
    return Change(_delete(table), (key, version), (Effect(table=table, key=key, version=None),))


def control(statement: sql.SQL) -> Change:
    """Send what changes no row by itself: to begin, to go back to a savepoint."""
    return Change(sql.Composed([statement]), rows=None)


@cache
def _insert(table: str, columns: tuple[str, ...]) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(sql.Placeholder() for _ in columns),
    )


@cache
def _update(table: str, columns: tuple[str, ...]) -> sql.Composed:
    assignments = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in (*columns, "version"))
    return sql.SQL("UPDATE {} SET {} WHERE {} = %s AND version = %s").format(
        identifier(table), assignments, sql.Identifier(_KEY.get(table, "id"))
    )


@cache
def _delete(table: str) -> sql.Composed:
    return sql.SQL("DELETE FROM {} WHERE {} = %s AND version = %s").format(
        identifier(table), sql.Identifier(_KEY.get(table, "id"))
    )


def identifier(name: str) -> sql.Identifier:
    """Return a table's name, which has its schema before the dot, as SQL needs it."""
    return sql.Identifier(*name.split("."))
