"""Constraints asked of the rows themselves: each that PostgreSQL has promised is validated again, by reading.

Nothing is taken from an index, for an index may be what is wrong, and nothing is changed: NOT NULL, CHECK, domains and
partition bounds are asked in one scan of each table, foreign keys and uniqueness by a query each.
Exclusion constraints are built anew on a temporary copy, which goes with the transaction. Read so, the number of rows
against a constraint can be told, and a standby can be asked; ``VALIDATE CONSTRAINT`` tells of the first, writes, and
locks writers out. Constraints that are NOT VALID, or NOT ENFORCED, promise nothing: they are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import groupby

import psycopg

from pytest_iopbackup.proof.catalog import excerpts
from pytest_iopbackup.proof.examined import Examined
from pytest_iopbackup.proof.session import Cursor, says_damaged, says_of_rows, says_unknown, value, words
from pytest_iopbackup.proven import Finding

_HEAP_ONLY = {
    "enable_indexscan": "off",
    "enable_bitmapscan": "off",
    "enable_nestloop": "off",  # without an index it would be a scan per row
    "constraint_exclusion": "off",  # it takes a constraint's word for what the rows are
}
_AT_ONCE = 400
"""Predicates in one scan; a query has at most 1,664 columns, and each takes two."""
_VALUE = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|\bVALUE\b""")
"""A literal or a quoted name, which stays, or the word for a domain's value; quotes inside quotes are doubled."""

OWN = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p'))"
"""Whether the database has a table that initdb did not make."""

# Types with a domain somewhere inside: their input functions check it. The domain at the top has predicates.
NESTED = """
WITH RECURSIVE parts (type, part, inside) AS (
    SELECT DISTINCT a.atttypid, a.atttypid, false
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.oid >= 16384 AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
  UNION
    SELECT parts.type, inner_type.oid, parts.inside OR t.typtype <> 'd'
    FROM parts
    JOIN pg_type AS t ON t.oid = parts.part
    CROSS JOIN LATERAL (
        SELECT t.typbasetype AS oid
        UNION ALL SELECT t.typelem
        UNION ALL SELECT a.atttypid FROM pg_attribute AS a
                  WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    ) AS inner_type
    WHERE inner_type.oid <> 0
)
SELECT format('%I.%I', n.nspname, c.relname), format('%I', a.attname), format_type(a.atttypid, a.atttypmod)
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relkind = 'r' AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped
  AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())
  AND EXISTS (SELECT FROM parts JOIN pg_type AS t ON t.oid = parts.part
              WHERE parts.type = a.atttypid AND parts.inside AND t.typtype = 'd')
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class _Promise:
    """A constraint on single rows; ``against`` is true of a row that does not satisfy it."""

    table: str
    name: str
    definition: str
    against: str


@dataclass(slots=True)
class _Found:
    count: int = 0
    findings: list[Finding] = field(default_factory=list)
    omissions: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, name: str, definition: str, actual: str) -> None:
        expected, _ = excerpts(definition, "")
        self.findings.append(Finding(kind=kind, name=name, expected=expected, actual=actual))

    def judge(self, kind: str, name: str, definition: str, row: Sequence[object]) -> None:
        """Note the rows against it, if there are any: how many, and where one of them is."""
        if row[0]:
            rows = "1 row against it, at" if row[0] == 1 else f"{row[0]} rows against it, one at"
            self.add(kind, name, definition, f"{rows} {row[1]}")

    def trouble(self, kind: str, name: str, definition: str, error: psycopg.Error) -> None:
        """Note what an error says: of rows that cannot be read, or an expression that cannot be computed."""
        if says_unknown(error):
            self.omissions[f"{kind} {name}"] = words(error)
            self.count -= 1
        else:
            self.add(kind, name, definition, words(error))


def verify_constraints(cursor: Cursor) -> Examined:
    """Ask every constraint of the database's tables; ``cursor`` is of :func:`session.scratch`."""
    found = _Found()
    if not value(cursor, OWN):
        return Examined()
    for name, setting in _HEAP_ONLY.items():
        cursor.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, setting))
    for _, promises in groupby(_promises(cursor, found), key=lambda promise: promise.table):
        for some in _batches(list(promises)):
            _ask_rows(cursor, some, found)
    _ask_nested(cursor, found)
    _ask_keys(cursor, found)
    return Examined(constraints=found.count, findings=tuple(found.findings), omissions=found.omissions)


