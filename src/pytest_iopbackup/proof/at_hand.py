"""Rows that differ, named once more where the source of a mark is still at hand: with what was and what is there.

A sketch says which rows differ, and of up to a thousand of them; the source says what stood in them, and has no such
bound. It can be asked of a table only while that is as it was at the mark.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import psycopg
from psycopg import IsolationLevel

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.localise import differences_between
from pytest_iopbackup.proof.rowset import read
from pytest_iopbackup.proof.session import Connection
from pytest_iopbackup.proven import ProofFacts, TableComparison


def name_from_source(
    proof: ProofFacts, source: Callable[[], Connection], restored: Connection, *, redact: bool = False
) -> ProofFacts:
    """Name the rows of tables that differ by a look at the source; ``source`` connects to it, and is called if needed.

    Says nothing else than ``proof`` of a table that has changed since the mark, or where either side cannot be read:
    the verdict is made, and this is only about its words.
    """
    if all(table.equal for table in proof.tables):
        return proof
    try:
        with closing(source()) as connection:
            connection.isolation_level = IsolationLevel.REPEATABLE_READ  # what is as at the mark is what is compared
            named = tuple(_named(table, connection, restored, redact=redact) for table in proof.tables)
    except psycopg.Error:  # it is not at hand
        return proof
    return replace(proof, tables=named)


def _named(table: TableComparison, source: Connection, restored: Connection, *, redact: bool) -> TableComparison:
    if table.equal:
        return table
    try:
        with source.transaction(force_rollback=True):
            there = read(source, table.table)
            if (there.rows, there.digest) != (table.expected_rows, table.expected_digest):
                return table
            found = differences_between(source, restored, table.table, redact=redact)
    except ProofError:  # no such table, on one of both sides
        return table
    return replace(
        table, missing=found.missing, unexpected=found.unexpected, changed=found.changed, more_than=found.more_than
    )
