"""SQL that makes a row's 64-bit hashes: a typed hash of each column, combined, and mixed once more.

PostgreSQL's own extended hash functions serve equality, and equality is not identity: they are blind to numeric
``1.0`` and ``-1.0``, to ``-0``, to the upper half of a bigint, to the shape of an array. So each type gets a form that
says all that is stored:

- by a hash function that takes every bit: integers up to 32 bits, oid, "char", enum, uuid, and text under COLLATE "C";
- bigint as the *seed* of a hash of a constant, for a seed's 64 bits all count;
- jsonb and json by their text, which is exact and hashes at once; likewise types without a send function (aclitem, many
  of extensions) and xml, whose send form leaves out its declaration, also where they are inside of another type;
- all else by its send form: in one record for all such columns, hashed as a whole.

Each column and each of the two hashes has constants of its own, one of them for NULL, so that no value is like another
column's and none like NULL. The column's hashes are combined by xor, and the result becomes the seed of one last hash.
Without that the sum over rows would be blind to two rows that swap a value.

The two hashes share no state: a collision of one says nothing about the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from psycopg import sql

from pytest_iopbackup.proof.tables import Kind, Table

CHAINS = (1, 2)
"""The two hashes of a row."""

_TEXT = 'pg_catalog.hashtextextended({x} COLLATE pg_catalog."C", {seed})'

EXACT = {
    "pg_catalog.int2": "pg_catalog.hashint2extended({x}, {seed})",
    "pg_catalog.int4": "pg_catalog.hashint4extended({x}, {seed})",
    "pg_catalog.int8": "pg_catalog.hashint4extended({number}, {x})",
    "pg_catalog.oid": "pg_catalog.hashoidextended({x}, {seed})",
    'pg_catalog."char"': "pg_catalog.hashcharextended({x}, {seed})",
    "pg_catalog.uuid": "pg_catalog.uuid_hash_extended({x}, {seed})",
    "pg_catalog.text": _TEXT,
    "pg_catalog.varchar": _TEXT,
}
"""Hash functions that see every bit of a value, by type; PostgreSQL's hashfunc.c and uuid.c."""

BOOLEAN = "CASE WHEN {x} THEN {seed} WHEN {x} IS NOT NULL THEN {other} ELSE {null} END"

ENUM = "pg_catalog.hashenumextended({x}, {seed})"
"""By the label's OID, which is what is stored."""

BY_TEXT = frozenset({"pg_catalog.json", "pg_catalog.jsonb"})

AS_IT_IS = frozenset({"pg_catalog.bytea", "pg_catalog.date"})
"""Types whose own hash, as an element of a record, is exact."""


@dataclass(frozen=True, slots=True)
class _Value:
    """A column as the hash takes it: an expression over ``t``, and the template of its hash, or none for the record."""

    place: int
    expression: sql.Composable
    template: str | None


def row_hashes(table: Table) -> tuple[sql.Composable, sql.Composable]:
    """Return two expressions over a row ``t`` of the table: its two 64-bit hashes, with sign; never NULL.

    For one of them, or where the plan is not ours. For both, :func:`hashed` converts each value once only.
    """
    values = _values(table)
    record = _record(values)
    first, second = (_hash(chain, [(value, value.expression) for value in values], record) for chain in CHAINS)
    return first, second


