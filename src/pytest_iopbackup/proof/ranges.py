"""One table, read in ranges of blocks by several connections in one snapshot: for queries without a parallel plan.

PostgreSQL has none for grouping sets, nor, up to release 18, for TID range scans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from psycopg import sql

from pytest_iopbackup.proof.readers import WORTH, Shared, joined, processors
from pytest_iopbackup.proof.session import Cursor, value
from pytest_iopbackup.proof.tables import Table

T = TypeVar("T")
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of a table: from ``first`` on, up to but without ``after``; None is its end."""

    first: int = 0
    after: int | None = None

    @property
    def where(self) -> sql.Composable:
        """A condition over a row ``t``, for a TID range scan; nothing for the whole table."""
        bounds = [f"t.ctid >= '({self.first},0)'::pg_catalog.tid"] if self.first else []
        if self.after is not None:
            bounds.append(f"t.ctid < '({self.after},0)'::pg_catalog.tid")
        return sql.SQL(" WHERE " + " AND ".join(bounds) if bounds else "")


WHOLE = Blocks()


def count_blocks(cursor: Cursor, table: Table) -> tuple[int, int]:
    """Return how many blocks a table has, and the bytes of one."""
    sizes = "ARRAY[pg_catalog.pg_relation_size({}::pg_catalog.regclass), pg_catalog.current_setting('block_size')::int]"
    size, block = value(cursor, "SELECT " + sql.SQL(sizes).format(sql.Literal(table.name)).as_string(cursor))
    return size // block, block


def ranges(blocks: int, count: int) -> list[Blocks]:
    """Part so many blocks into ``count`` ranges of the same length; the last one has no end."""
    bounds = [blocks * number // count for number in range(count)]
    return [Blocks(first, after) for first, after in zip(bounds, [*bounds[1:], None], strict=True)]


def in_ranges(cursor: Cursor, table: Table, shared: Shared | None, ask: Callable[[Cursor, Blocks], T]) -> list[T]:
    """Ask of each range of a table, by as many connections as there are processors; return the answers.

    By ``cursor`` alone where the table is small or there is no snapshot to share.
    """
    if shared is None or processors() == 1:
        return [ask(cursor, WHOLE)]
    blocks, block = count_blocks(cursor, table)
    if blocks * block < WORTH:
        return [ask(cursor, WHOLE)]
    return spread(cursor, shared, ranges(blocks, processors()), ask)


def spread(cursor: Cursor, shared: Shared, parts: Sequence[P], ask: Callable[[Cursor, P], T]) -> list[T]:
    """Ask of each part, the first by ``cursor``, each other by a connection of its own; return the answers in order.

    A part whose connection would wait for a lock is left to ``cursor``, too: that may hold the lock, while somebody
    waits for it alone.
    """
    first, *others = parts

    def elsewhere(part: P) -> list[T]:
        with joined(shared) as other:
            try:
                return [ask(other, part)]
            except psycopg.errors.LockNotAvailable:
                return []

    with ThreadPoolExecutor(max(len(others), 1), thread_name_prefix="iop-range") as pool:
        started = [pool.submit(elsewhere, part) for part in others]
        found = [ask(cursor, first)]
        answers = [answer.result() for answer in started]
    for part, answer in zip(others, answers, strict=True):
        found += answer or [ask(cursor, part)]
    return found
