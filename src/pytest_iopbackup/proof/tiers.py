"""Two ways to a table's digest: one that works everywhere, and a faster one on a restored copy of our own.

The portable tier (:func:`rowset.digest`) is the reference. The fast tier hashes the row as the server holds it, in one
piece, by two temporary functions over functions that PostgreSQL has anyway: ``bytea_substr_no_len`` cuts the header off
the row, ``hashvarlenaextended`` hashes what is left, the bitmap of NULLs and the values. PostgreSQL makes such a row of
the stored one: what lies in the TOAST relation is fetched into it, compressed as it is, and columns that were added
since with a default are filled in (``ExecEvalWholeRowVar``, ``toast_build_flattened_tuple``). So two restores to one
moment give the same image; a logical copy does not, and neither does a rewritten table.

That takes a superuser, and a server that is no standby; and PostgreSQL promises nothing of the kind. So the functions
are tried on each server with rows whose differences are known before a word of theirs is believed. On any doubt, and
for any table they find different, the portable tier decides: the fast one never fails a restore. What it compares with
is not from the source, where the functions could not be made, but from a copy that the portable tier has found equal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import psycopg
from psycopg import sql

from pytest_iopbackup.proof.rowhash import EVERY
from pytest_iopbackup.proof.rowset import RowSet, digest, method, summed, to_digest
from pytest_iopbackup.proof.session import Cursor, value
from pytest_iopbackup.proof.tables import Table
from pytest_iopbackup.proven import FAST, PORTABLE

FUNCTIONS = """
CREATE FUNCTION pg_temp.iop_image(record, integer) RETURNS bytea
    LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bytea_substr_no_len';
CREATE FUNCTION pg_temp.iop_hash(bytea, bigint) RETURNS bigint
    LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'hashvarlenaextended'
"""

ALGORITHM = "sum128(row image)"

HEADER = 19
"""Bytes of a row's header that are no content: type modifier, type, ctid, infomasks, offset (``htup_details.h``)."""

IMAGE_HASHES = ("pg_temp.iop_hash(image, 461845907)", "pg_temp.iop_hash(image, 625341585)")
"""A row's two hashes, over what :func:`images` gives."""

TRIAL = """
CREATE TEMPORARY TABLE iop_trial (a integer, b text, c bytea, d numeric) ON COMMIT DROP;
ALTER TABLE pg_temp.iop_trial ALTER c SET STORAGE EXTERNAL;
INSERT INTO pg_temp.iop_trial VALUES
    (1, 'a', NULL, 1.0), (2, 'a', NULL, 1.0), (1, 'b', NULL, 1.0), (1, '', NULL, 1.0), (1, NULL, NULL, 1.0),
    (NULL, 'a', NULL, 1.0), (1, 'a', '', 1.0), (1, 'a', NULL, -1.0), (1, 'a', NULL, 1.00), (1, 'a', NULL, NULL);
INSERT INTO pg_temp.iop_trial
    SELECT 1, 'a', pg_catalog.set_byte(long, n, 0), 1.0
    FROM pg_catalog.generate_series(0, 199) AS n,
         pg_catalog.decode(pg_catalog.repeat('5a', 200), 'hex') AS long;
INSERT INTO pg_temp.iop_trial
    SELECT 1, 'a', pg_catalog.set_byte(long, n, 0), 1.0
    FROM pg_catalog.unnest(ARRAY[0, 1, 1996, 10000, 19999]) AS n,
         pg_catalog.decode(pg_catalog.repeat('5a', 20000), 'hex') AS long;
ALTER TABLE pg_temp.iop_trial ADD e bigint DEFAULT 7;
INSERT INTO pg_temp.iop_trial SELECT * FROM pg_temp.iop_trial;
UPDATE pg_temp.iop_trial SET e = 7 WHERE d IS NULL
"""
"""Rows of which each is there twice, differently stored, in line and out of line, and like no other."""

DIFFERENT = 215
"""How many they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Fast digests of tables that the portable tier has found equal to a mark, and what they were made with."""

    made_with: str
    digests: Mapping[str, str] = field(default_factory=dict)
    """By the table's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A table's row set, and the tier that gave it."""

    rows: RowSet
    tier: str = PORTABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Fast:
    """The fast tier on one connection, tried and found good."""

    cursor: Cursor
    made_with: str

    def digest(self, table: Table) -> str:
        """Return rows, what the portable tier would hash, and the sums of both hashes; the table is read once."""
        first, second = (f"coalesce(pg_catalog.sum({hashed}), 0)" for hashed in IMAGE_HASHES)
        query = sql.SQL("SELECT pg_catalog.count(*), {}, {} FROM ({}) AS rows").format(
            sql.SQL(first), sql.SQL(second), images(table.name)
        )
        row = self.cursor.execute(query).fetchone()
        assert row is not None  # an aggregate without GROUP BY gives one row
        return f"{row[0]} {meaning(table)} {to_digest(int(row[1]), int(row[2]))}"


