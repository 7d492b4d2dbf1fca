"""The rows that differ between two databases that are both at hand, from buckets down to rows, columns and values.

A physical copy keeps rows where they were. So the first buckets are ranges of blocks: one scan of each side, both at
once, gives a digest for each, by the fast tier if both sides have it: rows of one image are equal. Of those that differ
the blocks are compared, and of these the rows, by the portable tier. Where most buckets
differ the tables are no physical copies of each other; then rows are put into buckets by a hash of their key, or of
their whole content if there is no key.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

from psycopg import sql
from psycopg.pq import TransactionStatus

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.buckets import (
    block_buckets,
    content_buckets,
    image_buckets,
    rows_of_blocks,
    rows_of_content,
)
from pytest_iopbackup.proof.difference import EXAMPLES, Difference, difference, plain, readable_values
from pytest_iopbackup.proof.naming import Named
from pytest_iopbackup.proof.ranges import count_blocks, spread
from pytest_iopbackup.proof.readers import Shared, processors, share
from pytest_iopbackup.proof.redact import hidden
from pytest_iopbackup.proof.rowset import Table, user_tables
from pytest_iopbackup.proof.session import Connection, Cursor, reading
from pytest_iopbackup.proof.tiers import fast, meaning
from pytest_iopbackup.proven import Differing

T = TypeVar("T")
Buckets = dict[int, tuple[int, int, int]]
"""Of each bucket that has rows: how many, and the sums of their two hashes."""

WIDTH = 4
"""Blocks in a bucket, at least."""

MOST = 20_000
"""Buckets by blocks, about: a bigger table has wider ones, so that memory stays bounded."""

CONTENT_BUCKETS = 1 << 15

FEW = 64
"""So many buckets that differ are looked into in any case."""

MANY = 1000
"""Buckets that are worth another connection."""

SHOWN = 40
"""Longest value shown, in characters."""


@dataclass(frozen=True, slots=True)
class _Side:
    cursor: Cursor
    table: Table
    shared: Shared | None

    def blocks(self, firsts: Sequence[int], width: int, *, images: bool = False) -> Buckets:
        """Return the digests of so many blocks from each of ``firsts`` on, by half of the processors.

        Of ``images``, if this side's connection has the fast tier's functions.
        """

        def ask(cursor: Cursor, part: Sequence[int]) -> Buckets:
            if not images:
                return _buckets(cursor, block_buckets(self.table, part, width))
            with nullcontext() if cursor is self.cursor else fast(cursor):
                return _buckets(cursor, image_buckets(self.table, part, width))

        count = processors() // 2 if self.shared is not None and len(firsts) > MANY else 1
        if self.shared is None or count < 2:
            return ask(self.cursor, firsts)
        return dict(ChainMap(*spread(self.cursor, self.shared, [firsts[n::count] for n in range(count)], ask)))

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

    def unequal(self, question: Callable[[_Side], Buckets]) -> tuple[list[int], int]:
        """Return the buckets that differ, and how many there are."""
        there, here = self.ask(question)
        every = there.keys() | here.keys()
        return sorted(bucket for bucket in every if there.get(bucket) != here.get(bucket)), len(every)

    def difference(self, query: Callable[[Table], sql.Composed]) -> Difference:
        return difference(*self.ask(lambda side: side.lines(query(side.table))))


def differences_between(source: Connection, restored: Connection, name: str, *, redact: bool = False) -> Named:
    """Compare one table of two databases; ``name`` is ``schema.table``.

    To compare with a snapshot of the source, import it on ``source`` (REPEATABLE READ) first; idle connections each
    take one of their own. On a side that is a superuser's and no standby, temporary functions are made and rolled back;
    elsewhere nothing is written. ``redact`` hides keys and values. Raises ProofError where a side cannot be read or has
    no such table.
    """
    idle = [connection.info.transaction_status == TransactionStatus.IDLE for connection in (source, restored)]
    with (
        reading(source, writable=True) as there,
        reading(restored, writable=True) as here,
        ThreadPoolExecutor(2) as pool,
    ):
        shared = [share(side) if own else None for side, own in zip((source, restored), idle, strict=True)]
        sides = (_side(there, name, "source", shared[0]), _side(here, name, "restored database", shared[1]))
        pair = _Pair(sides, pool)
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


def _side(cursor: Cursor, name: str, which: str, shared: Shared | None) -> _Side:
    for table in user_tables(cursor):
        if table.name == name and table.skipped is None:
            return _Side(cursor, table, shared)
    raise ProofError(
        f"the {which} has no table {name} with rows of its own",
        hint="give schema.table; of a partitioned table, give a partition",
    )


def _by_blocks(pair: _Pair) -> Difference | None:
    """Compare ranges of blocks, then blocks, then rows; None where so much differs that it is no physical copy."""
    blocks = max(pair.ask(lambda side: count_blocks(side.cursor, side.table)[0]))
    width = max(WIDTH, blocks // MOST)
    with fast(pair.sides[0].cursor) as there, fast(pair.sides[1].cursor) as here:
        alike = there is not None and here is not None and there.made_with == here.made_with
        images = alike and len({meaning(side.table) for side in pair.sides}) == 1
        firsts, every = pair.unequal(lambda side: side.blocks(range(0, blocks, width), width, images=images))
    if len(firsts) > max(FEW, every // 2):
        return None
    suspects = [block for first in firsts for block in range(first, first + width)]
    differing, _ = pair.unequal(lambda side: side.blocks(suspects, 1))
    return pair.difference(lambda table: rows_of_blocks(table, pair.sides[0].table.key, differing))


def _by_content(pair: _Pair) -> Difference:
    key = pair.sides[0].table.key
    buckets, _ = pair.unequal(lambda side: _buckets(side.cursor, content_buckets(side.table, key, CONTENT_BUCKETS)))
    return pair.difference(lambda table: rows_of_content(table, key, CONTENT_BUCKETS, buckets))


def _buckets(cursor: Cursor, query: sql.Composed) -> Buckets:
    found = ((bucket, [int(number) for number in sums if number is not None]) for bucket, sums in cursor.execute(query))
    return {bucket: (numbers[0], numbers[1], numbers[2]) for bucket, numbers in found if numbers[0]}


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
