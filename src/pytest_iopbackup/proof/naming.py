"""The rows that differ from those of a mark, named from what was kept: the source may be gone."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from psycopg import sql

from pytest_iopbackup.proof.columns import differing, group_text
from pytest_iopbackup.proof.difference import EXAMPLES, readable, readable_values
from pytest_iopbackup.proof.keyform import Name, column_types, key_text
from pytest_iopbackup.proof.readers import Shared
from pytest_iopbackup.proof.redact import hidden
from pytest_iopbackup.proof.rowset import Table, lines
from pytest_iopbackup.proof.session import Cursor
from pytest_iopbackup.proof.sketch import Entry, Peeled
from pytest_iopbackup.proof.sketching import Layout
from pytest_iopbackup.proof.taking import MOST, Content, nothing, row_number, subtract, take_as
from pytest_iopbackup.proven import Differing


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The rows that differ, of one table."""

    missing: Differing = field(default_factory=Differing)
    unexpected: Differing = field(default_factory=Differing)
    changed: Differing = field(default_factory=Differing)
    more_than: int | None = None
    """Where they are too many to be named: more rows than this differ. Nothing is said in which way."""


@dataclass(frozen=True, slots=True)
class _Row:
    name: Name
    columns: tuple[int, ...]
    entry: Entry


def name_differences(
    cursor: Cursor,
    expected: Content,
    how: Layout,
    here: Table | None,
    *,
    redact: bool = False,
    shared: Shared | None = None,
) -> Named:
    """Compare a table with what was kept of it at the mark; ``here`` is None if it is gone. One scan of the table.

    ``shared`` is for others that may help with that.
    Rows that are there are looked up if their name did not fit: one more scan.
    """
    if here is None:
        actual, read_as = nothing(how), how
    else:
        read_as = _readable_here(how, here)
        actual = take_as(cursor, here, read_as, shared)
    if how.shape is None and actual.rows > MOST:
        return Named(more_than=MOST - expected.rows)
    found = subtract(expected, actual)
    if found.left:
        return _too_many(found, expected.rows, actual.rows)
    gone = [_row(entry, how) for entry in found.entries if entry.count > 0]
    come = [_row(entry, read_as) for entry in found.entries if entry.count < 0]
    known = _looked_up(cursor, here, read_as, come) if here else {}
    return _named(gone, come, known, how, redact=redact)


def name_unexpected(cursor: Cursor, table: Table, rows: int, *, redact: bool = False) -> Named:
    """Name the rows of a table of which none was expected: the first ones."""
    source = lines(cursor, table, table.key)
    try:
        keys = [readable(line.rpartition(b"\t")[0], table.key) for line in islice(source, EXAMPLES)]
    finally:
        source.close()
    return Named(unexpected=Differing(total=rows, examples=tuple(hidden(key) if redact else key for key in keys)))


def _readable_here(how: Layout, here: Table) -> Layout:
    """Return the layout with a key that this table has: the captured one's columns may be gone, or of another type."""
    for columns in (how.key.columns, here.key):
        if how.key.fits(columns, column_types(here)):
            return replace(how, key=replace(how.key, columns=columns))
    return replace(how, key=replace(how.key, absent=True))


def _too_many(found: Peeled, expected: int, actual: int) -> Named:
    if not actual:
        return Named(missing=Differing(total=expected))
    # A changed row is two entries.
    return Named(more_than=max(-(-found.least // 2), abs(expected - actual)) - 1)


def _row(entry: Entry, how: Layout) -> _Row:
    key, columns = how.split(entry.words)
    return _Row(how.key.name(key), columns, entry)


def _named(gone: Sequence[_Row], come: Sequence[_Row], known: Mapping[int, str], how: Layout, *, redact: bool) -> Named:
    """Pair what went and what came by key: that is a changed row."""
    partners: dict[tuple[int, ...], list[_Row]] = defaultdict(list)
    for row in come if how.key.columns else ():
        partners[row.name.key].append(row)
    missing: list[str] = []
    changed: list[str] = []
    paired: set[int] = set()
    for row in gone:
        if partners[row.name.key]:
            other = partners[row.name.key].pop()
            paired.add(other.entry.row)
            bits = [a ^ b for a, b in zip(row.columns, other.columns, strict=True)]
            columns = ", ".join(group_text(group) for group in differing(how.columns, bits))
            name = _shown(known.get(other.entry.row, row.name.text), redact=redact)
            changed.append(f"{name} ({columns})" if columns else name)
        else:
            missing += [_shown(row.name.text, redact=redact)] * row.entry.count
    unexpected = [
        name
        for row in come
        if row.entry.row not in paired
        for name in [_shown(known.get(row.entry.row, row.name.text), redact=redact)] * -row.entry.count
    ]
    return Named(missing=_differing(missing), unexpected=_differing(unexpected), changed=_differing(changed))


def _shown(name: str, *, redact: bool) -> str:
    return hidden(name) if redact else name


def _differing(names: Iterable[str]) -> Differing:
    ordered = sorted(names, key=_natural)
    return Differing(total=len(ordered), examples=tuple(ordered[:EXAMPLES]))


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Return what sorts ``id=9`` before ``id=10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _looked_up(cursor: Cursor, here: Table, how: Layout, rows: Sequence[_Row]) -> dict[int, str]:
    """Return the full names of rows that are there and did not fit into the sketch, by the row's word."""
    wanted = [row.entry.row for row in rows if not row.name.whole]
    if not wanted:
        return {}
    columns = here.key if how.key.absent else how.key.columns
    name = (
        key_text(columns)
        if columns
        else sql.SQL("pg_catalog.json_build_array(pg_catalog.left(t::pg_catalog.text, 200))")
    )
    row_hash, word = row_number(here, how)
    query = sql.SQL(
        "SELECT {word}, (SELECT {name} FROM ONLY {table} AS t WHERE t.ctid = rows.place) "
        "FROM (SELECT {hash} AS h, t.ctid AS place FROM ONLY {table} AS t OFFSET '0'::bigint) AS rows "
        "WHERE {word} = ANY ({wanted}::bigint[])"
    ).format(
        word=word,
        name=name,
        table=sql.SQL(here.name),
        hash=row_hash,
        wanted=sql.Literal([row - (1 << 64) if row >= 1 << 63 else row for row in wanted]),
    )
    return {
        word % (1 << 64): readable_values(json.loads(text) if isinstance(text, str) else text, columns)
        for word, text in cursor.execute(query).fetchall()
    }
