"""Taking a sketch of a table: one scan, grouped on the server, of which only the cells come to the client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.columns import PER_WORD, Group, column_word, group_hash, groups, word_count
from pytest_iopbackup.proof.keyform import PIECE, KeyForm, column_types, key_form
from pytest_iopbackup.proof.rowset import Table, row_hashes
from pytest_iopbackup.proof.session import Cursor, value
from pytest_iopbackup.proof.sketch import CHECK, ID_MASK, LARGEST, SLICE, Shape, Sketch, hash_uint32

BUDGET = 199_000
"""Bytes of a sketch before compression, which random numbers do not yield to."""

CELL = 64
"""Bytes of a cell, at most: 3,072 of these fit."""

ROWS_PER_BLOCK = 512
"""More than fit into a block of 8 KiB; a small table gets a smaller sketch."""

BLOCKS = """
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
       pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
"""

_SIZES = ((1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2))
"""Which subtables have 2,048 cells (1), and which half as many (2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the cells of a table's sketch hold; kept with it, for the other side has to be read the same way."""

    shape: Shape
    key: KeyForm
    columns: tuple[Group, ...]
    """Columns beside the key, each with bits of its own, or several together."""

    def split(self, words: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Part an entry's words into those of the key and those of the columns."""
        return words[: len(self.key.bits)], words[len(self.key.bits) :]


def table_blocks(cursor: Cursor) -> dict[str, int]:
    """Return the size of every table, by its qualified name."""
    return dict(cursor.execute(BLOCKS).fetchall())


def layout(table: Table, blocks: int) -> Layout:
    """Choose a layout for a table as it is now; ``blocks`` is its size."""
    parts = groups([name for name, _ in table.columns if name not in table.key]) if table.key else ()
    additive = not table.key
    column_bytes = [8] * word_count(parts)
    fixed = (4, 10 if additive else 8)  # 10: a row's word with its sign, 32,767 times
    form = key_form(table.key, column_types(table), CELL - sum(fixed) - sum(column_bytes))
    key_bytes = [PIECE + 2 if additive else bits // 8 for bits in form.bits]
    widths = (*fixed, *key_bytes, *column_bytes)
    sizes = next(
        sizes
        for halves in _SIZES
        if sum(sizes := tuple(LARGEST // half for half in halves)) * sum(widths) <= BUDGET or halves == _SIZES[-1]
    )
    enough = 1 << (ROWS_PER_BLOCK * max(blocks, 1) - 1).bit_length()
    shape = Shape(sizes=tuple(min(size, enough) for size in sizes), widths=widths, additive=additive)
    return Layout(shape=shape, key=form, columns=parts)


def take_sketch(cursor: Cursor, table: Table, how: Layout) -> Sketch:
    """Read a table once. Raises ProofError where the server hashes otherwise than we do."""
    probe = value(cursor, f"SELECT pg_catalog.hashint4extended({CHECK}, {ID_MASK})") % (1 << 64)
    if probe != hash_uint32(CHECK, ID_MASK):
        raise ProofError(
            "this server's hashint4extended is not the one that a sketch is read with",
            hint="PostgreSQL 14 to 18 are supported; report this server's version",
        )
    words = how.key.words()
    numbers = [
        *((word.expression, word.bits) for word in words),
        *((sql.SQL(f"rows.c{number}"), 64) for number in range(word_count(how.columns))),
    ]
    places = _places(how.shape)
    ways = sql.SQL("pg_catalog.sum({})::pg_catalog.text" if how.shape.additive else "pg_catalog.bit_xor({})")
    query = sql.SQL(
        "SELECT coalesce({place}), pg_catalog.count(*), {numbers} FROM ({rows}) AS rows GROUP BY GROUPING SETS ({sets})"
    ).format(
        place=sql.SQL(", ").join(
            sql.SQL("{} + {}").format(place, sql.Literal(sum(how.shape.sizes[:number])))
            for number, place in enumerate(places)
        ),
        numbers=sql.SQL(", ").join(ways.format(number) for number in (ROW_WORD, *(number for number, _ in numbers))),
        rows=rows_with_words(table, how),
        sets=sql.SQL(", ").join(sql.SQL("({})").format(place) for place in places),
    )
    base = (10, 10, *(2 if bits > 64 else 10 for _, bits in numbers))
    moduli = [1 << 8 * width for width in how.shape.widths]
    cursor.execute(query)
    return Sketch.of(
        how.shape,
        (
            (
                place,
                [
                    int(str(number), digits) % modulus
                    for number, digits, modulus in zip(cell, base, moduli, strict=True)
                ],
            )
            for place, *cell in cursor
        ),
    )


def rows_with_words(table: Table, how: Layout) -> sql.Composed:
    """Return a query of a table's rows: their hash ``h``, what the key's words need, and the columns' words.

    The hash is made of those of the columns, so that each value is hashed once. ``OFFSET 0`` keeps the planner from
    merging the queries, which would hash it many times.
    """
    parts = [group_hash(table, group) for group in how.columns]
    keys = how.key.given()
    inside = [_rest_hash(table, how), *parts] if parts else [row_hashes(table)[0]]
    inner = sql.SQL("SELECT {} FROM ONLY {} AS t OFFSET '0'::bigint").format(
        sql.SQL(", ").join(
            [
                *(expression + sql.SQL(f" AS g{number}") for number, expression in enumerate(inside)),
                *(expression + sql.SQL(f" AS k{number}") for number, expression in enumerate(keys)),
            ]
        ),
        sql.SQL(table.name),
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
