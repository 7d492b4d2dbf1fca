"""Which tables of a restored server that moves on from point to point need not be read at each of them.

Replay changes a table by WAL records for its files, or by the end of a transaction whose rows are already there. So a
table is as it was when it was read, if no transaction changes its files in all of the WAL that was looked through, and
if those under way when it was read had begun in that WAL: else one could have changed it before. What its rows mean is
in the catalogs (a column that is added with a default, labels of enums, parts of composites): the versions of their
rows have to be the same at each point. It is read again at the restore's last point, and at each mark: witnesses for
all points between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from pytest_iopbackup.cluster.wal import Changes
from pytest_iopbackup.proof.requests import partitions, requests_in
from pytest_iopbackup.proof.rowset import RowSet
from pytest_iopbackup.proof.session import Cursor, value
from pytest_iopbackup.proven import TableComparison

_STATES = """
SELECT wanted.name, d.oid, pg_catalog.pg_relation_filenode(c.oid), pg_catalog.pg_relation_filenode(c.reltoastrelid),
       pg_catalog.concat_ws(' ', c.oid, c.ctid, c.xmin,
           (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.ctid, a.xmin, t.ctid, t.xmin), ',' ORDER BY attnum)
            FROM pg_catalog.pg_attribute AS a LEFT JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
            WHERE a.attrelid = c.oid AND a.attnum > 0),
           (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', e.ctid, e.xmin), ',' ORDER BY e.oid)
            FROM pg_catalog.pg_enum AS e),
           (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.ctid, a.xmin), ',' ORDER BY a.attrelid, a.attnum)
            FROM pg_catalog.pg_class AS k JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.oid
            WHERE k.relkind = 'c'))
FROM pg_catalog.unnest(%s::text[]) AS wanted(name)
JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(wanted.name)
JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
"""

Files = frozenset[tuple[int, int]]
"""OID of the database, and filenode, as in :class:`~pytest_iopbackup.cluster.wal.Changes`."""


@dataclass(frozen=True, slots=True)
class _State:
    """Where a table's rows lie, and which versions of catalog rows say what they mean."""

    files: Files
    meaning: str


class Still:
    """What is known of the tables of one restored server; ``changes`` None vouches for nothing.

    ``seeded``: requests in the audit table that are no transaction's of the ledger.
    """

    def __init__(self, changes: Changes | None, seeded: Set[str] = frozenset()) -> None:
        self._changes = changes
        self._seeded = seeded
        self._known: dict[str, _State] = {}
        """Tables that were equal when they were read, as they were then."""
        self._here: Mapping[str, _State] = {}
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
        self._here = _states(cursor, [rows.table for rows in expected])
        oldest = int(value(cursor, "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text"))
        self._settled = (oldest - self._changes.following) % 2**32 < 2**31
        self._known = {name: state for name, state in self._known.items() if state == self._here.get(name)}
        return tuple(rows for rows in expected if self.last or rows.table not in self._known)

    def note(self, cursor: Cursor, read: Sequence[TableComparison]) -> None:
        """Take what was found in those that were due, in the same snapshot."""
        self.witness(read)
        if self._changes is None or self.ended or not self._settled or not read:
            return
        audited = partitions(cursor)
        for name in [table.table for table in read if table.equal]:
            here = self._here.get(name)
            if here and not here.files & self._changes.files:
                self._known[name] = here
                if name in audited:
                    self._requests[name] = requests_in(cursor, name, self._seeded)

    @property
    def requests(self) -> Mapping[str, Set[str]]:
        """What :func:`requests.requests` takes as known: of partitions that need not be read here."""
        if self.last:
            return {}
        return {name: requests for name, requests in self._requests.items() if name in self._known}

    def witness(self, read: Iterable[TableComparison]) -> None:
        """Take what was found here in tables, whether they were due or not."""
        for table in read:
            if not table.equal and table.table in self._known:
                del self._known[table.table]
                self._broken.add(table.table)

    def take_broken(self) -> Sequence[str]:
        """Return tables that were vouched for, and differed when they were read again; each once."""
        broken, self._broken = sorted(self._broken), set()
        return broken


def _states(cursor: Cursor, tables: list[str]) -> Mapping[str, _State]:
    """Return the state of each table that is there; its files are its own and its TOAST relation's."""
    return {
        name: _State(frozenset((database, node) for node in nodes if node is not None), meaning)
        for name, database, *nodes, meaning in cursor.execute(_STATES, [tables]).fetchall()
    }
