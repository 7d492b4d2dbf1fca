"""The tables of a database, as the catalogs describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from pytest_iopbackup.proof.session import Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a column's hash is made by. Names are qualified and quoted as SQL needs them."""

    type: str
    """The type, that under all domains."""
    domain: bool
    typtype: str
    """As in ``pg_type``: ``b`` base, ``c`` composite, ``e`` enum …"""
    send: str | None
    """The type's send function, if it takes the type as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A relation with rows of its own. ``name`` is qualified and quoted as SQL needs it."""

    name: str
    columns: tuple[tuple[str, str | None], ...]
    """Name, and the type to cast to where the binary form will not do."""
    kinds: tuple[Kind, ...]
    """One per column."""
    key: tuple[str, ...]
    """Columns of the primary key, in its order; empty without one."""
    skipped: str | None = None
    """Why its rows are not compared."""


def user_tables(cursor: Cursor) -> tuple[Table, ...]:
    """Return all tables with rows of their own: ordinary ones, leaf partitions, materialized views, large objects."""
    cursor.execute(resources.files(__package__).joinpath("tables.sql").read_text(encoding="utf-8"))
    return tuple(
        Table(
            name=name,
            columns=tuple((column, cast) for column, cast, *_ in columns or ()),
            kinds=tuple(
                Kind(type=kind, domain=domain, typtype=typtype, send=send)
                for _column, _cast, kind, domain, typtype, send in columns or ()
            ),
            key=tuple(key or ()),
            skipped=skipped,
        )
        for name, columns, key, skipped in cursor
    )


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of a table: its own file, and with TOAST; 0 of one that is gone."""

    own: int
    whole: int


def sizes(cursor: Cursor, tables: Sequence[Table]) -> Mapping[str, Size]:
    """Return each table's size, by name."""
    cursor.execute(
        "SELECT name, coalesce(pg_catalog.pg_relation_size(name::pg_catalog.regclass), 0), "
        "coalesce(pg_catalog.pg_table_size(name::pg_catalog.regclass), 0) FROM pg_catalog.unnest(%s::text[]) AS name",
        [[table.name for table in tables]],
    )
    return {name: Size(own, whole) for name, own, whole in cursor.fetchall()}
