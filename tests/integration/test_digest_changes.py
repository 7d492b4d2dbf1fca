"""No single change of a table goes unseen, whatever its types: generated tables, both tiers.

``IOP_EXAMPLES`` says how many (300; the change that was wanted once is 10,000).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from changes import KINDS, TYPES, Kind
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from clusters import new_server
from pytest_iopbackup.proof.rowset import digest, user_tables
from pytest_iopbackup.proof.session import Connection, Cursor, reading
from pytest_iopbackup.proof.tables import Table
from pytest_iopbackup.proof.tiers import fast

pytestmark = pytest.mark.integration

EXAMPLES = int(os.environ.get("IOP_EXAMPLES", "300"))

Rows = list[list[str | None]]
Digest = Callable[[Table], object]


@dataclass(frozen=True)
class Change:
    """A table before and after one change: values as PostgreSQL reads them."""

    types: tuple[str, ...]
    before: Rows
    after: Rows
    way: str


@st.composite
def changes(draw: st.DrawFn) -> Change:
    kinds: list[Kind] = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    raw = [[draw(st.none() | kind.values) for kind in kinds] for _ in range(draw(st.integers(1, 3)))]
    row, place = draw(st.integers(0, len(raw) - 1)), draw(st.integers(0, len(kinds) - 1))
    changed = [list(values) for values in raw]
    way = draw(st.sampled_from(["value", "value", "value", "null", "lost", "doubled", "swapped"]))
    if way == "value":
        old = raw[row][place]
        kind = kinds[place]
        changed[row][place] = draw(kind.values if old is None else kind.near(old) | kind.values)
    elif way == "null":
        changed[row][place] = None
    elif way == "lost":
        del changed[row]
    elif way == "doubled":
        changed.append(list(raw[row]))
    else:  # two rows swap a value
        other = draw(st.integers(0, len(raw) - 1))
        changed[row][place], changed[other][place] = raw[other][place], raw[row][place]
    return Change(tuple(kind.type for kind in kinds), _written(raw, kinds), _written(changed, kinds), way)


def _written(rows: Sequence[Sequence[Any]], kinds: Sequence[Kind]) -> Rows:
    return [[None if v is None else k.write(v) for v, k in zip(row, kinds, strict=True)] for row in rows]


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with new_server() as server, server.connect() as made:
        made.execute(TYPES)
        yield made


def test_no_change_goes_unseen(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with reading(connection) as cursor, fast(cursor) as tier:
            assert tier is not None

            _try(cursor, (partial(digest, cursor), tier.digest))


@pytest.mark.parametrize(
    ("hashes", "blind_to"),
    [
        (lambda names: [f"concat({', '.join(names)})"], {"value", "null", "swapped"}),  # where a column begins
        (lambda names: names, {"swapped"}),  # which values are of one row
        (lambda names: names[:1], {"value", "null", "swapped"}),  # all other columns
    ],
    ids=["run together", "each column", "first column"],
)
def test_a_naive_digest_is_found_out(
    connection: Connection, hashes: Callable[[list[str]], list[str]], blind_to: set[str]
) -> None:
    """The generator's own sabotage."""
    tried: list[Change] = []

    def naive(cursor: Cursor, table: Table) -> tuple[object, ...] | None:
        hashed = hashes([f'"{name}"::text' for name, _ in table.columns])
        sums = ", ".join(f"sum(hashtextextended({one}, 0))" for one in hashed)
        return cursor.execute(f"SELECT count(*), {sums} FROM public.t").fetchone()

    with connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with reading(connection) as cursor, pytest.raises(AssertionError, match="unseen"):
            _try(cursor, (partial(naive, cursor),), tried)
    assert tried[-1].way in blind_to


def _try(cursor: Cursor, digests: Sequence[Digest], tried: list[Change] | None = None) -> None:
    phases = (Phase.generate,) if tried is not None else tuple(Phase)

    @settings(
        max_examples=EXAMPLES, phases=phases, derandomize=tried is not None, suppress_health_check=list(HealthCheck)
    )
    @given(changes())
    def seen(change: Change) -> None:
        event(change.way)
        if tried is not None:
            tried.append(change)
        with cursor.connection.transaction(force_rollback=True):
            _look(cursor, digests, change)

    seen()


def _look(cursor: Cursor, digests: Sequence[Digest], change: Change) -> None:
    table = _made(cursor, change.types)
    _fill(cursor, change.types, change.before)
    before, again = [take(table) for take in digests], _images(cursor, table)
    _fill(cursor, change.types, change.before[::-1])
    assert [take(table) for take in digests] == before, "the order of rows counts"
    _fill(cursor, change.types, change.after)
    after, differs = [take(table) for take in digests], _images(cursor, table) != again
    assert [mine != theirs for mine, theirs in zip(before, after, strict=True)] == [differs] * len(digests), "unseen"


def _made(cursor: Cursor, types: Sequence[str]) -> Table:
    columns = ", ".join(f'"c {number}" {_qualified(kind)}' for number, kind in enumerate(types))
    cursor.execute(f"CREATE TABLE public.t ({columns})")
    return next(table for table in user_tables(cursor) if table.name == "public.t")


def _fill(cursor: Cursor, types: Sequence[str], rows: Rows) -> None:
    cursor.execute("DELETE FROM public.t")
    casts = ", ".join(f"%s::{_qualified(kind).partition(' COLLATE')[0]}" for kind in types)
    cursor.executemany(f"INSERT INTO public.t VALUES ({casts})", rows)


def _images(cursor: Cursor, table: Table) -> list[tuple[Any, ...]]:
    """What is stored, without any hash: the rows' text, and their binary form where each type has one that says all."""
    binary = "NULL" if any(cast for _, cast in table.columns) else "pg_catalog.record_send(t.*)"
    lossy = "".join(f', "{name}"::{cast}' for name, cast in table.columns if cast)
    cursor.execute(f"SELECT (t.*)::text, {binary}{lossy} FROM public.t")
    return sorted(cursor.fetchall(), key=str)


def _qualified(kind: str) -> str:
    ours = ("mood_of", "mood", "pair", "age", "name_of", "numbers")
    name, bracket, rest = kind.partition("[")
    name = name.replace("caseless", "public.caseless")
    return (f"public.{name}" if name in ours else name) + bracket + rest
