"""Taking a sketch of a table: one scan, grouped on the server, of which only the cells come to the client."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.columns import Described, Group, column_words, groups
from pytest_iopbackup.proof.keyform import PIECE, KeyForm, key_form
from pytest_iopbackup.proof.rowset import Table, row_hashes
from pytest_iopbackup.proof.session import Cursor, value
from pytest_iopbackup.proof.sketch import CHECK, ID_MASK, LARGEST, SLICE, Shape, Sketch, hash_uint32

BUDGET = 199_000
"""Bytes of a sketch before compression, which random numbers do not yield to."""

CELL = 64
"""Bytes of a cell, at most: 3,072 of these fit."""

ROWS_PER_BLOCK = 512
"""More than fit into a block of 8 KiB; a small table gets a smaller sketch."""

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


def layout(table: Table, described: Described) -> Layout:
    """Choose a layout for a table as it is now."""
    parts = groups([name for name, _ in table.columns if name not in table.key]) if table.key else ()
    additive = not table.key
    column_bytes = [8] * -(-len(parts) // 8)
    fixed = (4, 10 if additive else 8)  # 10: a row's word with its sign, 32,767 times
    form = key_form(table.key, described.types, CELL - sum(fixed) - sum(column_bytes))
    key_bytes = [PIECE + 2 if additive else bits // 8 for bits in form.bits]
    widths = (*fixed, *key_bytes, *column_bytes)
    sizes = next(
        sizes
        for halves in _SIZES
        if sum(sizes := tuple(LARGEST // half for half in halves)) * sum(widths) <= BUDGET or halves == _SIZES[-1]
    )
    enough = 1 << (ROWS_PER_BLOCK * max(described.blocks, 1) - 1).bit_length()
    shape = Shape(sizes=tuple(min(size, enough) for size in sizes), widths=widths, additive=additive)
    return Layout(shape=shape, key=form, columns=parts)


def take_sketch(cursor: Cursor, table: Table, described: Described, how: Layout) -> Sketch:
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
        *((sql.SQL(f"rows.c{number}"), 64) for number in range(-(-len(how.columns) // 8))),
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
        rows=rows_with_words(table, described, how),
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


def rows_with_words(table: Table, described: Described, how: Layout) -> sql.Composed:
    """Return a query of a table's rows: their hash ``h``, what the key's words need, and the columns' words."""
    given = [
        sql.SQL("{} AS h").format(row_hashes(table)[0]),
        *(expression + sql.SQL(f" AS k{number}") for number, expression in enumerate(how.key.given())),
        *(
            expression + sql.SQL(f" AS c{number}")
            for number, expression in enumerate(column_words(how.columns, table, described))
        ),
    ]
    # OFFSET 0 keeps the planner from merging it with the query around it, which would compute each hash many times.
    return sql.SQL("SELECT {} FROM ONLY {} AS t OFFSET 0").format(sql.SQL(", ").join(given), sql.SQL(table.name))


_ID = f"(rows.h & {ID_MASK})"
ROW_WORD = sql.SQL(f"({_ID} | (pg_catalog.hashint4extended({CHECK}, {_ID}) & {~ID_MASK}))")
"""The row's word, as :func:`sketch.row_word` computes it, over ``rows``."""


def _places(shape: Shape) -> list[sql.Composable]:
    """Return each subtable's cell of a row, as :meth:`Shape.places` has them."""
    return [
        sql.SQL(f"((rows.h >> {SLICE * number}) & {size - 1})" if number else f"(rows.h & {size - 1})")
        for number, size in enumerate(shape.sizes)
    ]
