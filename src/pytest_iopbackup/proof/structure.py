"""Heaps and indexes as ``amcheck`` sees them: tuples that make sense, TOAST values that are whole, indexes that agree.

Every table of a database, its TOAST table and the catalogs are checked by ``verify_heapam``; every valid B-tree index
by ``bt_index_parent_check``, for an entry of each row (``heapallindexed``) that a search from the root finds
(``rootdescend``), so an index whose collation sorts otherwise than when it was built does not pass. On a server in
recovery ``bt_index_check`` has to do, which verifies no parents. PostgreSQL 17 adds uniqueness, 18 ``gin_index_check``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pytest_iopbackup.proof.examined import Examined
from pytest_iopbackup.proof.extension import provide
from pytest_iopbackup.proof.session import Cursor, says_damaged, says_of_rows, says_unknown, value, words
from pytest_iopbackup.proven import Finding

_MOST = 1000
"""Faults of one table that are counted."""

_DESCEND = ", rootdescend => true"

HEAPS = """
SELECT c.oid, coalesce('TOAST table of ' || o.oid::pg_catalog.regclass::text,
                       pg_catalog.format('%I.%I', n.nspname, c.relname)),
       CASE WHEN m.amname <> 'heap' THEN 'access method ' || m.amname END
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
LEFT JOIN pg_catalog.pg_class AS o ON o.reltoastrelid = c.oid
WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
  AND NOT (c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery())
ORDER BY c.oid
"""

INDEXES = """
SELECT c.oid, coalesce('of TOAST table of ' || o.oid::pg_catalog.regclass::text,
                       pg_catalog.format('%I.%I', n.nspname, c.relname)),
       m.amname, i.indisvalid AND i.indisready AND i.indislive
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
LEFT JOIN pg_catalog.pg_class AS o ON o.reltoastrelid = i.indrelid
WHERE c.relkind = 'i' AND c.relpersistence <> 't'
  AND NOT (c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery())
ORDER BY c.oid
"""


@dataclass(slots=True)
class _Found:
    findings: list[Finding] = field(default_factory=list)
    omissions: dict[str, str] = field(default_factory=dict)


def verify_structure(cursor: Cursor) -> Examined:
    """Check all heaps and indexes of the database; ``cursor`` is of :func:`session.scratch`."""
    amcheck = provide(cursor, "amcheck")
    if amcheck.schema is None:
        return Examined(omissions={"heaps and indexes": amcheck.missing})
    found = _Found()
    heaps = _heaps(cursor, found)
    _verify_heaps(cursor, amcheck.schema, heaps, found)
    count = 0
    for check, indexes in _index_checks(cursor, amcheck.schema, found).items():
        _verify_indexes(cursor, check, indexes, found)
        count += len(indexes)
    return Examined(tables=len(heaps), indexes=count, findings=tuple(found.findings), omissions=found.omissions)


def _heaps(cursor: Cursor, found: _Found) -> Mapping[int, str]:
    rows = cursor.execute(HEAPS).fetchall()
    found.omissions.update({f"table {name}": why for _, name, why in rows if why})
    return {oid: name for oid, name, why in rows if not why}


def _verify_heaps(cursor: Cursor, schema: str, heaps: Mapping[int, str], found: _Found) -> None:
    query = (
        "SELECT c.oid, fault.* FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL ("
        "    SELECT blkno, offnum, attnum, msg"
        f"    FROM {schema}.verify_heapam(relation => c.oid, check_toast => true) LIMIT {_MOST}) AS fault "
        "WHERE c.oid = ANY (%s)"
    )

    def ask(*oids: int) -> list[tuple[Any, ...]]:
        with cursor.connection.transaction():
            return cursor.execute(query, (list(oids),)).fetchall()

    def ask_one(oid: int) -> list[tuple[Any, ...]]:
        try:
            return ask(oid)
        except psycopg.Error as error:
            if not says_damaged(error):
                raise
            found.findings.append(Finding(kind="table", name=heaps[oid], expected="sound", actual=words(error)))
            return []

    try:
        rows = ask(*heaps)
    except psycopg.Error as error:
        if not says_damaged(error):
            raise
        rows = [row for oid in heaps for row in ask_one(oid)]  # to know which
    faults: dict[int, list[str]] = {}
    for oid, block, item, column, message in rows:
        where = "" if column is None else f", attribute {column}"
        faults.setdefault(oid, []).append(f"block {block}, item {item}{where}: {message}")
    for oid, messages in faults.items():
        more = f"; and {len(messages) - 1} more" if len(messages) > 1 else ""
        found.findings.append(
            Finding(kind="table", name=heaps[oid], expected="sound", actual=" ".join(messages[0].split()) + more)
        )


def _index_checks(cursor: Cursor, schema: str, found: _Found) -> Mapping[str, Mapping[int, str]]:
    """Return the call that checks an index, and which indexes it is for."""
    version = cursor.connection.info.server_version
    options = ", heapallindexed => true" + (", checkunique => true" if version >= 170000 else "")
    checks = {"btree": f"{schema}.bt_index_parent_check(index => c.oid{options}{_DESCEND})"}
    if version >= 180000:
        checks["gin"] = f"{schema}.gin_index_check(c.oid)"
    if value(cursor, "SELECT pg_catalog.pg_is_in_recovery()"):
        checks = {"btree": f"{schema}.bt_index_check(index => c.oid{options})"}
        found.omissions["parents of B-tree pages"] = "a server in recovery cannot take the lock for that"
    chosen: dict[str, dict[int, str]] = {}
    for oid, name, method, usable in cursor.execute(INDEXES).fetchall():
        if not usable:
            found.omissions[f"index {name}"] = "not valid"
        elif method not in checks:
            found.omissions[f"index {name}"] = f"amcheck has no check of {method} indexes here"
        else:
            chosen.setdefault(checks[method], {})[oid] = name
    return chosen


def _verify_indexes(cursor: Cursor, check: str, indexes: Mapping[int, str], found: _Found) -> None:
    query = f"SELECT {check} FROM pg_catalog.pg_class AS c WHERE c.oid = ANY (%s)"
    try:
        with cursor.connection.transaction():
            cursor.execute(query, (list(indexes),))
    except psycopg.Error as error:
        if not (says_of_rows(error) or _says_old(error)):
            raise
        for oid, name in indexes.items():  # one by one, to know which; amcheck ends at an index's first fault
            _verify_index(cursor, query, oid, name, found)


def _verify_index(cursor: Cursor, query: str, oid: int, name: str, found: _Found) -> None:
    path = "''"
    while True:
        try:
            with cursor.connection.transaction():
                cursor.execute(f"SET LOCAL search_path TO {path}")
                cursor.execute(query, ([oid],))
                cursor.execute("SET LOCAL search_path TO ''")
        except psycopg.Error as error:
            if says_unknown(error) and path != "DEFAULT":
                path = "DEFAULT"  # a function in the index needs the search_path that it was made with
                continue
            if _says_old(error) and _DESCEND in query:
                query = query.replace(_DESCEND, "")
                found.omissions[f"index {name}, searched from the root"] = words(error)
                continue
            if says_unknown(error):
                found.omissions[f"index {name}"] = words(error)
            elif says_of_rows(error):
                found.findings.append(
                    Finding(kind="index", name=name, expected="each row's entry in its place", actual=words(error))
                )
            else:
                raise
        return


def _says_old(error: psycopg.Error) -> bool:
    """Whether the index is from before PostgreSQL 12, which cannot be searched for a row's own entry."""
    return error.sqlstate == "0A000"
