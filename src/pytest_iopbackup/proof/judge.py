"""The ledger of a workload against a restored database, transaction by transaction, after Jepsen's ``set`` checker.

Must be there: committed before the cut (see :mod:`~pytest_iopbackup.proof.cut`). May be: nobody knows how it ended.
Must not: committed behind the cut, rolled back, or never attempted. A transaction is there if its audit row is, and
then every row it changed must be as the last transaction that is there left it: so half a transaction is seen, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from psycopg import sql

from pytest_iopbackup.dataset.ledger import Effect, Entry, Outcome
from pytest_iopbackup.dataset.plan import DOOMED
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.cut import Cut
from pytest_iopbackup.proof.difference import EXAMPLES
from pytest_iopbackup.proof.requests import requests
from pytest_iopbackup.proof.session import Connection, Cursor, reading
from pytest_iopbackup.proven import Differing, LedgerJudgement

VERSION_COLUMN = "version"

Row = tuple[str, str]
"""Table and key, as the ledger names them."""

TABLES = """
SELECT wanted.name, pg_catalog.format('%%I.%%I', n.nspname, c.relname),
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attname, pg_catalog.format_type(a.atttypid, NULL))
                                    ORDER BY k.place)
        FROM pg_catalog.pg_index AS i
        CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts)
FROM pg_catalog.unnest(%s::text[]) AS wanted(name)
JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass(wanted.name)
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
"""


@dataclass(slots=True)
class _Findings:
    """What was found, one line per transaction (or row, where no transaction explains it)."""

    lost: dict[str, str] = field(default_factory=dict)
    unexpected: dict[str, str] = field(default_factory=dict)


def judge(
    entries: Sequence[Entry],
    cut: Cut,
    connection: Connection,
    *,
    seeded: Set[str] = frozenset(),
    known: Mapping[str, Set[str]] | None = None,
) -> LedgerJudgement:
    """Look up every transaction of the ledger, and the last state of every row it changed.

    ``entries`` in the order of the file, which is the order of commits for each key, and without those that an earlier
    restore gave up. ``seeded``: requests that were there before the workload (see :func:`requests.request_ids`); audit
    rows whose request is NULL need not be among them. ``known``: the others in partitions that need not be read.

    Raises ProofError when the ledger cannot be judged: no commit time, no key, no version.
    """
    held = [(entry, cut.holds(entry)) for entry in entries]
    with reading(connection) as cursor:
        present = requests(cursor, seeded, known)
        must = [entry for entry, holds in held if holds]
        maybe = [entry for entry, holds in held if holds is None and entry.request_id in present]
        there = {entry.request_id for entry in (*must, *maybe)}
        left: dict[Row, tuple[Effect, Entry]] = {}
        barred: dict[Row, list[tuple[Effect, Entry]]] = defaultdict(list)
        for entry in entries:
            for effect in entry.effects:
                if entry.request_id in there:
                    left[effect.table, effect.key] = effect, entry
                else:
                    barred[effect.table, effect.key].append((effect, entry))
        versions = _versions(cursor, left.keys() | barred.keys())

    found = _Findings()
    for entry in must:
        if entry.request_id not in present:
            found.lost[entry.request_id] = f"{_name(entry)}: not there"
    _judge_requests(found, entries, present - there, cut)
    for row, (effect, entry) in left.items():
        _judge_row(found, effect, entry, versions.get(row), barred.get(row, ()))
    for row, attempts in barred.items():
        if row not in left:
            _judge_barred(found, attempts, versions.get(row))
    return LedgerJudgement(
        acknowledged=sum(entry.outcome is Outcome.ACKNOWLEDGED for entry in must),
        rows=len(left.keys() | barred.keys()),
        lost=_differing(found.lost),
        unexpected=_differing(found.unexpected),
        recovered=sum(
            entry.outcome is Outcome.INDETERMINATE and entry.request_id in present for entry in (*must, *maybe)
        ),
    )


def _judge_requests(found: _Findings, entries: Iterable[Entry], requests: Set[str], cut: Cut) -> None:
    """Name requests that are there and must not be."""
    for entry in entries:
        if entry.request_id in requests:
            why = "rolled back" if entry.outcome is Outcome.ROLLED_BACK else f"committed {cut.beyond(entry)}"
            found.unexpected.setdefault(entry.request_id, f"{_name(entry)}: there, though {why}")
    for request in sorted(requests - found.unexpected.keys()):
        found.unexpected[request] = f"{request}: there, though not in the ledger"


def _judge_row(
    found: _Findings, effect: Effect, entry: Entry, version: int | None, barred: Iterable[tuple[Effect, Entry]]
) -> None:
    """Judge a row that a transaction that is there (or must be) changed last; ``version`` is what was found."""
    if version == effect.version:
        return
    what = f"{effect.table} {effect.key}: expected {_state(effect.version)}, found {_state(version)}"
    if version is None or (effect.version is not None and version < effect.version):
        found.lost.setdefault(entry.request_id, f"{_name(entry)}: {what}")
        return
    culprit = next((other for tried, other in barred if tried.version == version), None)
    if culprit is None:
        found.unexpected[f"{effect.table} {effect.key}"] = what
    else:
        found.unexpected.setdefault(culprit.request_id, f"{_name(culprit)}: {what}")


def _judge_barred(found: _Findings, attempts: Sequence[tuple[Effect, Entry]], version: int | None) -> None:
    """Judge a row that only transactions that must not be there changed; the first whose change shows is named.

    What was there before them follows from the first one: no row if it made one, else a row of a lower version.
    """
    existed = _existed_before(attempts[0][0])
    for effect, entry in attempts:
        if effect.version is None:
            shows = existed and version is None
        else:
            shows = version is not None and (not existed or version >= effect.version)
        if shows:
            what = f"{effect.table} {effect.key}: {_state(version)}, though the transaction is not there"
            found.unexpected.setdefault(entry.request_id, f"{_name(entry)}: {what}")
            return


def _existed_before(effect: Effect) -> bool:
    """Whether a change found a row: each adds 1 to its version, or ``DOOMED``, and a new row's was 0."""
    return effect.version is None or effect.version not in {1, DOOMED}


