"""One table, read in ranges of blocks by several connections: what comes out is what one connection gives."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proof_server import server

from clusters import Server
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof import localise, ranges, readers
from pytest_iopbackup.proof.readers import Shared, share
from pytest_iopbackup.proof.rowset import Table, user_tables
from pytest_iopbackup.proof.session import Cursor, reading
from pytest_iopbackup.proof.sketch import Sketch
from pytest_iopbackup.proof.sketching import layout
from pytest_iopbackup.proof.taking import Content, take, take_as

__all__ = ["server"]

pytestmark = pytest.mark.integration

ROWS = 9000
SOURCE = f"""
CREATE TABLE keyed (id integer PRIMARY KEY, v text);
INSERT INTO keyed SELECT n, 'v' || n FROM generate_series(1, {ROWS}) AS n;
CREATE TABLE bare (v text, n integer);
INSERT INTO bare SELECT 'row ' || n % 4000, n % 4000 FROM generate_series(1, {ROWS}) AS n;
"""


@pytest.fixture(scope="module")
def database(server: Server) -> Server:
    with server.connect() as connection:
        connection.execute(SOURCE)
    return server


@pytest.fixture
def connection(database: Server) -> Iterator[psycopg.Connection[Any]]:
    with database.connect() as connection:
        yield connection


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[ranges.Blocks]:
    """Have three connections for the smallest table; return the ranges that are read, as they are."""
    read: list[ranges.Blocks] = []
    real = ranges.ranges

    def noted(blocks: int, count: int) -> list[ranges.Blocks]:
        read.extend(real(blocks, count))
        return real(blocks, count)

    monkeypatch.setattr(ranges, "WORTH", 0)
    monkeypatch.setattr(ranges, "processors", lambda: 3)
    monkeypatch.setattr(ranges, "ranges", noted)
    return read


def table(cursor: Cursor, name: str) -> Table:
    return next(table for table in user_tables(cursor) if table.name == f"public.{name}")


def sketched(cursor: Cursor, name: str, shared: Shared | None) -> Content:
    here = table(cursor, name)
    return take_as(cursor, here, layout(here, ROWS), shared)


@pytest.mark.parametrize("name", ["keyed", "bare"])
def test_a_sketch_in_parts_is_the_same(
    connection: psycopg.Connection[Any], database: Server, three: list[ranges.Blocks], name: str
) -> None:
    with reading(connection) as cursor:
        shared = share(connection)
        with database.connect() as other:
            other.execute(f"INSERT INTO {name} (v) SELECT 'new'" if name == "bare" else "INSERT INTO keyed VALUES (-1)")
        alone, parted = sketched(cursor, name, None), sketched(cursor, name, shared)
        assert len(three) == 3
        assert isinstance(alone, Sketch)
        assert alone == parted
        assert parted.rows == ROWS  # what was written since is not in the snapshot
    with database.connect() as other:
        other.execute("DELETE FROM keyed WHERE id < 0")
        other.execute("DELETE FROM bare WHERE v = 'new'")


def test_a_part_that_is_left_out_is_noticed(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, three: list[ranges.Blocks]
) -> None:
    with reading(connection) as cursor:
        shared, here = share(connection), table(cursor, "keyed")
        assert take(cursor, here, 1 << 30, shared).content.rows == ROWS
        monkeypatch.setattr(ranges, "ranges", lambda *_: [three[0], three[2]])
        with pytest.raises(ProofError, match=f"has {ROWS} rows, but \\d+ were kept"):
            take(cursor, here, 1 << 30, shared)


def test_behind_a_lock_one_connection_reads_all(
    connection: psycopg.Connection[Any], database: Server, monkeypatch: pytest.MonkeyPatch, three: list[ranges.Blocks]
) -> None:
    monkeypatch.setattr(readers, "LOCK", "1ms")
    with reading(connection) as cursor:
        shared, before = share(connection), sketched(cursor, "keyed", None)
        cursor.execute("SELECT FROM public.keyed LIMIT 1")  # its lock is kept, and somebody waits for it alone

        def lock() -> None:
            with database.connect() as other, other.transaction():
                other.execute("LOCK TABLE keyed IN ACCESS EXCLUSIVE MODE")

        waiter = threading.Thread(target=lock)
        waiter.start()
        with database.connect() as watching:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            deadline = time.monotonic() + 10
            while watching.execute(waiting).fetchall() != [(1,)]:
                assert time.monotonic() < deadline
        assert sketched(cursor, "keyed", shared) == before
    waiter.join(10)
    assert len(three) == 3


def test_differences_by_several_connections_a_side(
    connection: psycopg.Connection[Any], database: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = ranges.spread

    def noted(*arguments: Any) -> Any:
        asked.append(len(arguments[2]))
        return real(*arguments)

    monkeypatch.setattr(localise, "MANY", 0)
    monkeypatch.setattr(localise, "processors", lambda: 6)
    monkeypatch.setattr(localise, "spread", noted)
    with database.connect() as source:
        source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        source.execute("SELECT 1")
        connection.execute("UPDATE keyed SET v = 'changed' WHERE id IN (3, 4500, 9000)")
        connection.execute("DELETE FROM keyed WHERE id = 77")
        found = localise.differences_between(source, connection, "public.keyed")
        connection.execute("UPDATE keyed SET v = 'v' || id")
        connection.execute("INSERT INTO keyed VALUES (77, 'v77')")
    assert (found.changed.total, found.missing.total, found.unexpected.total) == (3, 1, 0)
    assert asked  # the side that is idle; the other one has a snapshot of its own, which is not shared
    assert set(asked) == {3}


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_each_block_is_in_one_range(blocks: int, count: int) -> None:
    parts = ranges.ranges(blocks, count)
    assert len(parts) == count
    assert [part.first for part in parts] == [0, *(part.after for part in parts[:-1])]
    assert parts[-1].after is None
    assert all(part.after is None or part.first <= part.after for part in parts)
