"""SQL that makes a row's 64-bit hashes: a typed hash of each column, combined, and mixed once more.

PostgreSQL's own extended hash functions serve equality, and equality is not identity. :mod:`forms` has, for each type,
a form that says all that is stored. Types without one there, arrays, ranges and composites count by their send form, in
one record for all such columns.

Each column and each of the two hashes has constants of its own, one of them for NULL, so that no value is like another
column's and none like NULL. The columns' hashes are combined by xor, and the result becomes the seed of one last hash.
Without that the sum over rows would be blind to two rows that swap a value.

The two hashes share no state: a collision of one says nothing about the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from psycopg import sql

from pytest_iopbackup.proof import forms
from pytest_iopbackup.proof.tables import Kind, Table

CHAINS = (1, 2)
"""The two hashes of a row."""

MIXED = "pg_catalog.hashint4extended({0}, {1})"
"""Of the number of the hash, and of what the columns give together."""

TARGETS = 1600
"""Columns of a query that PostgreSQL takes for sure (MaxTupleAttributeNumber is 1664)."""


EVERY = sql.SQL("")
"""The condition that each row meets."""


@dataclass(frozen=True, slots=True)
class _Value:
    """A column as the hash takes it."""

    place: int
    passed: tuple[sql.Composable, ...]
    """Expressions over ``t``, each made once per row."""
    template: str | None
    """The hash of them; none for those that go into the record."""

    @property
    def names(self) -> tuple[sql.Composable, ...]:
        return tuple(sql.SQL(f"c{self.place}_{number}") for number in range(len(self.passed)))


def row_hashes(table: Table) -> tuple[sql.Composable, sql.Composable]:
    """Return two expressions over a row ``t`` of the table: its two 64-bit hashes, with sign; never NULL.

    For one of them, or where the plan is not ours. For both, :func:`hashed` converts each value once only.
    """
    values = _values(table)
    record = _record(values)
    first, second = (_hash(chain, [(value, value.passed) for value in values], record) for chain in CHAINS)
    return first, second


def hashed(table: Table, before: Sequence[sql.Composable] = (), where: sql.Composable = EVERY) -> sql.Composed:
    """Return a query that gives, for each row of the table alone, its hashes ``h1`` and ``h2``.

    ``before`` are expressions over ``t`` that come as ``b0``, ``b1`` …, ``where`` a condition over it. OFFSET keeps the
    planner from merging the inner query with the outer one, which would make each value's text or binary form twice;
    parallel workers take both. Its zero is a constant of type bigint: that of ``OFFSET 0`` is still being cast when
    PostgreSQL decides on parallel workers, and counts as a limit that forbids them (``limit_needed`` in ``planner.c``;
    seen with EXPLAIN). A table so wide that the inner query would have too many columns goes without.
    """
    values = _values(table)
    record = _record(values)
    inside: list[sql.Composable] = [
        sql.SQL("{} AS {}").format(expression, name)
        for value in values
        if value.template is not None
        for expression, name in zip(value.passed, value.names, strict=True)
    ]
    if record is not None:
        inside.append(sql.SQL("{} AS r").format(record))
    if len(inside) + len(before) > TARGETS:
        whole = [
            sql.SQL("{} AS h{}").format(item, sql.SQL(str(chain))) for chain, item in enumerate(row_hashes(table), 1)
        ]
        named = [sql.SQL("{} AS b{}").format(item, sql.SQL(str(number))) for number, item in enumerate(before)]
        return sql.SQL("SELECT {} FROM ONLY {} AS t{}").format(
            sql.SQL(", ").join([*named, *whole]), sql.SQL(table.name), where
        )
    names = [sql.SQL("b{}").format(sql.SQL(str(number))) for number in range(len(before))]
    inside += [sql.SQL("{} AS {}").format(item, name) for item, name in zip(before, names, strict=True)]
    pairs = [(value, tuple(sql.SQL("t.") + name for name in value.names)) for value in values]
    outer = [
        sql.SQL("{} AS h{}").format(
            _hash(chain, pairs, None if record is None else sql.SQL("t.r")), sql.SQL(str(chain))
        )
        for chain in CHAINS
    ]
    return sql.SQL("SELECT {} FROM (SELECT {} FROM ONLY {} AS t{} OFFSET '0'::bigint) AS t").format(
        sql.SQL(", ").join([*(sql.SQL("t.") + name for name in names), *outer]),
        sql.SQL(", ").join(inside),
        sql.SQL(table.name),
        where,
    )


def _values(table: Table) -> list[_Value]:
    return [
        _value(place, sql.SQL("t.{}").format(sql.Identifier(name)), cast, kind)
        for place, ((name, cast), kind) in enumerate(zip(table.columns, table.kinds, strict=True), 1)
    ]


def _value(place: int, column: sql.Composed, cast: str | None, kind: Kind) -> _Value:
    if cast == "text[]":
        return _Value(place, (sql.SQL("pg_catalog.array_send({}::pg_catalog.text[])").format(column),), None)
    if cast is None and kind.domain:
        column += sql.SQL(f"::{kind.type}")  # polymorphic functions look at the type as it is called
    form = forms.form(kind, as_text=cast is not None)
    if form is not None:
        return _Value(place, tuple(sql.SQL(passed).format(x=column) for passed in form.passed), form.hash)
    if kind.type in forms.ELEMENTS:
        return _Value(place, (column,), None)
    # A send function borrowed from another type, as citext's, is not called by name: a record finds it by the type.
    sent = "pg_catalog.record_send(ROW({}))" if kind.send is None else f"{kind.send}({{}})"
    return _Value(place, (sql.SQL(sent).format(column),), None)


def _record(values: Sequence[_Value]) -> sql.Composable | None:
    elements = [value.passed[0] for value in values if value.template is None]
    return sql.SQL("ROW({})").format(sql.SQL(", ").join(elements)) if elements else None


def _hash(
    chain: int, values: Sequence[tuple[_Value, tuple[sql.Composable, ...]]], record: sql.Composable | None
) -> sql.Composable:
    """Return one of a row's hashes, of the values as the second of each pair has them."""
    parts = [_column(chain, value, x) for value, x in values if value.template is not None]
    if record is not None:
        parts.append(sql.SQL("pg_catalog.hash_record_extended({}, {})").format(record, _constant(chain, 0, "record")))
    combined = _xor(parts) if parts else _constant(chain, 0, "no columns")
    return sql.SQL(MIXED).format(sql.SQL(str(chain)), combined)


def _column(chain: int, value: _Value, passed: tuple[sql.Composable, ...]) -> sql.Composable:
    assert value.template is not None  # told by the caller
    return sql.SQL(value.template).format(
        *passed,
        **{use: _constant(chain, value.place, use) for use in ("seed", "other", "null")},
        number=sql.SQL(f"'{_digest(chain, value.place, 'number', 4)}'::integer"),
    )


def _xor(parts: Sequence[sql.Composable]) -> sql.Composable:
    """Combine in pairs: 1,600 columns in one row of operators would be too deep for the server's stack."""
    while len(parts) > 1:
        pairs = [sql.SQL("({} # {})").format(*parts[at : at + 2]) for at in range(0, len(parts) - 1, 2)]
        parts = pairs + list(parts[len(pairs) * 2 :])
    return parts[0]


def _constant(chain: int, place: int, use: str) -> sql.Composable:
    return sql.SQL(f"'{_digest(chain, place, use, 8)}'::bigint")


def _digest(chain: int, place: int, use: str, size: int) -> int:
    made = blake2b(f"{chain} {place} {use}".encode(), digest_size=size).digest()
    return int.from_bytes(made, "big", signed=True)
