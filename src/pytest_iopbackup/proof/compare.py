"""A restored database against a capture: digests first, rows only of the tables that differ.

Where the fast tier may be used, and has learned of the same mark from a copy that was equal, it reads first; what it
does not find equal the portable tier reads, which alone can say that something differs (see :mod:`tiers`). To learn
takes one more scan, by the faster of the two, of a copy that was found equal in all; of a small database there is no
gain in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg.pq import TransactionStatus

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.capture import Capture, Progress
from pytest_iopbackup.proof.catalog import catalog_objects, object_findings
from pytest_iopbackup.proof.learned import note, recall
from pytest_iopbackup.proof.naming import name_differences, name_unexpected
from pytest_iopbackup.proof.readers import Readers, readers, share
from pytest_iopbackup.proof.redact import without_values
from pytest_iopbackup.proof.rowset import Method, RowSet, Table, method, to_digest, user_tables
from pytest_iopbackup.proof.sequences import behind_columns, read_states, sequence_findings
from pytest_iopbackup.proof.session import Connection, Cursor, reading, says_damaged, words
from pytest_iopbackup.proof.tiers import Known, Read, learner, reader, together
from pytest_iopbackup.proven import FAST, PORTABLE, Finding, TableComparison

UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All that was compared. ``sequences`` and ``objects`` say how many."""

    algorithm: str
    """What the digests were made with, and how many tables the fast tier alone has read."""
    tables: tuple[TableComparison, ...]
    findings: tuple[Finding, ...]
    sequences: int
    objects: int
    skipped: Mapping[str, str]
    """Tables whose rows were not compared, and why."""


def compare(
    capture: Capture, connection: Connection, progress: Progress | None = None, *, redact: bool = False
) -> Comparison:
    """Read the whole database behind ``connection`` once and compare it with what was captured.

    A table that differs is read once more, to name the rows; ``redact`` hides their keys and all other values.
    Works on a promoted server and on a paused standby. Raises ProofError when it cannot be read or the digests were
    made in another way; a table that PostgreSQL itself reports as damaged is a finding.
    """
    idle = connection.info.transaction_status == TransactionStatus.IDLE
    with reading(connection, writable=True) as cursor:
        shared = share(connection) if idle else None
        _same_method(capture.method, method(cursor))
        present = {table.name: table for table in user_tables(cursor) if table.skipped is None}
        wanted = {rows.table: rows for rows in capture.tables}
        known = recall(capture)
        every = readers(cursor, list(present.values()), shared)
        read = _read(every, capture, known, progress)
        tables, findings = [], []
        for name in sorted(wanted.keys() | present.keys()):
            expected = wanted.get(name) or RowSet(table=name, key=present[name].key, rows=0, digest=to_digest(0, 0))
            found = read.get(name) or Read(rows=replace(expected, rows=0, digest=to_digest(0, 0)))
            try:
                if isinstance(found, psycopg.Error):
                    raise found
                with connection.transaction():
                    tables.append(_compare_table(every, capture, expected, present.get(name), found, redact=redact))
            except psycopg.Error as error:
                if not says_damaged(error):
                    raise
                tables.append(_unreadable(expected))
                findings.append(Finding(kind="table", name=name, expected="readable", actual=words(error)))
        if all(table.equal for table in tables) and any(table.tier == PORTABLE for table in tables):
            _learn(every, capture)
        objects, states = catalog_objects(cursor), read_states(cursor)
        findings += object_findings(capture.objects, objects)
        findings += sequence_findings(capture.sequences, states)
        findings += [
            Finding(kind="sequence", name=name, expected="at or past its column", actual=seen)
            for name, seen in behind_columns(cursor, states).items()
            if name not in capture.behind
        ]
    fast = sum(table.tier == FAST for table in tables)
    by_whom = f"; of {fast} of {len(tables)} tables {known.made_with} alone" if known and fast else ""
    return Comparison(
        algorithm=capture.algorithm + by_whom,
        tables=tuple(tables),
        findings=tuple(without_values(finding) if redact else finding for finding in findings),
        sequences=len(capture.sequences),
        objects=len(capture.objects),
        skipped=capture.skipped,
    )


def _same_method(captured: Method, here: Method) -> None:
    if captured != here:
        raise ProofError(
            f"digests made with {_method_words(captured)} cannot be compared with {_method_words(here)}",
            hint="restore with the major version and on the kind of machine that the state was captured on",
        )


def _method_words(made: Method) -> str:
    return f"{made.algorithm} on PostgreSQL {made.server} (probe {made.probe})"


def _read(
    every: Readers, capture: Capture, known: Known | None, progress: Progress | None
) -> Mapping[str, Read | psycopg.Error]:
    """Read all tables; of one that PostgreSQL reports as damaged, what it says."""
    expected = {rows.table: rows for rows in capture.tables}
    read: set[str] = set()

    @contextmanager
    def opened(cursor: Cursor) -> Iterator[Callable[[Table], Read | psycopg.Error]]:
        with reader(cursor, expected, known) as tier:

            def guarded(table: Table) -> Read | psycopg.Error:
                try:
                    with cursor.connection.transaction():
                        return tier(table)
                except psycopg.Error as error:
                    if not says_damaged(error):
                        raise
                    return error

            yield guarded

    def done(table: Table) -> None:
        read.add(table.name)
        if progress is not None:
            progress(sum(expected[name].rows for name in read if name in expected), capture.rows)

    return every.read(opened, done)


def _learn(every: Readers, capture: Capture) -> None:
    """Note what the fast tier says of tables that have all been found equal, where that is worth another scan."""
    if every.worth:
        known = together(every.read(learner).values())
        if known is not None:
            note(capture, known)


def _compare_table(
    every: Readers, capture: Capture, expected: RowSet, here: Table | None, found: Read, *, redact: bool
) -> TableComparison:
    actual = found.rows
    result = TableComparison(
        table=expected.table,
        expected_rows=expected.rows,
        actual_rows=actual.rows,
        expected_digest=expected.digest,
        actual_digest=actual.digest,
        tier=found.tier,
    )
    if result.equal:
        return result
    if here is not None and not expected.rows:
        named = name_unexpected(every.cursor, here, actual.rows, redact=redact)
    else:
        kept = capture.sketch(expected.table)
        named = name_differences(every.cursor, *kept, here, redact=redact, shared=every.shared)
    return replace(
        result,
        missing=named.missing,
        unexpected=named.unexpected,
        changed=named.changed,
        more_than=named.more_than,
    )


def _unreadable(expected: RowSet) -> TableComparison:
    return TableComparison(
        table=expected.table,
        expected_rows=expected.rows,
        actual_rows=0,
        expected_digest=expected.digest,
        actual_digest=UNREADABLE,
    )
