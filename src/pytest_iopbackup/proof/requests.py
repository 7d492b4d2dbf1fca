"""The requests in the audit table: each transaction of the workload leaves one there, which says that it is there."""

from __future__ import annotations

from collections.abc import Mapping, Set

from pytest_iopbackup.proof.session import Connection, Cursor, reading, value

AUDIT_TABLE = "identity.audit_log"
REQUEST_COLUMN = "request_id"

_PARTITIONS = f"""
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_partition_tree(pg_catalog.to_regclass('{AUDIT_TABLE}')) AS part ON part.relid = c.oid
WHERE part.isleaf OR (c.oid = pg_catalog.to_regclass('{AUDIT_TABLE}') AND c.relkind <> 'p')
"""


def request_ids(connection: Connection) -> frozenset[str]:
    """Return all requests in the audit table."""
    with reading(connection) as cursor:
        return frozenset(requests(cursor))


def requests(cursor: Cursor, besides: Set[str] = frozenset(), known: Mapping[str, Set[str]] | None = None) -> Set[str]:
    """Return the requests that are there ``besides`` some, where those of some partitions are ``known``.

    An empty set where there is no audit table.
    """
    found: set[str] = set()
    for partition in partitions(cursor):
        found |= known[partition] if known and partition in known else requests_in(cursor, partition, besides)
    return found


def partitions(cursor: Cursor) -> tuple[str, ...]:
    """Return the tables that hold the audit table's rows, qualified and quoted as SQL needs them."""
    return tuple(name for (name,) in cursor.execute(_PARTITIONS).fetchall())


def requests_in(cursor: Cursor, partition: str, besides: Set[str]) -> Set[str]:
    """Return the requests of one partition, likewise."""
    # As one value: to take thousands of rows one by one costs more than to read them.
    listed = value(cursor, f"SELECT pg_catalog.string_agg({REQUEST_COLUMN}::text, ' ') FROM ONLY {partition}")
    return {request for request in (listed or "").split() if request not in besides}
