"""Which columns of a row changed: a few bits of a hash for each column, kept in the words of a sketch.

A column that did not change is never named. One that did goes unnamed with a chance of 2**-8; if no bits differ at
all, the row is named without columns. Of more than ``MOST`` columns several share their bits, and are named as a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from pytest_iopbackup.proof.rowset import Table
from pytest_iopbackup.proof.session import Cursor

BITS = 8
PER_WORD = 64 // BITS
MOST = 2 * PER_WORD
"""Groups of columns, at most."""

SEED = 0x3C6EF372

Group = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What the catalogs say of a table beside :class:`rowset.Table`."""

    types: Mapping[str, str]
    """Of each column the built-in type (of a domain, the one beneath), or an empty text."""
    sends: Mapping[str, str]
    """Of each column the function that gives its type's binary form, quoted; an empty text without one."""
    blocks: int


DESCRIBED = """
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), a.columns,
       CASE WHEN c.relkind IN ('r', 'm')
            THEN pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint ELSE 0 END
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attname,
        CASE WHEN b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace THEN b.typname ELSE '' END,
        CASE WHEN b.typsend = 0 THEN '' ELSE pg_catalog.format('%I.%I', s.nspname, p.proname) END)) AS columns
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_type AS b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
    LEFT JOIN pg_catalog.pg_proc AS p ON p.oid = b.typsend
    LEFT JOIN pg_catalog.pg_namespace AS s ON s.oid = p.pronamespace
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
) AS a
WHERE c.relkind IN ('r', 'm') AND n.nspname <> 'pg_toast'
  AND (c.oid >= 16384 OR c.oid IN ('pg_catalog.pg_largeobject'::pg_catalog.regclass,
                                   'pg_catalog.pg_largeobject_metadata'::pg_catalog.regclass))
"""


def describe_tables(cursor: Cursor) -> dict[str, Described]:
    """Return the columns' types and the size of every table, by its qualified name."""
    return {
        name: Described(
            types={column: kind for column, kind, _ in columns or ()},
            sends={column: send for column, _, send in columns or ()},
            blocks=blocks,
        )
        for name, columns, blocks in cursor.execute(DESCRIBED).fetchall()
    }


def groups(columns: Sequence[str], most: int = MOST) -> tuple[Group, ...]:
    """Spread columns over at most ``most`` groups, in order and evenly."""
    count = min(len(columns), most)
    return tuple(tuple(columns[len(columns) * n // count : len(columns) * (n + 1) // count]) for n in range(count))


def column_words(parts: Sequence[Group], table: Table, described: Described) -> list[sql.Composable]:
    """Return expressions over a row ``t``, 64 bits each: ``BITS`` of every group's hash, each in its place.

    A group whose columns are gone counts as empty, so that it shows as changed.
    """
    there = dict(table.columns)
    words: list[sql.Composable] = []
    for start in range(0, len(parts), PER_WORD):
        pieces = []
        for place, group in enumerate(parts[start : start + PER_WORD]):
            present = [name for name in group if name in there]
            if present:
                mask = ((1 << BITS) - 1) << BITS * place
                mask -= 1 << 64 if mask >= 1 << 63 else 0
                hashed = _hash(present, there, described, SEED + start + place)
                pieces.append(sql.SQL("({} & {}::bigint)").format(hashed, sql.Literal(str(mask))))
        words.append(sql.SQL(" # ").join(pieces) if pieces else sql.SQL("0::bigint"))
    return words


def differing(parts: Sequence[Group], words: Sequence[int]) -> tuple[Group, ...]:
    """Return the groups whose bits are not all zero in the xor of two rows' words."""
    return tuple(
        group
        for number, group in enumerate(parts)
        if words[number // PER_WORD] >> BITS * (number % PER_WORD) & (1 << BITS) - 1
    )


def group_text(group: Group) -> str:
    """Return a group's name: a column's, or the first and the last."""
    return group[0] if len(group) == 1 else f"one of {group[0]} … {group[-1]}"


def _hash(names: Sequence[str], casts: Mapping[str, str | None], described: Described, seed: int) -> sql.Composable:
    """Return a 64-bit hash of one column, or of several, that is blind to nothing that a row's digest sees."""
    number = sql.Literal(seed)
    if len(names) == 1 and (name := names[0]):
        column, kind, send = sql.SQL("t.{}").format(sql.Identifier(name)), described.types[name], described.sends[name]
        null = sql.SQL("coalesce({}, {}::bigint)")
        if kind in {"int2", "int4", "bool"}:
            return null.format(sql.SQL("pg_catalog.hashint4extended({}::integer, {})").format(column, number), number)
        if kind == "int8":  # as the seed, for as the value its halves would be folded into one
            return null.format(sql.SQL("pg_catalog.hashint4extended({}, {})").format(number, column), number)
        if kind in {"text", "varchar"}:
            text = sql.SQL('{}::pg_catalog.text COLLATE "C"').format(column)
            return null.format(sql.SQL("pg_catalog.hashtextextended({}, {})").format(text, number), number)
        if send and not casts[name]:
            image = sql.SQL("{}({})").format(sql.SQL(send), column)
            return sql.SQL("pg_catalog.hash_record_extended(ROW({}), {})").format(image, number)
    columns = sql.SQL(", ").join(
        sql.SQL("t.{}").format(sql.Identifier(name)) + sql.SQL(f"::pg_catalog.{casts[name]}" if casts[name] else "")
        for name in names
    )
    return sql.SQL("pg_catalog.hash_record_extended(ROW(pg_catalog.record_send(ROW({}))), {})").format(columns, number)