@contextmanager
def fast(cursor: Cursor) -> Iterator[Fast | None]:
    """Yield the fast tier, or None where it cannot be had or was not believed. Nothing of it stays in the database.

    Call it in a transaction that may write, else it is None; the functions and the table of the trial are rolled back.
    """
    if not _possible(cursor):
        yield None
        return
    with cursor.connection.transaction(force_rollback=True):
        yield _tried(cursor)


@contextmanager
def reader(cursor: Cursor, expected: Mapping[str, RowSet], known: Known | None) -> Iterator[Callable[[Table], Read]]:
    """Yield a function that reads a table: its row set as the portable tier has it, found by the fast one if it can.

    ``expected`` are the row sets of the mark, by table, that ``known`` belongs to.
    """
    if known is None or not known.digests:
        yield lambda table: Read(rows=digest(cursor, table))
        return
    with fast(cursor) as tier:

        def read(table: Table) -> Read:
            wanted = known.digests.get(table.name)
            if tier is None or tier.made_with != known.made_with or wanted is None or tier.digest(table) != wanted:
                return Read(rows=digest(cursor, table))
            return Read(rows=expected[table.name], tier=FAST)

        yield read


@contextmanager
def learner(cursor: Cursor) -> Iterator[Callable[[Table], Known | None]]:
    """Yield a function that takes the fast digest of a table just found equal, in the same snapshot.

    It gives None without the tier.
    """
    with fast(cursor) as tier:

        def learn(table: Table) -> Known | None:
            return None if tier is None else Known(made_with=tier.made_with, digests={table.name: tier.digest(table)})

        yield learn


def together(learned: Collection[Known | None]) -> Known | None:
    """Put together what was learned of all tables; None unless it was of all, and in one way."""
    parts = [part for part in learned if part is not None]
    if len({part.made_with for part in parts}) != 1 or len(parts) != len(learned):
        return None
    return Known(made_with=parts[0].made_with, digests={n: d for part in parts for n, d in part.digests.items()})


def _possible(cursor: Cursor) -> bool:
    asked = (
        "SELECT pg_catalog.current_setting('is_superuser') = 'on' AND NOT pg_catalog.pg_is_in_recovery() "
        "AND pg_catalog.current_setting('transaction_read_only') = 'off'"
    )
    return bool(value(cursor, asked))


def _tried(cursor: Cursor) -> Fast | None:
    """Make the functions and try them; an error of PostgreSQL's there is a doubt, not a failure."""
    try:
        with cursor.connection.transaction():
            cursor.execute(FUNCTIONS)
            if not _sees_everything(cursor):
                return None
    except psycopg.Error:
        if cursor.connection.closed:
            raise
        return None
    made = method(cursor)
    return Fast(cursor=cursor, made_with=f"{ALGORITHM} on PostgreSQL {made.server} (probe {made.probe})")


def _sees_everything(cursor: Cursor) -> bool:
    """Whether each of the functions' hashes tells apart what differs, byte by byte, and only that."""
    cursor.execute(TRIAL)
    first, second = IMAGE_HASHES
    cursor.execute(
        sql.SQL(
            "SELECT pg_catalog.count(*), pg_catalog.count(DISTINCT {0}), pg_catalog.count(DISTINCT {1}), "
            "pg_catalog.count(DISTINCT ({0}, {1})) FROM ({2}) AS rows"
        ).format(sql.SQL(first), sql.SQL(second), images("pg_temp.iop_trial"))
    )
    return cursor.fetchone() == (2 * DIFFERENT, DIFFERENT, DIFFERENT, DIFFERENT)


def meaning(table: Table) -> str:
    """Return what the portable tier would hash, in brief: only where that is the same do images say the same."""
    return sha256(summed(table)).hexdigest()[:16]


def images(name: str, where: sql.Composable = EVERY) -> sql.Composed:
    """Return a query that gives each row's image once, in parallel workers, too; see :func:`rowhash.hashed`."""
    return sql.SQL("SELECT pg_temp.iop_image(t.*, {}) AS image FROM ONLY {} AS t{} OFFSET '0'::bigint").format(
        sql.Literal(HEADER + 1), sql.SQL(name), where
    )
