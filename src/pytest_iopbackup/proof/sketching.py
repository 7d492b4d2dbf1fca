"""Taking a sketch of a table: one scan, grouped on the server, of which only the cells come to the client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from psycopg import sql

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.columns import PER_WORD, Group, column_word, group_hash, groups, word_count
from pytest_iopbackup.proof.keyform import PIECE, KeyForm, column_types, key_form
from pytest_iopbackup.proof.ranges import WHOLE, Blocks, in_ranges
from pytest_iopbackup.proof.readers import Shared
from pytest_iopbackup.proof.rowset import Table, row_hashes
from pytest_iopbackup.proof.session import Cursor, value
from pytest_iopbackup.proof.sketch import CHECK, ID_MASK, LARGEST, SLICE, Shape, Sketch, cell_bytes, hash_uint32

BUDGET = 199_000
"""Bytes that are kept of a table, at most."""

CELL = 64
"""Bytes of a cell, at most: 3,072 of these fit."""

SMALLEST = 128
"""Cells of a subtable at least: with fewer, two rows would often share all three."""

_SIZES = ((1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2))
"""Which subtables have 2,048 cells (1), and which half as many (2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is kept of each row; kept with it, for the other side has to be read the same way."""

    shape: Shape | None
    """Of a sketch; None where all rows fit one by one."""
    key: KeyForm
    columns: tuple[Group, ...]
    """Columns beside the key, each with bits of its own, or several together."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Bytes of a row that is kept by itself: of its hash, and of each word."""
        return (8, *(bits // 8 for bits in self.key.bits), *(8,) * word_count(self.columns))

    def split(self, words: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Part an entry's words into those of the key and those of the columns."""
        return words[: len(self.key.bits)], words[len(self.key.bits) :]


def layout(table: Table, rows: int) -> Layout:
    """Choose a layout for a table of so many rows: a list of them where it is no larger than a sketch may be."""
    parts = groups([name for name, _ in table.columns if name not in table.key]) if table.key else ()
    additive = not table.key
    column_bytes = [8] * word_count(parts)
    fixed = (4, 10 if additive else 8)  # 10: a row's word with its sign, 32,767 times
    form = key_form(table.key, column_types(table), CELL - sum(fixed) - sum(column_bytes))
    listed = Layout(shape=None, key=form, columns=parts)
    if rows * sum(listed.widths) <= BUDGET:
        return listed
    key_bytes = [PIECE + 2 if additive else bits // 8 for bits in form.bits]
    widths = (*fixed, *key_bytes, *column_bytes)
    sizes = next(
        sizes
        for halves in _SIZES
        if sum(sizes := tuple(LARGEST // half for half in halves)) * sum(widths) <= BUDGET or halves == _SIZES[-1]
    )
    enough = max(SMALLEST, 1 << (rows * 9 // 10).bit_length())  # for all of its rows, changed: 2 / 0.74 cells a row
    shape = Shape(sizes=tuple(min(size, enough) for size in sizes), widths=widths, additive=additive)
    return replace(listed, shape=shape)


def take_sketch(cursor: Cursor, table: Table, how: Layout, shape: Shape, shared: Shared | None = None) -> Sketch:
    """Read a table once; ``shape`` is the layout's. Of a large table parts are read by others that see ``shared``.

    Raises ProofError where the server hashes otherwise than we do.
    """
    probe = value(cursor, f"SELECT pg_catalog.hashint4extended({CHECK}, {ID_MASK})") % (1 << 64)
    if probe != hash_uint32(CHECK, ID_MASK):
        raise ProofError(
            "this server's hashint4extended is not the one that a sketch is read with",
            hint="PostgreSQL 14 to 18 are supported; report this server's version",
        )
    parts = in_ranges(cursor, table, shared, lambda other, blocks: _take(other, table, how, shape, blocks))
    return reduce(Sketch.plus, parts)


def _take(cursor: Cursor, table: Table, how: Layout, shape: Shape, blocks: Blocks) -> Sketch:
    words = [ROW_WORD, *(word.expression for word in how.key.words())]
    words += [sql.SQL(f"rows.c{number}") for number in range(word_count(how.columns))]
    places = _places(shape)
    combined = sql.SQL("pg_catalog.sum({})" if shape.additive else "pg_catalog.bit_xor({})")
    cells = sql.SQL("SELECT coalesce({}) AS place, pg_catalog.count(*) AS n, {} FROM ({}) AS rows GROUP BY {}").format(
        sql.SQL(", ").join(
            sql.SQL("{} + {}").format(place, sql.Literal(sum(shape.sizes[:number])))
            for number, place in enumerate(places)
        ),
        sql.SQL(", ").join(combined.format(word) + sql.SQL(f" AS w{number}") for number, word in enumerate(words)),
        rows_with_words(table, how, blocks),
        sql.SQL("GROUPING SETS (({}), ({}), ({}))").format(*places),
    )
    sent = " || ".join(
        _sent(number, bits, additive=shape.additive)
        for number, bits in enumerate((64, *how.key.bits, *(64,) * word_count(how.columns)))
    )
    query = sql.SQL(
        "SELECT pg_catalog.string_agg(pg_catalog.int4send(cells.place::int) || pg_catalog.int4send(cells.n::int)"
        f" || {sent}, ''::bytea) FROM ({{}}) AS cells"
    ).format(cells)
    row = cursor.execute(query, binary=True).fetchone()
    return Sketch.of(shape, _received(shape, row[0] if row and row[0] else b""))


SUM = 26
"""Characters of a sum as it is sent: 2**63 for each of 2**15 rows, with sign, has fewer."""


def _sent(number: int, bits: int, *, additive: bool) -> str:
    if additive:
        return f"pg_catalog.convert_to(pg_catalog.lpad(cells.w{number}::text, {SUM}), 'UTF8')"
    if bits == 64:
        return f"pg_catalog.int8send(cells.w{number})"
    return f"pg_catalog.substr(pg_catalog.bit_send(cells.w{number}), 5)"  # behind the length


def _received(shape: Shape, content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the cells that are not empty, each with its place."""
    widths = shape.widths
    length = 8 + SUM * (len(widths) - 1) if shape.additive else 4 + sum(widths)
    for start in range(0, len(content), length):
        place, cell = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + length]
        if shape.additive:
            count = int.from_bytes(cell[:4], "big")
            sums = [int(cell[at : at + SUM]) for at in range(4, len(cell), SUM)]
            cell = cell_bytes((count, *sums), widths)
        yield place, cell


def rows_with_words(table: Table, how: Layout, blocks: Blocks = WHOLE) -> sql.Composed:
    """Return a query of a table's rows: their hash ``h``, what the key's words need, and the columns' words.

    The hash is made of those of the columns, so that each value is hashed once. OFFSET keeps the planner from
    merging the queries, which would hash it many times.
    """
    parts = [group_hash(table, group) for group in how.columns]
    keys = how.key.given()
    inside = [_rest_hash(table, how), *parts] if parts else [row_hashes(table)[0]]
    inner = sql.SQL("SELECT {} FROM ONLY {} AS t{} OFFSET '0'::bigint").format(
        sql.SQL(", ").join(
            [
                *(expression + sql.SQL(f" AS g{number}") for number, expression in enumerate(inside)),
                *(expression + sql.SQL(f" AS k{number}") for number, expression in enumerate(keys)),
            ]
        ),
        sql.SQL(table.name),
        blocks.where,
    )
    if not parts:
        return sql.SQL("SELECT * FROM ({}) AS r(h{})").format(
            inner, sql.SQL("".join(f", k{number}" for number in range(len(keys))))
        )
    hashes = [sql.SQL(f"r.g{number}") for number in range(len(inside))]
    words = [column_word(hashes[start : start + PER_WORD]) for start in range(1, len(hashes), PER_WORD)]
    return sql.SQL("SELECT {} FROM ({}) AS r OFFSET '0'::bigint").format(
        sql.SQL(", ").join(
            [
                _combined(hashes) + sql.SQL(" AS h"),
                *(sql.SQL(f"r.k{number}") for number in range(len(keys))),
                *(word + sql.SQL(f" AS c{number}") for number, word in enumerate(words)),
            ]
        ),
        inner,
    )


def row_hash(table: Table, how: Layout) -> sql.Composable:
    """Return the hash that :func:`rows_with_words` calls ``h``, as one expression over a row ``t``."""
    parts = [group_hash(table, group) for group in how.columns]
    return _combined([_rest_hash(table, how), *parts]) if parts else row_hashes(table)[0]


def _rest_hash(table: Table, how: Layout) -> sql.Composable:
    """Return the hash of all columns that are in no group: the key, and columns that the captured table had not."""
    grouped = {name for group in how.columns for name in group}
    return group_hash(table, tuple(name for name, _ in table.columns if name not in grouped))


def _combined(hashes: Sequence[sql.Composable]) -> sql.Composable:
    """Mix hashes, each in its own way, so that values that change places are seen; and once more, for xor is linear."""
    mixed = [
        sql.SQL(f"pg_catalog.hashint4extended({number}, {{}})").format(hashed) for number, hashed in enumerate(hashes)
    ]
    return sql.SQL(f"pg_catalog.hashint4extended({len(hashes)}, {{}})").format(sql.SQL(" # ").join(mixed))


_ID = f"(rows.h & {ID_MASK})"
ROW_WORD = sql.SQL(f"({_ID} | (pg_catalog.hashint4extended({CHECK}, {_ID}) & {~ID_MASK}))")
"""The row's word, as :func:`sketch.row_word` computes it, over ``rows``."""


def _places(shape: Shape) -> list[sql.Composable]:
    """Return each subtable's cell of a row, as :meth:`Shape.places` has them."""
    return [
        sql.SQL(f"((rows.h >> {SLICE * number}) & {size - 1})" if number else f"(rows.h & {size - 1})")
        for number, size in enumerate(shape.sizes)
    ]
