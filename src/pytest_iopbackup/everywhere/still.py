"""Which tables of a restored server that moves on from point to point need not be read at each of them.

Replay changes a table by WAL records for its files, or by the end of a transaction whose rows are already there. So a
table is as it was when it was read, if no transaction changes its files in all of the WAL that was looked through, and
if those under way when it was read had begun in that WAL: else one could have changed it before. It is read again at
the restore's last point, and at each mark: two witnesses for all points between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from pytest_iopbackup.cluster.wal import Changes
from pytest_iopbackup.proof.requests import partitions, requests_in
from pytest_iopbackup.proof.rowset import RowSet
from pytest_iopbackup.proof.session import Cursor, value
from pytest_iopbackup.proven import TableComparison

_FILES = """
SELECT wanted.name, d.oid, pg_catalog.pg_relation_filenode(c.oid), pg_catalog.pg_relation_filenode(c.reltoastrelid)
FROM pg_catalog.unnest(%s::text[]) AS wanted(name)
JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(wanted.name)
JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
"""

Files = frozenset[tuple[int, int]]


class Still:
    """What is known of the tables of one restored server; ``changes`` None vouches for nothing.

    ``seeded``: requests in the audit table that are no transaction's of the ledger.
    """

    def __init__(self, changes: Changes | None, seeded: Set[str] = frozenset()) -> None:
        self._changes = changes
        self._seeded = seeded
        self._known: dict[str, Files] = {}
        """Tables that were equal when they were read, and the files that they were in."""
        self._here: Mapping[str, Files] = {}
        self._settled = False
        self.last = False
        """Whether all is to be read, whatever is known: nothing comes behind it."""
        self.ended = False
        """Whether recovery has ended here, for once: then it cannot be seen what was under way."""
        self._requests: dict[str, Set[str]] = {}
        """Of those that are partitions of the audit table, the other requests in them."""
        self._broken: set[str] = set()

    def due(self, cursor: Cursor, expected: Sequence[RowSet]) -> tuple[RowSet, ...]:
        """Return those that have to be read here."""
        if self._changes is None:
            return tuple(expected)
        self._here = _files(cursor, [rows.table for rows in expected])
        oldest = int(value(cursor, "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text"))
        self._settled = (oldest - self._changes.following) % 2**32 < 2**31
        return tuple(rows for rows in expected if self.last or not self._vouches(rows.table))

    def note(self, cursor: Cursor, read: Sequence[TableComparison]) -> None:
        """Take what was found in those that were due, in the same snapshot."""
        self.witness(read)
        if self._changes is None or self.ended or not self._settled or not read:
            return
        audited = partitions(cursor)
        for name in [table.table for table in read if table.equal]:
            files = self._here.get(name)
            if files and not files & self._changes.files:
                self._known[name] = files
                if name in audited:
                    self._requests[name] = requests_in(cursor, name, self._seeded)

    @property
    def requests(self) -> Mapping[str, Set[str]]:
        """What :func:`requests.requests` takes as known: of partitions that need not be read here."""
        if self.last:
            return {}
        return {name: requests for name, requests in self._requests.items() if self._vouches(name)}

    def witness(self, read: Iterable[TableComparison]) -> None:
        """Take what was found in tables, whether they were due or not."""
        for table in read:
            if not table.equal and table.table in self._known:
                del self._known[table.table]
                self._broken.add(table.table)

    def take_broken(self) -> Sequence[str]:
        """Return tables that were vouched for, and differed when they were read again; each once."""
        broken, self._broken = sorted(self._broken), set()
        return broken

    def _vouches(self, table: str) -> bool:
        return table in self._known and self._known[table] == self._here.get(table)


def _files(cursor: Cursor, tables: list[str]) -> Mapping[str, Files]:
    """Return the files of each table, and of its TOAST relation: OID of the database, and filenode."""
    return {
        name: frozenset((database, node) for node in nodes if node is not None)
        for name, database, *nodes in cursor.execute(_FILES, [tables]).fetchall()
    }