def _versions(cursor: Cursor, rows: Iterable[Row]) -> Mapping[Row, int]:
    """Return the version of each row that is there: one query per table. A table that is gone has no rows."""
    keys: dict[str, list[str]] = defaultdict(list)
    for table, key in rows:
        keys[table].append(key)
    found: dict[Row, int] = {}
    for table, qualified, columns in cursor.execute(TABLES, [list(keys)]).fetchall():
        if not columns:
            raise ProofError(
                f"{table} is in the ledger and has no primary key", hint="give the ledger keyed tables only"
            )
        names = [sql.Identifier(name) for name, _ in columns]
        if len(names) == 1:
            key_sql, array = sql.SQL("{}").format(names[0]), f"{columns[0][1]}[]"
        else:
            key_sql, array = sql.SQL("pg_catalog.concat_ws('/', {})").format(sql.SQL(", ").join(names)), "text[]"
        query = sql.SQL("SELECT {key}::pg_catalog.text, {version} FROM {table} WHERE {key} = ANY (%s::{array})").format(
            key=key_sql, version=sql.Identifier(VERSION_COLUMN), table=sql.SQL(qualified), array=sql.SQL(array)
        )
        found.update({(table, text): version for text, version in cursor.execute(query, [keys[table]]).fetchall()})
    return found


def _name(entry: Entry) -> str:
    return f"{entry.request_id} ({entry.kind}, client {entry.client})"


def _state(version: int | None) -> str:
    return "no row" if version is None else f"version {version}"


def _differing(found: Mapping[str, str]) -> Differing:
    return Differing(total=len(found), examples=tuple(found.values())[:EXAMPLES])
