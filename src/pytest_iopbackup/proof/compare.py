"""A restored database against a capture: digests first, rows only of the tables that differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import psycopg

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.capture import Capture, Progress
from pytest_iopbackup.proof.catalog import catalog_objects, object_findings
from pytest_iopbackup.proof.naming import name_differences, name_unexpected
from pytest_iopbackup.proof.redact import without_values
from pytest_iopbackup.proof.rowset import Method, RowSet, Table, digest, method, to_digest, user_tables
from pytest_iopbackup.proof.sequences import behind_columns, read_states, sequence_findings
from pytest_iopbackup.proof.session import Connection, Cursor, reading, says_damaged, words
from pytest_iopbackup.proven import Finding, TableComparison

UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All that was compared. ``sequences`` and ``objects`` say how many."""

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
    with reading(connection) as cursor:
        _same_method(capture.method, method(cursor))
        present = {table.name: table for table in user_tables(cursor) if table.skipped is None}
        wanted = {rows.table: rows for rows in capture.tables}
        tables, findings, done = [], [], 0
        for name in sorted(wanted.keys() | present.keys()):
            expected = wanted.get(name) or RowSet(table=name, key=present[name].key, rows=0, digest=to_digest(0, 0))
            try:
                with connection.transaction():
                    tables.append(_compare_table(cursor, capture, expected, present.get(name), redact=redact))
            except psycopg.Error as error:
                if not says_damaged(error):
                    raise
                tables.append(_unreadable(expected))
                findings.append(Finding(kind="table", name=name, expected="readable", actual=words(error)))
            done += expected.rows
            if progress is not None:
                progress(done, capture.rows)
        objects, states = catalog_objects(cursor), read_states(cursor)
        findings += object_findings(capture.objects, objects)
        findings += sequence_findings(capture.sequences, states)
        findings += [
            Finding(kind="sequence", name=name, expected="at or past its column", actual=seen)
            for name, seen in behind_columns(cursor, states).items()
            if name not in capture.behind
        ]
    return Comparison(
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


def _compare_table(
    cursor: Cursor, capture: Capture, expected: RowSet, here: Table | None, *, redact: bool
) -> TableComparison:
    actual = replace(expected, rows=0, digest=to_digest(0, 0)) if here is None else digest(cursor, here)
    result = TableComparison(
        table=expected.table,
        expected_rows=expected.rows,
        actual_rows=actual.rows,
        expected_digest=expected.digest,
        actual_digest=actual.digest,
    )
    if result.equal:
        return result
    if here is not None and not expected.rows:
        found = name_unexpected(cursor, here, actual.rows, redact=redact)
    else:
        found = name_differences(cursor, *capture.sketch(expected.table), here, redact=redact)
    return replace(
        result,
        missing=found.missing,
        unexpected=found.unexpected,
        changed=found.changed,
        more_than=found.more_than,
    )


def _unreadable(expected: RowSet) -> TableComparison:
    return TableComparison(
        table=expected.table,
        expected_rows=expected.rows,
        actual_rows=0,
        expected_digest=expected.digest,
        actual_digest=UNREADABLE,
    )
