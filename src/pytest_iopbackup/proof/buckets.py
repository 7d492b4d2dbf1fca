"""Queries that digest a table in parts, and give the rows of some of them.

A bucket's digest is how many rows it has and the sums of their two hashes. Ranges of blocks are read by TID range
scans, which PostgreSQL has since 14; it uses them in a scalar sub-select, not in a lateral join.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from pytest_iopbackup.proof.columns import group_hash
from pytest_iopbackup.proof.keyform import key_text
from pytest_iopbackup.proof.rowhash import hashed
from pytest_iopbackup.proof.rowset import Table, row_hashes
from pytest_iopbackup.proof.tiers import IMAGE_HASHES, images

_SUMS = "ARRAY[pg_catalog.count(*), pg_catalog.sum(rows.h1), pg_catalog.sum(rows.h2)]::pg_catalog.numeric[]"

_PER_FIRST = "SELECT b.first, (SELECT {} FROM ({{}}) AS rows) FROM pg_catalog.unnest({{}}::bigint[]) AS b(first)"


def _blocks(width: int) -> sql.SQL:
    """Return a condition over ``t``: its block is one of ``width`` from ``b.first`` on."""
    return sql.SQL(
        " WHERE t.ctid >= pg_catalog.format('(%s,0)', b.first)::pg_catalog.tid "
        f"AND t.ctid < pg_catalog.format('(%s,0)', b.first + {width})::pg_catalog.tid"
    )


def block_buckets(table: Table, firsts: Sequence[int], width: int) -> sql.Composed:
    """Return a query of one digest for each ``width`` blocks from one of ``firsts`` on."""
    return sql.SQL(_PER_FIRST.format(_SUMS)).format(hashed(table, where=_blocks(width)), sql.Literal(list(firsts)))


def image_buckets(table: Table, firsts: Sequence[int], width: int) -> sql.Composed:
    """Return the same for the fast tier: of the rows as the server holds them."""
    first, second = IMAGE_HASHES
    sums = f"ARRAY[pg_catalog.count(*), pg_catalog.sum({first}), pg_catalog.sum({second})]::pg_catalog.numeric[]"
    rows = images(table.name, _blocks(width))
    return sql.SQL(_PER_FIRST.format(sums)).format(rows, sql.Literal(list(firsts)))


def rows_of_blocks(table: Table, key: tuple[str, ...], blocks: Sequence[int]) -> sql.Composed:
    """Return a query of arrays of lines, key TAB hashes, one array for each block."""
    return sql.SQL(
        "SELECT (SELECT pg_catalog.array_agg({}) FROM ONLY {} AS t{}) FROM pg_catalog.unnest({}::bigint[]) AS b(first)"
    ).format(_line(table, key), sql.SQL(table.name), _blocks(1), sql.Literal(list(blocks)))


def content_buckets(table: Table, key: tuple[str, ...], count: int) -> sql.Composed:
    """Return a query of one digest for each of ``count`` buckets by the hash of the key, or of the row."""
    if not key:
        return sql.SQL(f"SELECT rows.h1 & {count - 1}, {_SUMS} FROM ({{}}) AS rows GROUP BY 1").format(hashed(table))
    return sql.SQL(f"SELECT rows.b0, {_SUMS} FROM ({{}}) AS rows GROUP BY 1").format(
        hashed(table, (_place(table, key, count),))
    )


def rows_of_content(table: Table, key: tuple[str, ...], count: int, buckets: Sequence[int]) -> sql.Composed:
    """Return a query of lines, each in an array of its own, of these buckets."""
    return sql.SQL("SELECT ARRAY[{}] FROM ONLY {} AS t WHERE {} = ANY ({}::bigint[])").format(
        _line(table, key), sql.SQL(table.name), _place(table, key, count), sql.Literal(list(buckets))
    )


def _place(table: Table, key: tuple[str, ...], count: int) -> sql.Composed:
    hashed_by = group_hash(table, key) if key else row_hashes(table)[0]
    return sql.SQL(f"({{}} & {count - 1})").format(hashed_by)


def _line(table: Table, key: tuple[str, ...]) -> sql.Composed:
    """Return a row's line over ``t``: its key as JSON, or the beginning of the row, TAB, and its hashes."""
    name = (
        key_text(key)
        if key
        else sql.SQL("pg_catalog.json_build_array(pg_catalog.left(t::pg_catalog.text, 200))::pg_catalog.text")
    )
    first, second = row_hashes(table)
    return sql.SQL("{} || E'\\t' || {} || ' ' || {}").format(name, first, second)