def hashed(table: Table, before: Sequence[sql.Composable] = (), bits: int = 128) -> sql.Composed:
    """Return a query that gives, for each row of the table alone, ``before`` and its hashes ``h1`` and, of 128, ``h2``.

    ``before`` are aliased expressions over ``t``. ``OFFSET 0`` keeps the planner from merging the inner query with the
    outer one, which would make each value's text or binary form twice; parallel workers take both.
    """
    values = _values(table)
    record = _record(values)
    inside: list[sql.Composable] = [sql.SQL("{} AS {}").format(v.expression, _passed(v)) for v in values if v.template]
    if record is not None:
        inside.append(sql.SQL("{} AS r").format(record))
    names = [sql.SQL("b{}").format(sql.SQL(str(number))) for number in range(len(before))]
    inside += [sql.SQL("{} AS {}").format(item, name) for item, name in zip(before, names, strict=True)]
    pairs = [(value, sql.SQL("t.") + _passed(value)) for value in values]
    outer = [
        sql.SQL("{} AS h{}").format(
            _hash(chain, pairs, None if record is None else sql.SQL("t.r")), sql.SQL(str(chain))
        )
        for chain in CHAINS[: bits // 64]
    ]
    return sql.SQL("SELECT {} FROM (SELECT {} FROM ONLY {} AS t OFFSET '0'::bigint) AS t").format(
        sql.SQL(", ").join([*(sql.SQL("t.") + name for name in names), *outer]),
        sql.SQL(", ").join(inside),
        sql.SQL(table.name),
    )


def _passed(value: _Value) -> sql.Composable:
    return sql.SQL(f"c{value.place}")


def _values(table: Table) -> list[_Value]:
    return [
        _value(place, sql.SQL("t.{}").format(sql.Identifier(name)), cast, kind)
        for place, ((name, cast), kind) in enumerate(zip(table.columns, table.kinds, strict=True), 1)
    ]


def _value(place: int, column: sql.Composed, cast: str | None, kind: Kind) -> _Value:
    if cast == "text" or kind.type in BY_TEXT:
        return _Value(place, column + sql.SQL("::pg_catalog.text"), _TEXT)
    if cast is not None:
        return _Value(place, sql.SQL("pg_catalog.array_send({}::pg_catalog.{})").format(column, sql.SQL(cast)), None)
    if kind.domain:
        column += sql.SQL(f"::{kind.type}")  # polymorphic functions look at the type as it is called
    if kind.type == "pg_catalog.bool":
        return _Value(place, column, BOOLEAN)
    if kind.typtype == "e" or kind.type in EXACT:
        return _Value(place, column, ENUM if kind.typtype == "e" else EXACT[kind.type])
    if kind.type in AS_IT_IS:
        return _Value(place, column, None)
    if kind.send is not None:
        return _Value(place, sql.SQL(f"{kind.send}({{}})").format(column), None)
    # A send function borrowed from another type, as citext's: a record finds it by the type.
    return _Value(place, sql.SQL("pg_catalog.record_send(ROW({}))").format(column), None)


def _record(values: Sequence[_Value]) -> sql.Composable | None:
    elements = [value.expression for value in values if value.template is None]
    return sql.SQL("ROW({})").format(sql.SQL(", ").join(elements)) if elements else None


def _hash(chain: int, values: Sequence[tuple[_Value, sql.Composable]], record: sql.Composable | None) -> sql.Composable:
    """Return one of a row's hashes, of the values as the second of each pair has them."""
    parts = [_column(chain, value, x) for value, x in values if value.template is not None]
    if record is not None:
        parts.append(sql.SQL("pg_catalog.hash_record_extended({}, {})").format(record, _constant(chain, 0, "record")))
    combined = _xor(parts) if parts else _constant(chain, 0, "no columns")
    return sql.SQL("pg_catalog.hashint4extended({}, {})").format(sql.SQL(str(chain)), combined)


def _column(chain: int, value: _Value, x: sql.Composable) -> sql.Composable:
    assert value.template is not None  # told by the caller
    seed, null = _constant(chain, value.place, "seed"), _constant(chain, value.place, "null")
    hashed_value = sql.SQL(value.template).format(
        x=x, seed=seed, null=null, other=_constant(chain, value.place, "other"), number=_number(chain, value.place)
    )
    if value.template is BOOLEAN:
        return hashed_value
    return sql.SQL("coalesce({}, {})").format(hashed_value, null)


def _xor(parts: Sequence[sql.Composable]) -> sql.Composable:
    """Combine in pairs: 1,600 columns in one row of operators would be too deep for the server's stack."""
    while len(parts) > 1:
        pairs = [sql.SQL("({} # {})").format(*parts[at : at + 2]) for at in range(0, len(parts) - 1, 2)]
        parts = pairs + list(parts[len(pairs) * 2 :])
    return parts[0]


def _constant(chain: int, place: int, use: str) -> sql.Composable:
    return sql.SQL(f"'{_digest(chain, place, use, 8)}'::bigint")


def _number(chain: int, place: int) -> sql.Composable:
    return sql.SQL(f"'{_digest(chain, place, 'number', 4)}'::integer")


def _digest(chain: int, place: int, use: str, size: int) -> int:
    made = blake2b(f"{chain} {place} {use}".encode(), digest_size=size).digest()
    return int.from_bytes(made, "big", signed=True)