def _query(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _promises(cursor: Cursor, found: _Found) -> Iterator[_Promise]:
    for table, name, definition, against, inside in cursor.execute(_query("constraints.sql")).fetchall():
        if against is None:
            unenforced = "NOT ENFORCED" in definition
            found.omissions[f"constraint {name}"] = "NOT ENFORCED" if unenforced else "NOT VALID"
        else:
            yield _Promise(table, name, definition, against if inside is None else with_value(against, inside))


def with_value(predicate: str, value: str) -> str:
    """Put ``value`` where a domain's predicate says VALUE."""
    return _VALUE.sub(lambda match: match[1] or value, predicate)


def _batches(promises: list[_Promise]) -> Iterator[list[_Promise]]:
    return (promises[start : start + _AT_ONCE] for start in range(0, len(promises), _AT_ONCE))


def _ask_rows(cursor: Cursor, promises: Sequence[_Promise], found: _Found) -> None:
    found.count += len(promises)
    try:
        _scan(cursor, promises, found)
    except psycopg.Error as error:
        _reraise_other(error)
        if says_damaged(error):
            found.add("table", promises[0].table, "readable", words(error))
            return
        for promise in promises:  # one by one, to know which
            _ask_row(cursor, promise, found)


def _ask_row(cursor: Cursor, promise: _Promise, found: _Found) -> None:
    try:
        _scan(cursor, [promise], found)
    except psycopg.Error as error:
        _reraise_other(error)
        found.trouble("constraint", promise.name, promise.definition, error)


def _scan(cursor: Cursor, promises: Sequence[_Promise], found: _Found) -> None:
    counts = (f"count(*) FILTER (WHERE {p.against}), min(ctid::text) FILTER (WHERE {p.against})" for p in promises)
    some = " OR ".join(f"({promise.against})" for promise in promises)
    row = _first(cursor, f"SELECT {', '.join(counts)} FROM ONLY {promises[0].table} WHERE {some}")
    for place, promise in enumerate(promises):
        found.judge("constraint", promise.name, promise.definition, row[2 * place : 2 * place + 2])


def _ask_nested(cursor: Cursor, found: _Found) -> None:
    for table, column, kind in cursor.execute(NESTED).fetchall():
        found.count += 1
        name, promise = f"{table}.{column}", f"values of type {kind}, and of the domains in it"
        try:
            _first(cursor, f"SELECT count({column}::text::{kind}) FROM ONLY {table}")
        except psycopg.Error as error:
            _reraise_other(error)
            found.trouble("constraint", name, promise, error)


def _ask_keys(cursor: Cursor, found: _Found) -> None:
    for kind, table, name, definition, query, why in cursor.execute(_query("keys.sql")).fetchall():
        told = "index" if kind == "index" else "constraint"
        if why is not None:
            found.omissions[f"{told} {name}"] = why
            continue
        found.count += 1
        try:
            if kind == "exclusion":
                _build(cursor, table, definition)
            else:
                found.judge(told, name, definition, _first(cursor, query))
        except psycopg.Error as error:
            _reraise_other(error)
            found.trouble(told, name, definition, error)


def _build(cursor: Cursor, table: str, definition: str) -> None:
    """Build the constraint on a copy of the table, in a savepoint that is rolled back."""
    with cursor.connection.transaction(force_rollback=True):
        cursor.execute(f"CREATE TEMPORARY TABLE iop_copy (LIKE {table}) ON COMMIT DROP")
        cursor.execute(f"INSERT INTO pg_temp.iop_copy SELECT * FROM ONLY {table}")
        cursor.execute(f"ALTER TABLE pg_temp.iop_copy ADD {definition}")


def _first(cursor: Cursor, query: str) -> Sequence[object]:
    """Return the row that a query gives.

    A function in a constraint may need the search_path that it was made with: where a name is not found, the query is
    asked again with the database's own.
    """
    try:
        with cursor.connection.transaction():
            return cursor.execute(query).fetchone() or ()
    except psycopg.Error as error:
        if not says_unknown(error):
            raise
    with cursor.connection.transaction():
        cursor.execute("SET LOCAL search_path TO DEFAULT")
        row = cursor.execute(query).fetchone() or ()
        cursor.execute("SET LOCAL search_path TO ''")
    return row


def _reraise_other(error: psycopg.Error) -> None:
    if not says_of_rows(error):
        raise error
