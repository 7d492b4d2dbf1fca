"""Which columns of a row changed: a few bits of a hash for each column, kept in the words of a sketch.

A column that did not change is never named. One that did goes unnamed with a chance of 2**-8; if no bits differ at
all, the row is named without columns. Of more than ``MOST`` columns several share their bits, and are named as a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from psycopg import sql

from pytest_iopbackup.proof.rowset import Table, row_hashes

BITS = 8
PER_WORD = 64 // BITS
MOST = 2 * PER_WORD
"""Groups of columns, at most."""

Group = tuple[str, ...]


def groups(columns: Sequence[str], most: int = MOST) -> tuple[Group, ...]:
    """Spread columns over at most ``most`` groups, in order and evenly."""
    count = min(len(columns), most)
    return tuple(tuple(columns[len(columns) * n // count : len(columns) * (n + 1) // count]) for n in range(count))


def word_count(parts: Sequence[Group]) -> int:
    """Return how many words of 64 bits the groups take."""
    return -(-len(parts) // PER_WORD)


def group_hash(table: Table, group: Group) -> sql.Composable:
    """Return the hash of a row of these columns alone, over a row ``t``: 64 bits, and blind to nothing.

    Columns that are gone are left out, so that the group shows as changed.
    """
    kept = [number for number, (name, _) in enumerate(table.columns) if name in group]
    part = replace(table, columns=tuple(table.columns[n] for n in kept), kinds=tuple(table.kinds[n] for n in kept))
    return row_hashes(part)[0]


def column_word(hashes: Sequence[sql.Composable]) -> sql.Composable:
    """Return the word of up to ``PER_WORD`` groups: of each group's hash the bits in its place."""
    pieces = []
    for place, hashed in enumerate(hashes):
        mask = ((1 << BITS) - 1) << BITS * place
        signed = mask - (1 << 64) if mask >= 1 << 63 else mask
        pieces.append(sql.SQL("({} & {})").format(hashed, sql.SQL(f"'{signed}'::bigint")))
    return sql.SQL(" # ").join(pieces)


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
