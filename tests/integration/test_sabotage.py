"""Each way to get a restore wrong must end red, with the right reason: a proof that cannot fail proves nothing."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from pytest_iopbackup.cluster.pgbackrest import info
from pytest_iopbackup.cluster.targets import format_time
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import RecoveryError, TargetError, UsageError
from pytest_iopbackup.stack.base import Service

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=200)]


def restored(drill: Drill) -> Drill:
    """Write, mark, write on, and restore to the mark; without sabotage that is green."""
    drill.write(40)
    drill.mark("point")
    drill.write(20)
    drill.restore("point")
    return drill


def test_without_sabotage_it_is_green(iop_stack: Drill) -> None:
    facts = restored(iop_stack).expect("point")
    assert facts.rows > 1000
    assert facts.ledger is not None
    assert facts.ledger.acknowledged > 20
    assert facts.sequences > 0
    assert facts.objects > 100


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "DELETE FROM identity.credentials WHERE ctid = (SELECT min(ctid) FROM identity.credentials)",
            r"failed: identity\.credentials: 1 row missing \(id=[0-9a-f-]{36}\)",
        ),
        (
            "UPDATE identity.users SET given_name = given_name || ' ' WHERE number = 1",
            r"failed: identity\.users: 1 row changed \(id=[0-9a-f-]{36}\)",
        ),
        (
            "INSERT INTO identity.settings (key, value, changed_at) VALUES ('sabotage.extra.row', '1', now())",
            r"failed: identity\.settings: 1 row unexpected \(key=sabotage.extra.row\)",
        ),
        (
            "INSERT INTO identity.login_attempts SELECT * FROM identity.login_attempts LIMIT 1",
            r"failed: identity\.login_attempts: 1 row unexpected",
        ),
        (
            "SELECT setval('identity.users_number_seq', 7)",
            r"failed: sequence identity\.users_number_seq: expected .*, found .*7",
        ),
        (
            "ALTER TABLE identity.sessions DROP CONSTRAINT sessions_user_id_fkey",
            r"failed: constraint .*sessions_user_id_fkey.*: expected FOREIGN KEY .*, found missing",
        ),
        ("REVOKE SELECT ON identity.users FROM iop_app", r"failed: .*identity\.users"),
        (
            "SELECT lo_put(oid, 0, '\\x00') FROM pg_largeobject_metadata LIMIT 1",
            r"failed: pg_catalog\.pg_largeobject: 1 row",
        ),
    ],
    ids=[
        "row-deleted",
        "value-changed",
        "extra-row",
        "row-twice",
        "sequence-back",
        "constraint-gone",
        "grant-gone",
        "blob",
    ],
)
def test_a_change_after_the_restore_is_named(iop_stack: Drill, statement: str, words: str) -> None:
    drill = restored(iop_stack)
    with drill.connect() as connection:
        connection.execute(statement.encode())
    with pytest.raises(AssertionError, match=words):
        drill.expect("point")


def remove_wal_after_newest_backup(drill: Drill) -> None:
    """Delete the archived segment that holds the first write after the newest backup."""
    archive = drill.stack.places.repository / "archive" / drill.stack.stanza
    stop_wal = info(drill.stack, drill.limits).backups[-1].stop_wal
    segment = min((path for path in archive.rglob("0*-*") if path.name[:24] > stop_wal), key=lambda path: path.name)
    segment.unlink()


def test_a_missing_wal_segment_stops_a_restore_to_a_point(iop_stack: Drill) -> None:
    iop_stack.write(40)
    iop_stack.mark("point")
    remove_wal_after_newest_backup(iop_stack)
    with pytest.raises(RecoveryError, match="recovery ended before configured recovery target was reached") as caught:
        iop_stack.restore("point")
    assert "WAL in between is missing" in str(caught.value)


def test_a_missing_wal_segment_lets_a_restore_to_the_end_succeed_and_the_proof_fail(iop_stack: Drill) -> None:
    iop_stack.write(40)
    iop_stack.mark("point")
    remove_wal_after_newest_backup(iop_stack)
    iop_stack.lose()
    iop_stack.restore()
    with pytest.raises(AssertionError, match=r"failed: \d+ acknowledged transactions lost"):
        iop_stack.expect("point")


def test_a_restore_to_an_earlier_target_is_told_from_the_right_one(iop_stack: Drill) -> None:
    iop_stack.write(20)
    iop_stack.mark("early")
    iop_stack.write(20)
    iop_stack.mark("late")
    iop_stack.restore("early")
    iop_stack.expect("early")
    with pytest.raises(AssertionError, match=r"failed: \d+ acknowledged transactions lost"):
        iop_stack.expect("late")


def test_a_restore_to_a_later_target_is_told_from_the_right_one(iop_stack: Drill) -> None:
    iop_stack.write(20)
    iop_stack.mark("early")
    iop_stack.write(20)
    iop_stack.mark("late")
    iop_stack.restore("late")
    iop_stack.expect("late")
    with pytest.raises(
        AssertionError, match=r"(?s)failed: .*audit_log.*: \d+ rows unexpected.*transactions unexpected"
    ):
        iop_stack.expect("early")


def test_what_a_restore_gave_up_never_counts_as_committed_again(iop_stack: Drill) -> None:
    """Transactions between the mark and the restore are gone for good, also for marks taken later."""
    iop_stack.write(20)
    iop_stack.mark("first")
    iop_stack.write(20)
    iop_stack.restore("first", "lsn")
    iop_stack.write(20)
    iop_stack.mark("second")
    iop_stack.write(20)
    iop_stack.restore("second", "xid")
    facts = iop_stack.expect("second")
    assert facts.ledger is not None
    assert 20 < facts.ledger.acknowledged < 45


def test_an_empty_ledger_cannot_vouch_for_what_is_there(iop_stack: Drill) -> None:
    drill = restored(iop_stack)
    drill.ledger.path.write_bytes(b"")
    with pytest.raises(AssertionError, match=r"failed: .* transactions unexpected .*though not in the ledger"):
        drill.expect("point")


def test_a_workload_that_began_after_the_mark_is_proven_absent(iop_stack: Drill) -> None:
    iop_stack.mark("point")
    iop_stack.write(20)
    with pytest.raises(AssertionError, match=r"(?s)failed: .*unexpected"):
        iop_stack.expect("point")
    iop_stack.restore("point")
    facts = iop_stack.expect("point")
    assert facts.ledger is not None
    assert facts.ledger.acknowledged == 0
    assert facts.ledger.rows > 0


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE identity.sessions CASCADE", "TRUNCATE identity.users CASCADE", "DROP SCHEMA identity CASCADE"],
)
def test_a_mistake_that_counts_no_rows_is_undone_too(iop_stack: Drill, statement: str) -> None:
    iop_stack.write(20)
    iop_stack.mark("before")
    assert iop_stack.mistake(statement).rows is None
    iop_stack.restore("before", "time")
    iop_stack.expect("before")


def test_a_mistake_that_hits_nothing_is_refused(iop_stack: Drill) -> None:
    with pytest.raises(UsageError, match="changed no row"):
        iop_stack.mistake("DELETE FROM identity.users WHERE false")


def test_zero_rows_compared_is_unknown(iop_stack: Drill) -> None:
    with iop_stack.connect() as connection:
        connection.execute("DROP SCHEMA identity CASCADE")
        connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
        connection.execute("CREATE TABLE empty (id int PRIMARY KEY)")
    iop_stack.mark("nothing")
    with pytest.raises(AssertionError, match="unknown: nothing was compared"):
        iop_stack.expect("nothing")


def running(drill: Drill) -> bool:
    """Whether the database is up, with its rows."""
    return drill.stack.running(Service.DATABASE) and drill.rows("identity.users").rows == 200


def test_a_target_that_cannot_be_reached_is_refused_before_anything_is_touched(iop_stack: Drill) -> None:
    now = datetime.now(timezone.utc)
    refusals = [
        ("time", format_time(now - timedelta(days=1)), "no backup ends before the target"),
        ("time", format_time(now + timedelta(hours=1)), "lies in the future"),
        ("time", f"{now:%Y-%m-%d %H:%M:%S}", "no UTC offset"),
        ("time", "yesterday", "not a time"),
        ("lsn", "0/1", "no backup ends before the target"),
        ("lsn", "FFFF/0", "lies after the last WAL"),
        ("xid", "many", "is not a number"),
    ]
    for by, value, words in refusals:
        with pytest.raises(TargetError, match=words):
            iop_stack.restore(by=by, value=value)
        assert running(iop_stack)
    with pytest.raises(UsageError, match="by what"):
        iop_stack.restore(value="0/3000000")
    assert running(iop_stack)


def test_a_target_after_the_last_commit_is_refused_by_postgresql_in_its_own_words(iop_stack: Drill) -> None:
    with iop_stack.connect() as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    with pytest.raises(RecoveryError, match="recovery ended before configured recovery target was reached") as caught:
        iop_stack.restore(by="time", value=format_time(row[0]))
    assert "HINT: the target lies after the last archived WAL" in str(caught.value)
