"""The rows that differ between two databases that are both at hand, from buckets down to rows, columns and values.

A physical copy keeps rows where they were. So the first buckets are ranges of blocks: one scan of each side, both at
once, gives a digest for each; of those that differ the blocks are compared, and of these the rows. Where most buckets
differ the tables are no physical copies of each other; then rows are put into buckets by a hash of their key, or of
their whole content if there is no key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from psycopg import sql

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.buckets import (
    block_buckets,
    content_buckets,
    rows_of_blocks,
    rows_of_content,
    single_blocks,
)
from pytest_iopbackup.proof.difference import EXAMPLES, Difference, difference, plain, readable_values
from pytest_iopbackup.proof.naming import Named
from pytest_iopbackup.proof.redact import hidden
from pytest_iopbackup.proof.rowset import Table, user_tables
from pytest_iopbackup.proof.session import Connection, Cursor, reading, value
from pytest_iopbackup.proven import Differing

T = TypeVar("T")
Buckets = dict[int, tuple[int, int, int]]
"""Of each bucket that has rows: how many, and the sums of their two hashes."""

WIDTH = 16
"""Blocks in a bucket, at least."""

MOST = 20_000
"""Buckets by blocks, about: a bigger table has wider ones, so that memory stays bounded."""

CONTENT_BUCKETS = 1 << 15

FEW = 64
"""So many buckets that differ are looked into in any case."""

SHOWN = 40
"""Longest value shown, in characters."""


@dataclass(frozen=True, slots=True)
class _Side:
    cursor: Cursor
    table: Table

    def buckets(self, query: sql.Composed) -> Buckets:
        return {
            bucket: (int(count), int(first), int(second))
            for bucket, count, first, second in self.cursor.execute(query)
            if count
        }

    def lines(self, query: sql.Composed) -> Iterator[bytes]:
        return (line.encode() for (some,) in self.cursor.stream(query) for line in some or ())


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both sides, asked at the same time."""

    sides: tuple[_Side, _Side]
    pool: Executor

    def ask(self, question: Callable[[_Side], T]) -> tuple[T, T]:
        first, second = self.pool.map(question, self.sides)
        return first, second

    def unequal(self, query: Callable[[Table], sql.Composed]) -> tuple[list[int], int]:
        """Return the buckets that differ, and how many there are."""
        there, here = self.ask(lambda side: side.buckets(query(side.table)))
        every = there.keys() | here.keys()
        return sorted(bucket for bucket in every if there.get(bucket) != here.get(bucket)), len(every)

    def difference(self, query: Callable[[Table], sql.Composed]) -> Difference:
        return difference(*self.ask(lambda side: side.lines(query(side.table))))


def differences_between(source: Connection, restored: Connection, name: str, *, redact: bool = False) -> Named:
    """Compare one table of two databases; ``name`` is ``schema.table``.

    To compare with a snapshot of the source, import it on ``source`` (REPEATABLE READ) first; idle connections each
    take one of their own. ``redact`` hides keys and values. Raises ProofError where a side cannot be read or has no
    such table.
    """
    with reading(source) as there, reading(restored) as here, ThreadPoolExecutor(2) as pool:
        pair = _Pair((_side(there, name, "source"), _side(here, name, "restored database")), pool)
        found = _by_blocks(pair) or _by_content(pair)
        key = pair.sides[0].table.key
        return Named(
            missing=_named(found.missing, key, redact=redact),
            unexpected=_named(found.unexpected, key, redact=redact),
            changed=Differing(
                total=len(found.changed),
                examples=tuple(_changed(pair, text, redact=redact) for text in found.changed[:EXAMPLES]),
            ),
        )


def _side(cursor: Cursor, name: str, which: str) -> _Side:
    for table in user_tables(cursor):
        if table.name == name and table.skipped is None:
            return _Side(cursor, table)
    raise ProofError(
        f"the {which} has no table {name} with rows of its own",
        hint="give schema.table; of a partitioned table, give a partition",
    )


def _by_blocks(pair: _Pair) -> Difference | None:
    """Compare ranges of blocks, then blocks, then rows; None where so much differs that it is no physical copy."""
    width = max(WIDTH, *(blocks // MOST for blocks in pair.ask(_blocks)))
    ranges, every = pair.unequal(lambda table: block_buckets(table, width))
    if len(ranges) > max(FEW, every // 2):
        return None
    suspects = [block for bucket in ranges for block in range(bucket * width, (bucket + 1) * width)]
    blocks, _ = pair.unequal(lambda table: single_blocks(table, suspects))
    return pair.difference(lambda table: rows_of_blocks(table, pair.sides[0].table.key, blocks))


def _by_content(pair: _Pair) -> Difference:
    key = pair.sides[0].table.key
    buckets, _ = pair.unequal(lambda table: content_buckets(table, key, CONTENT_BUCKETS))
    return pair.difference(lambda table: rows_of_content(table, key, CONTENT_BUCKETS, buckets))


def _blocks(side: _Side) -> int:
    blocks: int = value(
        side.cursor,
        sql.SQL("SELECT pg_catalog.pg_relation_size({}::pg_catalog.regclass) / current_setting('block_size')::int")
        .format(sql.Literal(side.table.name))
        .as_string(side.cursor),
    )
    return blocks


def _named(keys: Sequence[bytes], columns: tuple[str, ...], *, redact: bool) -> Differing:
    names = (_readable(key, columns) for key in keys[:EXAMPLES])
    return Differing(total=len(keys), examples=tuple(hidden(name) if redact else name for name in names))


def _readable(key: bytes, columns: tuple[str, ...]) -> str:
    return readable_values(json.loads(key), columns)


def _changed(pair: _Pair, key: bytes, *, redact: bool) -> str:
    """Return a changed row's name, and its columns with the value that was expected and the one found."""
    columns = pair.sides[0].table.key
    name = _readable(key, columns)
    if not columns:
        return hidden(name) if redact else name
    values = json.loads(key)
    there, here = pair.ask(lambda side: _values(side, columns, values))
    differing = [column for column in there if there[column] != here.get(column)]
    if redact:
        return f"{hidden(name)} ({', '.join(differing)})" if differing else hidden(name)
    shown = ", ".join(f"{column}: {_cut(there[column])} → {_cut(here.get(column))}" for column in differing)
    return f"{name} ({shown})" if shown else name


def _values(side: _Side, key: tuple[str, ...], values: Iterable[str]) -> dict[str, str | None]:
    """Return the text forms of one row's columns; of no row, nothing."""
    names = [name for name, _ in side.table.columns]
    query = sql.SQL("SELECT ARRAY[{}]::pg_catalog.text[] FROM ONLY {} AS t WHERE {}").format(
        sql.SQL(", ").join(sql.SQL("t.{}::pg_catalog.text").format(sql.Identifier(name)) for name in names),
        sql.SQL(side.table.name),
        sql.SQL(" AND ").join(
            sql.SQL("t.{} = {}").format(sql.Identifier(name), sql.Literal(text))
            for name, text in zip(key, values, strict=True)
        ),
    )
    row = side.cursor.execute(query).fetchone()
    return dict(zip(names, row[0], strict=True)) if row else {}


def _cut(text: str | None) -> str:
    shown = plain(text)
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"
