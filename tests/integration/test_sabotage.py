"""Each way to get a restore wrong must end red, with the right reason: a proof that cannot fail proves nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from test_proof import BLIND, SOURCE, bare

from broken import LOSE_ENTRIES
from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.pgbackrest import info
from pytest_iopbackup.cluster.targets import format_time
from pytest_iopbackup.dataset.ledger import Entry, Outcome
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import RecoveryError, TargetError, UsageError
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.proof.verdict import describe, verdict
from pytest_iopbackup.proven import Verdict
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


@dataclass(frozen=True)
class Saboteur:
    """What is done after mark "point" and some more transactions, a restore included, and the words it must get."""

    name: str
    sabotage: Callable[[Drill], None]
    words: str
    mark: str = "point"
    """What the database is taken for in the end."""


def after(*statements: str) -> Callable[[Drill], None]:
    """Restore as it should be, and change something then."""

    def sabotage(drill: Drill) -> None:
        drill.restore("point")
        with drill.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    return sabotage


def acknowledged(drill: Drill) -> list[Entry]:
    """Return what was committed, in the order of its commits."""
    found = [entry for entry in drill.ledger.entries() if entry.outcome is Outcome.ACKNOWLEDGED and entry.lsn]
    return sorted(found, key=lambda entry: parse_lsn(entry.lsn or ""))


def one_early(drill: Drill) -> None:
    """Stop after the last transaction but one before the mark."""
    early = [entry for entry in acknowledged(drill) if entry.time and entry.time < marked(drill)]
    drill.restore(by="xid", value=str(early[-2].xid))


def one_late(drill: Drill) -> None:
    """Stop after the first transaction behind the mark."""
    late = [entry for entry in acknowledged(drill) if entry.time and entry.time > marked(drill)]
    drill.restore(by="xid", value=str(late[0].xid))


def marked(drill: Drill) -> datetime:
    return drill.history.mark("point").facts.time


def wrong_timeline(drill: Drill) -> None:
    """Mark the timeline that begins with a restore, and restore along the one that it left."""
    drill.mark("left")
    drill.restore("point")
    drill.write(20)
    drill.mark("right")
    drill.restore("left")


def wrong_set(drill: Drill) -> None:
    """Restore to the end of a backup that is older than the mark."""
    drill.restore(backup="older")


def recovery_ends_early(drill: Drill) -> None:
    """Lose a WAL segment, and everything: a restore to the end of the WAL stops before the gap and reports success."""
    remove_wal_after_newest_backup(drill)
    drill.lose()
    drill.restore()


def page_damaged(drill: Drill) -> None:
    """Flip one bit in an index that no row is read from."""
    drill.restore("point")
    with drill.connect() as connection:
        connection.execute("CHECKPOINT")
        found = connection.execute("SELECT pg_relation_filepath('identity.sessions_user_id_idx')").fetchone()
    assert found
    drill.stack.stop(Service.DATABASE)
    path = drill.stack.places.data / found[0]
    content = bytearray(path.read_bytes())
    content[8192 + 8000] ^= 0x10
    path.write_bytes(content)
    drill.stack.start(Service.DATABASE)
    wait_until(lambda: up(drill), limit=30, what="the database")


def up(drill: Drill) -> bool:
    try:
        drill.connect().close()
    except psycopg.OperationalError:
        return False
    return True


ID = r"\(id=[0-9a-f-]{36}\)"
SABOTEURS = (
    Saboteur(
        "row lost",
        after("DELETE FROM identity.credentials WHERE ctid = (SELECT min(ctid) FROM identity.credentials)"),
        rf"failed: identity\.credentials: 1 row missing {ID}",
    ),
    Saboteur(
        "row changed",
        after("UPDATE identity.users SET given_name = given_name || ' ' WHERE number = 1"),
        r"failed: identity\.users: 1 row changed \(id=[0-9a-f-]{36} \(given_name, display_name\)\)",
    ),
    Saboteur(
        "row added",
        after("INSERT INTO identity.settings (key, value, changed_at) VALUES ('sabotage.extra.row', '1', now())"),
        r"failed: identity\.settings: 1 row unexpected \(key=sabotage.extra.row\)",
    ),
    Saboteur(
        "row doubled",
        after("INSERT INTO identity.login_attempts SELECT * FROM identity.login_attempts LIMIT 1"),
        r"failed: identity\.login_attempts: 1 row unexpected",
    ),
    Saboteur(
        "values swapped between two rows",
        after(
            "UPDATE identity.users AS u SET created_at = o.created_at FROM identity.users AS o "
            "WHERE (u.number, o.number) IN ((1, 2), (2, 1))"
        ),
        r"failed: identity\.users: 2 rows changed \(id=[0-9a-f-]{36} \(created_at\), id=[0-9a-f-]{36} \(created_at\)\)",
    ),
    Saboteur(
        "sequence behind",
        after("SELECT setval('identity.users_number_seq', 7)"),
        r"failed: sequence identity\.users_number_seq: expected .*, found .*7",
    ),
    Saboteur(
        "constraint dropped",
        after("ALTER TABLE identity.sessions DROP CONSTRAINT sessions_user_id_fkey"),
        r"failed: constraint .*sessions_user_id_fkey.*: expected FOREIGN KEY .*, found missing",
    ),
    Saboteur(
        "constraint violated",
        after("SET session_replication_role = replica", "DELETE FROM identity.users WHERE number = 3"),
        r"constraint identity\.credentials\.credentials_user_id_fkey: expected FOREIGN KEY \(user_id\) REFERENCES "
        r"identity\.users\(id\), found \d+ rows? against it",
    ),
    Saboteur(
        "grant revoked",
        after("REVOKE SELECT ON identity.users FROM iop_app"),
        r"failed: grant on relation identity\.users to iop_app: expected ",
    ),
    Saboteur(
        "large object changed",
        after("SELECT lo_put(loid, 0, '\\x00') FROM pg_largeobject ORDER BY loid, pageno LIMIT 1"),
        r"failed: pg_catalog\.pg_largeobject: 1 row changed",
    ),
    Saboteur(
        "large object missing",
        after("SELECT lo_unlink(min(loid)) FROM pg_largeobject"),
        r"failed: pg_catalog\.pg_largeobject: \d+ rows? missing \(loid=\d+, pageno=0",
    ),
    Saboteur(
        "index without an entry",
        after(*LOSE_ENTRIES),
        r"failed: index identity\.sessions_user_id_idx: expected each row's entry in its place, found heap tuple",
    ),
    Saboteur(
        "page damaged that no row is read from",
        page_damaged,
        r"file base/\d+/\d+ \(identity\.sessions_user_id_idx\): expected pages that match their checksums, found 1 of",
    ),
    Saboteur("one transaction early", one_early, r"failed: 1 acknowledged transaction lost \("),
    Saboteur(
        "one transaction late",
        one_late,
        r"(?s)failed: .*identity\.audit_log.*: 1 row unexpected.*1 transaction unexpected",
    ),
    Saboteur(
        "wrong timeline",
        wrong_timeline,
        r"(?s)failed: \d+ acknowledged transactions lost.*\d+ transactions unexpected",
        mark="right",
    ),
    Saboteur("wrong backup set", wrong_set, r"failed: \d+ acknowledged transactions lost"),
    Saboteur(
        "recovery that ends before a missing segment",
        recovery_ends_early,
        r"failed: \d+ acknowledged transactions lost",
    ),
)


@pytest.mark.parametrize("saboteur", SABOTEURS, ids=lambda saboteur: saboteur.name)
def test_each_saboteur_is_caught(iop_stack: Drill, saboteur: Saboteur) -> None:
    iop_stack.backup("diff", "older")
    iop_stack.write(40, clients=1)
    iop_stack.mark("point")
    iop_stack.write(20, clients=1)
    saboteur.sabotage(iop_stack)
    with pytest.raises(AssertionError, match=saboteur.words):
        iop_stack.expect(saboteur.mark)


def test_no_digest_is_blind_to_a_value_that_looks_the_same(iop_stack: Drill) -> None:
    kinds = ", ".join(f"c{number} {kind}" for number, (kind, _, _) in enumerate(BLIND))
    with iop_stack.connect() as connection:
        for line in SOURCE.splitlines():
            if line.startswith(("CREATE ROLE", "CREATE TYPE", "CREATE DOMAIN", "CREATE COLLATION")):
                connection.execute(line.encode())
        connection.execute(f"CREATE TABLE identity.blind (id integer PRIMARY KEY, {kinds})".encode())
        casts = ", ".join("NULL" if value is None else f"%s::{bare(kind)}" for kind, value, _ in BLIND)
        values = [value for _, value, _ in BLIND if value is not None]
        connection.execute(f"INSERT INTO identity.blind VALUES (1, {casts})".encode(), values)
    iop_stack.mark("point")
    iop_stack.restore("point", "time")
    seen = []
    with iop_stack.connect() as connection:
        for number, (kind, value, changed) in enumerate(BLIND):
            change = f"UPDATE identity.blind SET c{number} = %s::{bare(kind)}".encode()
            connection.execute(change, (changed,))
            proof = iop_stack.prove("point", physical=False)
            seen.append((number, verdict(proof)))
            connection.execute(change, (value,))
    for number, (outcome, reason) in seen:
        named = re.fullmatch(
            r"identity\.blind: 1 row changed \(id=1(?: \((?:one of )?c(\d+)(?: … c(\d+))?\))?\)", reason or ""
        )
        assert (outcome, named is not None) == (Verdict.FAILED, True), (BLIND[number], reason)
        if named and named[1]:  # the column, or the few that share its bits
            assert int(named[1]) <= number <= int(named[2] or named[1])
    assert len(seen) > 40
    facts = iop_stack.expect("point")
    assert describe(facts).endswith("no difference")


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
