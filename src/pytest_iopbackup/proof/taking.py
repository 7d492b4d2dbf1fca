"""What is kept of a table, so that rows which differ can be named when it is gone: all of them, or a sketch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from psycopg import sql

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof import rowlist, sketch
from pytest_iopbackup.proof.columns import PER_WORD, column_word, group_hash, word_count
from pytest_iopbackup.proof.keyform import PIECE
from pytest_iopbackup.proof.readers import Shared
from pytest_iopbackup.proof.rowhash import hashed
from pytest_iopbackup.proof.rowlist import RowList
from pytest_iopbackup.proof.rowset import RowSet, Table, digest, row_hashes, row_set, sums
from pytest_iopbackup.proof.session import Cursor
from pytest_iopbackup.proof.sketch import Peeled, Sketch
from pytest_iopbackup.proof.sketching import ROW_WORD, Layout, layout, row_hash, take_sketch

Content = Sketch | RowList

SMALL = 2 << 20
"""Bytes of a table that is read as if all its rows fitted: at most 65,000 rows, some 3 MB on their way to the client.

If they do not fit, it is read once more."""

MOST = 100_000
"""Rows that are listed, where few were expected: 5 to 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A table's row set, and what is kept of its rows."""

    rows: RowSet
    layout: Layout
    content: Content


def take(cursor: Cursor, table: Table, size: int, shared: Shared | None) -> Taken:
    """Read a table of ``size`` bytes: once if it is small, otherwise once for the digest and once for the rest.

    ``shared`` is for others that may help with the rest. Raises ProofError if what is kept has not as many rows.
    """
    how = layout(table, 0)
    if size <= SMALL:
        rows, listed = _digest_and_list(cursor, table, how)
        if how == (how := layout(table, rows.rows)):
            return _whole(Taken(rows=rows, layout=how, content=listed))
    else:
        rows = digest(cursor, table)
        how = layout(table, rows.rows)
    return _whole(Taken(rows=rows, layout=how, content=take_as(cursor, table, how, shared)))


def take_as(cursor: Cursor, table: Table, how: Layout, shared: Shared | None = None) -> Content:
    """Read a table once, as another was; of one that has to be listed and has too many rows, ``MOST`` and one more."""
    if how.shape is not None:
        return take_sketch(cursor, table, how, how.shape, shared)
    every, names = _hashes(table, how)
    query = sql.SQL("SELECT {} FROM (SELECT * FROM ({}) AS every LIMIT {}) AS rows{}").format(
        _listed(how), every, sql.Literal(MOST + 1), names
    )
    row = cursor.execute(query, binary=True).fetchone()
    return RowList(how.widths, (row and row[0]) or b"")


def load(how: Layout, content: bytes) -> Content:
    """Read back what was kept; ValueError if it is nothing of this layout."""
    return RowList.load(how.widths, content) if how.shape is None else Sketch.load(how.shape, content)


def nothing(how: Layout) -> Content:
    """Return what is kept of a table without rows."""
    return RowList(how.widths, b"") if how.shape is None else Sketch.of(how.shape)


def subtract(expected: Content, actual: Content) -> Peeled:
    """Name the rows that are in only one of two, taken in the same layout."""
    if isinstance(expected, Sketch) and isinstance(actual, Sketch):
        return sketch.peel(expected, actual)
    if isinstance(expected, RowList) and isinstance(actual, RowList):
        return rowlist.subtract(expected, actual)
    raise ValueError("a list and a sketch cannot be subtracted")


def row_number(table: Table, how: Layout) -> tuple[sql.Composable, sql.Composable]:
    """Return the row's hash over ``t``, and the number over ``rows.h`` that an :class:`sketch.Entry` calls ``row``."""
    if how.shape is None:
        return row_hashes(table)[0], sql.SQL("rows.h")
    return row_hash(table, how), ROW_WORD


def _whole(taken: Taken) -> Taken:
    if taken.content.rows != taken.rows.rows:
        raise ProofError(
            f"{taken.rows.table} has {taken.rows.rows} rows, but {taken.content.rows} were kept of the same snapshot",
            hint="capture the state again; if it stays so, report it",
        )
    return taken


def _digest_and_list(cursor: Cursor, table: Table, how: Layout) -> tuple[RowSet, RowList]:
    """Read a table once for both."""
    row = cursor.execute(_digest_and_list_query(table, how), binary=True).fetchone()
    assert row is not None  # an aggregate without GROUP BY gives one row
    count, first, second, content = row
    return row_set(table, count, first, second), RowList(how.widths, content or b"")


@lru_cache(maxsize=1024)
def _digest_and_list_query(table: Table, how: Layout) -> bytes:
    """Return the query, once: to write it takes longer than to run it on a small table, and marks read all of them."""
    query = sql.SQL("SELECT {}, {} FROM ({}) AS rows{}").format(sums("h", "h2"), _listed(how), *_hashes(table, how))
    return query.as_bytes(None)


def _hashes(table: Table, how: Layout) -> tuple[sql.Composed, sql.Composable]:
    """Return a query of all rows' hashes and what their words need, and its columns' names."""
    groups = [group_hash(table, group) for group in how.columns]
    words = [column_word(groups[start : start + PER_WORD]) for start in range(0, len(groups), PER_WORD)]
    keys = how.key.given()
    names = [*(f"k{n}" for n in range(len(keys))), *(f"c{n}" for n in range(len(words))), "h", "h2"]
    return hashed(table, (*keys, *words)), sql.SQL(f"({', '.join(names)})")


def _listed(how: Layout) -> sql.Composable:
    """Return an aggregate over ``rows`` of their bytes, of as many as ``how.widths`` says."""
    sent: list[sql.Composable] = [sql.SQL("pg_catalog.int8send(rows.h)")]
    for word in how.key.words():
        if word.bits == 64:
            form = "pg_catalog.int8send({})"
        elif not how.key.columns and not how.key.absent:
            form = f"pg_catalog.substr(pg_catalog.int8send({{}}), {9 - PIECE})"
        else:
            form = "pg_catalog.substr(pg_catalog.bit_send({}), 5)"  # behind the length
        sent.append(sql.SQL(form).format(word.expression))
    sent += [sql.SQL(f"pg_catalog.int8send(rows.c{number})") for number in range(word_count(how.columns))]
    return sql.SQL("pg_catalog.string_agg({}, ''::bytea)").format(sql.SQL(" || ").join(sent))
