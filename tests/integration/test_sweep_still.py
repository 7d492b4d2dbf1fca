"""A sweep does not read again what no record of the WAL changes: but it does where one does, and looks twice."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.wal import Changes, read_order
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.everywhere.draw import draw
from pytest_iopbackup.everywhere.still import Still
from pytest_iopbackup.everywhere.sweep import Sweep
from pytest_iopbackup.everywhere.window import Window, archive_all
from pytest_iopbackup.points import PointFacts
from pytest_iopbackup.proof.rowset import digest, user_tables
from pytest_iopbackup.proof.session import Connection, reading
from pytest_iopbackup.proven import TableComparison, Verdict

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=100)]

CHANGED = "identity.documents"
MARK = f"UPDATE {CHANGED} SET title = title || '!' WHERE id = (SELECT min(id) FROM {CHANGED})"
UNMARK = f"UPDATE {CHANGED} SET title = rtrim(title, '!') WHERE title LIKE '%!'"
SILENT = "no record of the WAL changes it"


def between_marks(points: tuple[PointFacts, ...]) -> list[PointFacts]:
    return [point for point in points if point.mark is None]


def test_what_no_record_changes_is_read_at_a_restores_first_and_last_point(iop_stack: Drill) -> None:
    iop_stack.mark("seeded")
    iop_stack.write(60)
    iop_stack.mark("middle")
    iop_stack.write(60)
    archive_all(iop_stack)
    window = Window(iop_stack, changes=True)
    places = [place for place in draw(window, 8, Random(1)) if not window.mark_at(place.cut)]
    facts = Sweep(iop_stack, points=8).over(window, places)
    assert facts.verdict is Verdict.PASSED, facts.reason
    first, *between, last = facts.points
    whole = len(window.unchanged)
    assert whole > 5
    assert (first.tables, first.still) == (last.tables, last.still) == (whole, 0)
    assert {(point.tables, point.still) for point in between} == {(0, whole)}


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (MARK, UNMARK),
        (f"ALTER TABLE {CHANGED} ADD extra integer DEFAULT 7", f"ALTER TABLE {CHANGED} DROP extra"),
    ],
    ids=["row", "column"],
)
def test_a_change_that_is_undone_before_the_next_mark_is_seen_between(iop_stack: Drill, change: str, undo: str) -> None:
    iop_stack.mark("seeded")
    iop_stack.write(20)
    with iop_stack.connect() as connection:
        connection.execute(change.encode())
    iop_stack.write(40)
    with iop_stack.connect() as connection:
        connection.execute(undo.encode())
    iop_stack.write(20)
    iop_stack.mark("last")
    archive_all(iop_stack)
    window = Window(iop_stack, changes=True)
    assert CHANGED in {rows.table for rows in window.unchanged}
    facts = Sweep(iop_stack, points=12).over(window, draw(window, 12, Random(2)))
    wrong = [point for point in between_marks(facts.points) if point.verdict is Verdict.FAILED]
    assert len(wrong) > 2
    assert all(f"{CHANGED}: " in (point.reason or "") and SILENT not in (point.reason or "") for point in wrong)
    at = [facts.points.index(point) for point in wrong]
    assert at == list(range(at[0], at[-1] + 1))
    assert {point.verdict for point in facts.points if point not in wrong} == {Verdict.PASSED}


def test_a_table_that_was_vouched_for_and_differs_takes_the_points_before_with_it(iop_stack: Drill) -> None:
    iop_stack.mark("seeded")
    iop_stack.write(20)
    iop_stack.mark("middle")
    iop_stack.write(20)
    with iop_stack.connect() as connection:
        connection.execute(MARK)
    iop_stack.write(60)
    archive_all(iop_stack)
    window = Window(iop_stack, changes=True)
    assert window.order.changes is not None
    blind = replace(window.order.changes, files=frozenset())
    window.order = replace(window.order, changes=blind)  # as if a record had been overlooked
    places = [place for place in draw(window, 12, Random(3)) if not window.mark_at(place.cut)]
    facts = Sweep(iop_stack, points=12).over(window, places)
    first, *between, last = facts.points
    assert first.verdict is Verdict.PASSED
    assert last.verdict is Verdict.FAILED
    assert f"{CHANGED}: " in (last.reason or "")
    assert SILENT not in (last.reason or "")
    assert {point.verdict for point in between} == {Verdict.FAILED}
    assert all(f"{CHANGED}: not read here, for {SILENT}; at {last.name}" in (one.reason or "") for one in between)


def is_due(still: Still, connection: Connection, name: str) -> bool:
    """Whether a table has to be read; if so, it is noted as equal."""
    with reading(connection) as cursor:
        (table,) = [table for table in user_tables(cursor) if table.name == name]
        rows = digest(cursor, table)
        due = still.due(cursor, [rows])
        found = TableComparison(
            table=name,
            expected_rows=rows.rows,
            actual_rows=rows.rows,
            expected_digest=rows.digest,
            actual_digest=rows.digest,
        )
        still.note(cursor, [found] if due else [])
        return bool(due)


def test_a_table_without_rows_that_alone_has_to_be_read_leaves_the_verdict_to_the_ledger(iop_stack: Drill) -> None:
    with iop_stack.connect() as connection:
        connection.execute("CREATE TABLE tried (id integer)")
    iop_stack.mark("seeded")
    with iop_stack.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO tried VALUES (1)")
        connection.execute("ROLLBACK")
    iop_stack.write(60)
    iop_stack.mark("last")
    archive_all(iop_stack)
    facts = Sweep(iop_stack, points=6).run()
    assert facts.verdict is Verdict.PASSED, facts.reason
    assert {point.tables for point in between_marks(facts.points)[1:]} == {1}


def test_a_transaction_that_had_begun_before_the_wal_did_keeps_tables_from_being_vouched_for(iop_stack: Drill) -> None:
    with iop_stack.connect() as open_, iop_stack.connect() as connection:
        open_.execute("BEGIN")
        (xid,) = open_.execute("SELECT pg_current_xact_id()::text").fetchone() or ("",)

        def vouched_for(following: int) -> bool:
            still = Still(Changes(files=frozenset(), following=following))
            assert is_due(still, connection, CHANGED)
            return not is_due(still, connection, CHANGED)

        assert vouched_for(int(xid))
        assert not vouched_for(int(xid) + 1)
        open_.execute("ROLLBACK")
        connection.execute("SELECT pg_current_xact_id()")
        assert vouched_for(int(xid) + 1)


def test_what_the_catalogs_say_of_a_table_has_to_be_as_it_was(iop_stack: Drill) -> None:
    with iop_stack.connect() as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('glad', 'sad')")
        connection.execute("CREATE TYPE pair AS (a integer, b integer)")
        connection.execute("CREATE TABLE kept AS SELECT 1 AS id, 'glad'::mood AS mood, (1, 2)::pair AS pair")
        still = Still(Changes(files=frozenset(), following=3))
        assert is_due(still, connection, "public.kept")
        for statement in (
            "ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'",
            "ALTER TYPE pair ADD ATTRIBUTE c integer",
            "ALTER TABLE kept ADD extra integer DEFAULT 7",
            "ALTER TABLE kept RENAME extra TO more",
            "ALTER TABLE kept DROP more",
            "ALTER TABLE kept ALTER id TYPE bigint",
        ):
            assert not is_due(still, connection, "public.kept"), statement
            connection.execute(statement)
            assert is_due(still, connection, "public.kept"), statement


def test_the_wal_says_which_files_transactions_change(iop_stack: Drill) -> None:
    base = pgbackrest.info(iop_stack.stack, iop_stack.limits).backups[0]
    with iop_stack.connect() as connection:
        connection.execute("CREATE TABLE kept (id int PRIMARY KEY, long text)")
        connection.execute("ALTER TABLE kept ALTER long SET STORAGE EXTERNAL")
        connection.execute("CREATE TABLE emptied AS SELECT 1 AS id")
        connection.execute("CREATE TABLE vacuumed AS SELECT 1 AS id")
        connection.execute("CREATE TABLE locked AS SELECT 1 AS id")
        places = "SELECT d.oid, pg_relation_filenode({}) FROM pg_database AS d WHERE datname = current_database()"

        def file(relation: str) -> tuple[int, int]:
            found = connection.execute(places.format(relation).encode()).fetchone()
            assert found
            return found[0], found[1]

        (since,) = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone() or ("",)
        connection.execute("CHECKPOINT")  # which logs a snapshot, as a backup's begin does
        (following,) = connection.execute("SELECT txid_snapshot_xmax(txid_current_snapshot())").fetchone() or (0,)
        connection.execute("INSERT INTO kept VALUES (1, repeat('long', 5000))")
        connection.execute("SELECT * FROM locked FOR UPDATE")
        connection.execute("VACUUM (FREEZE) vacuumed")
        before = file("'emptied'::regclass")
        connection.execute("TRUNCATE emptied")
        written = {
            file("'kept'::regclass"),
            file("'kept_pkey'::regclass"),
            file("(SELECT reltoastrelid FROM pg_class WHERE oid = 'kept'::regclass)"),
            before,
            file("'emptied'::regclass"),
        }
        untouched = {file("'vacuumed'::regclass"), file("'locked'::regclass"), file(f"'{CHANGED}'::regclass")}
    archive_all(iop_stack)
    changes = read_order(iop_stack.stack, since, iop_stack.limits, changes=True).changes
    assert changes is not None
    assert changes.following == following
    assert written <= changes.files
    assert not untouched & changes.files
    whole = read_order(iop_stack.stack, base.start_lsn, iop_stack.limits, changes=True).changes
    assert whole is not None
    assert whole.following <= following
    assert read_order(iop_stack.stack, since, iop_stack.limits).changes is None
