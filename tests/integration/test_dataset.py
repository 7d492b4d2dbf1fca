"""The dataset and the workload on a real server; databases are cloned from one that was loaded once."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from pytest_iopbackup.dataset import workload
from pytest_iopbackup.dataset.client import Client
from pytest_iopbackup.dataset.ending import Ending
from pytest_iopbackup.dataset.generate import make_dataset
from pytest_iopbackup.dataset.ledger import Entry, Ledger, Outcome
from pytest_iopbackup.dataset.load import load
from pytest_iopbackup.dataset.plan import DOOMED, Plan
from pytest_iopbackup.dataset.pools import AWKWARD
from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.dataset.workload import WorkloadSpec, WorkloadStats, run_workload
from pytest_iopbackup.errors import DeadlineError, ProofError, UsageError
from pytest_iopbackup.stack.binaries import find_binaries
from pytest_iopbackup.stack.host import account

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[tuple[Any, ...]]
Connect = Callable[[], Connection]
Reader = Callable[..., list[tuple[Any, ...]]]

SPEC = DatasetSpec(seed=42, users=2000)

SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "track_commit_timestamp": "on",
    "timezone": "Asia/Kolkata",  # results must not depend on it
    "synchronous_commit": "off",  # nor may the workload rely on the default
    "max_prepared_transactions": "64",
}


@dataclass(frozen=True)
class Server:
    """A PostgreSQL of its own on a Unix socket."""

    root: Path
    names: Iterator[str] = field(default_factory=lambda: (f"d{number}" for number in count()))

    def run(self, program: str, *arguments: str) -> str:
        result: subprocess.CompletedProcess[str] = subprocess.run(
            [str(find_binaries().postgresql / program), *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"TZ": "UTC", "LC_ALL": "C"},
            timeout=60,
            **account().popen_arguments,
        )
        return result.stdout

    def start(self, **settings: str) -> None:
        data = f"{self.root}/data"
        self.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        with (self.root / "data/postgresql.auto.conf").open("a") as file:
            for name, value in {**SETTINGS, **settings, "unix_socket_directories": str(self.root)}.items():
                file.write(f"{name} = '{value}'\n")
        self.run("pg_ctl", "-D", data, "-w", "-s", "-l", f"{self.root}/log", "start")

    def stop(self) -> None:
        if (self.root / "data/postmaster.pid").exists():
            self.run("pg_ctl", "-D", f"{self.root}/data", "-w", "-s", "-m", "immediate", "stop")

    def connect(self, database: str = "postgres") -> Connection:
        return psycopg.connect(host=str(self.root), user="postgres", dbname=database, autocommit=True)

    def create(self, template: str = "template0", encoding: str = "UTF8") -> str:
        name = next(self.names)
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING '{encoding}'".encode())
        return name


@contextmanager
def running(**settings: str) -> Iterator[Server]:
    root = Path(tempfile.mkdtemp(prefix="iop-"))
    server = Server(root)
    try:
        account().own(root)
        server.start(**settings)
        yield server
    finally:
        server.stop()
        shutil.rmtree(root)


def silent(_done: int, _total: int) -> None:
    """Take progress and show none."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def loaded(server: Server) -> str:
    """A database with the dataset, never written to again."""
    name = server.create()
    with server.connect(name) as connection:
        load(connection, SPEC, silent)
    return name


@pytest.fixture(scope="module")
def reader(server: Server, loaded: str) -> Iterator[Reader]:
    """Ask a clone of the dataset."""
    with server.connect(server.create(loaded)) as connection:
        yield lambda query, *values: connection.execute(query, values or None).fetchall()


@pytest.fixture
def database(server: Server, loaded: str) -> Connect:
    """A clone of the dataset to write to: connects to it."""
    return partial(server.connect, server.create(loaded))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def digest(connection: Connection) -> dict[str, str | None]:
    """A hash of each table's rows, of large objects, and of what the sequences will give."""
    names = connection.execute(
        "SELECT oid::regclass::text FROM pg_class"
        " WHERE relnamespace = 'identity'::regnamespace AND relkind IN ('r', 'S')"
    ).fetchall()
    rows = "SELECT md5(string_agg(ROW(t.*)::text, ' ' ORDER BY ROW(t.*)::text COLLATE \"C\")) FROM {} AS t"
    queries = {name: rows.format(name) for (name,) in names}
    queries["large objects"] = "SELECT md5(string_agg(md5(lo_get(oid)), ' ' ORDER BY oid)) FROM pg_largeobject_metadata"
    return {name: answer for name, query in queries.items() for (answer,) in connection.execute(query.encode())}


def test_two_loads_of_one_seed_are_the_same_and_another_seed_differs(server: Server, loaded: str) -> None:
    same, other = server.create(), server.create()
    with server.connect(loaded) as one, server.connect(same) as two, server.connect(other) as three:
        load(two, SPEC, silent)
        load(three, DatasetSpec(seed=43, users=SPEC.users), silent)
        expected, found, different = digest(one), digest(two), digest(three)
    assert found == expected
    assert None not in expected.values()
    equal = {name for name in expected if expected[name] == different[name]}
    assert equal == {name for name in expected if name.endswith("_seq")}


def test_all_rows_are_there(reader: Reader) -> None:
    expected = {table.name: table.rows for table in make_dataset(SPEC).tables}
    found = {name: reader(f"SELECT count(*) FROM {name}")[0][0] for name in expected}
    assert found == expected


def test_progress_reaches_the_number_of_rows_and_tables_are_counted(server: Server) -> None:
    seen: list[tuple[int, int]] = []
    with server.connect(server.create()) as connection:
        rows = load(connection, DatasetSpec(users=5000), lambda done, total: seen.append((done, total)))
    total = sum(rows.values())
    assert seen == sorted(seen)
    assert len(seen) > len(rows)
    assert seen[-1] == (total, total)


def test_100000_users_load_within_10_seconds(server: Server) -> None:
    """The quickest of three counts, for other tests may have the machine meanwhile."""
    quickest = 60.0
    for _ in range(3):
        name = server.create()
        started = time.perf_counter()
        with server.connect(name) as connection:
            rows = load(connection, DatasetSpec(users=100_000), silent)
        quickest = min(quickest, time.perf_counter() - started)
        with server.connect() as connection:
            connection.execute(f"DROP DATABASE {name}".encode())
        assert rows["identity.users"] == 100_000
        if quickest < 10:
            break
    assert quickest < 10


def test_every_kind_of_type_is_used(reader: Reader) -> None:
    columns = """
        SELECT DISTINCT format_type(atttypid, NULL) FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE relnamespace = 'identity'::regnamespace AND relkind = 'r' AND attnum > 0
    """
    wanted = "uuid, text, jsonb, bytea, numeric, text[], interval, inet, cidr, bigint, boolean, oid"
    others = {"timestamp with time zone", "identity.user_status", "identity.member_role", "identity.credential_kind"}
    assert {name for (name,) in reader(columns)} >= {*wanted.split(", "), *others}


COUNTS = {
    "text beyond ASCII": "SELECT count(*) FROM identity.users WHERE display_name ~ '[^[:ascii:]]'",
    "e-mail in any case": "SELECT count(*) FROM identity.users u JOIN identity.users v ON v.email = upper(u.email)",
    "a generated column": "SELECT count(*) FROM identity.sessions WHERE lifetime = expires_at - started_at",
    "NULLs": "SELECT count(*) FROM identity.users WHERE biography IS NULL AND manager_id IS NULL",
    "empty texts": "SELECT count(*) FROM identity.users WHERE biography = ''",
    "compressed values": "SELECT count(*) FROM identity.users WHERE pg_column_compression(biography) IS NOT NULL",
    "values out of line": "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'identity.users'::regclass",
    "identity columns": "SELECT count(*) FROM pg_attribute WHERE attidentity IN ('a', 'd')",
    "a plain sequence": "SELECT last_value FROM identity.audit_log_id_seq",
    "large objects": "SELECT count(*) FROM identity.documents WHERE sha256(lo_get(content)) = content_sha256",
    "a month's partition": "SELECT count(*) FROM identity.audit_log_2025_03",
    "a default partition": "SELECT count(*) FROM identity.audit_log_default",
    "equal rows": "SELECT count(*) - count(DISTINCT l::text) FROM identity.login_attempts AS l",
    "a view": "SELECT count(*) FROM identity.active_members",
    "a function": "SELECT count(*) FROM identity.active_members WHERE identity.has_role(user_id, slug, role)",
    "a role": "SELECT count(*) FROM pg_roles WHERE rolname = 'iop_app' AND NOT rolcanlogin",
    "grants": "SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'iop_app'",
    "grants on large objects": "SELECT count(*) FROM pg_largeobject_metadata WHERE lomacl::text ~ 'iop_app=r/'",
    "statistics": "SELECT count(*) FROM pg_stats WHERE schemaname = 'identity' AND tablename = 'users'",
}


@pytest.mark.parametrize("what", COUNTS)
def test_the_dataset_has(reader: Reader, what: str) -> None:
    assert reader(COUNTS[what])[0][0] > 0


def test_every_constraint_is_valid_and_every_index_usable(reader: Reader) -> None:
    kinds = "SELECT DISTINCT contype::text FROM pg_constraint WHERE connamespace = 'identity'::regnamespace"
    assert {kind for (kind,) in reader(kinds)} >= {"p", "u", "f", "c"}
    assert reader("SELECT conname FROM pg_constraint WHERE NOT convalidated") == []
    assert reader("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid") == []


@pytest.mark.parametrize(
    ("error", "statement"),
    [
        (errors.UniqueViolation, "UPDATE identity.users SET email = 'Only.One@example.com'"),
        (errors.UniqueViolation, "UPDATE identity.users SET email = CASE number % 2 WHEN 0 THEN 'a@b' ELSE 'A@B' END"),
        (
            errors.UniqueViolation,
            "UPDATE identity.membership SET group_id = 1, user_id = (SELECT min(id::text)::uuid FROM identity.users)",
        ),
        (errors.ForeignKeyViolation, "DELETE FROM identity.users"),
        (errors.ForeignKeyViolation, "UPDATE identity.membership SET group_id = -1 WHERE group_id = 1"),
        (errors.ForeignKeyViolation, "UPDATE identity.users SET manager_id = gen_random_uuid()"),
        (errors.CheckViolation, "UPDATE identity.users SET quota = -1"),
        (errors.CheckViolation, "UPDATE identity.sessions SET expires_at = started_at"),
        (errors.NotNullViolation, "UPDATE identity.credentials SET secret = NULL"),
        (errors.InvalidTextRepresentation, "UPDATE identity.users SET status = 'unheard of'"),
        (errors.GeneratedAlways, "UPDATE identity.users SET display_name = ''"),
        (errors.GeneratedAlways, "INSERT INTO identity.users (number) VALUES (7)"),
        (errors.InsufficientPrivilege, "SET ROLE iop_app; DELETE FROM identity.audit_log"),
    ],
)
def test_the_schema_refuses(database: Connect, error: type[psycopg.Error], statement: str) -> None:
    with database() as connection, pytest.raises(error):
        connection.execute(f"BEGIN; {statement}; COMMIT".encode())


def test_sequences_go_on_behind_the_rows(database: Connect) -> None:
    with database() as connection:
        connection.execute(
            "INSERT INTO identity.users (id, email, given_name, locale, created_at)"
            " VALUES (gen_random_uuid(), 'a@b', 'A', 'en_US', now())"
        )
        connection.execute(
            "INSERT INTO identity.groups (slug, title, tags, budget, created_at) VALUES ('a', 'A', '{}', 0, now())"
        )
        connection.execute(
            "INSERT INTO identity.audit_log (occurred_at, request_id, action) VALUES (now(), gen_random_uuid(), 'a')"
        )
        found = connection.execute(
            "SELECT (SELECT max(number) FROM identity.users), (SELECT max(id) FROM identity.groups),"
            " (SELECT max(id) FROM identity.audit_log)"
        ).fetchone()
    rows = {table.name: table.rows for table in make_dataset(SPEC).tables}
    assert found == (rows["identity.users"] + 1, rows["identity.groups"] + 1, rows["identity.audit_log"] + 1)


def test_awkward_texts_arrive_unchanged(reader: Reader) -> None:
    found = {text for (text,) in reader("SELECT DISTINCT biography FROM identity.users")}
    assert found >= {*AWKWARD, None}


def test_a_database_that_is_not_empty_is_refused_and_left_alone(database: Connect) -> None:
    with database() as connection:
        before = digest(connection)
        with pytest.raises(UsageError, match="schema identity already"):
            load(connection, SPEC, silent)
        assert digest(connection) == before


def test_a_database_in_another_encoding_is_refused(server: Server) -> None:
    with server.connect(server.create(encoding="LATIN1")) as connection, pytest.raises(UsageError, match="LATIN1"):
        load(connection, SPEC, silent)


def test_a_load_that_fails_leaves_nothing(server: Server) -> None:
    class Stop(Exception):  # noqa: N818 - not an error
        pass

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise Stop

    with server.connect(server.create()) as connection:
        with pytest.raises(Stop):
            load(connection, SPEC, stop)
        assert connection.execute("SELECT to_regnamespace('identity')").fetchone() == (None,)


def write(
    connect: Connect, ledger: Ledger, *, number: int = 1, transactions: int = 400, clients: int = 4
) -> WorkloadStats:
    spec = WorkloadSpec(seed=7, number=number, transactions=transactions, clients=clients)
    return run_workload(connect, spec, ledger, silent)


def requests(connection: Connection) -> set[str]:
    found = connection.execute("SELECT request_id::text FROM identity.audit_log WHERE action LIKE 'workload.%'")
    return {request for (request,) in found}


def versions(connection: Connection) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    own = connection.execute(
        "SELECT 'workload.' || relname FROM pg_class WHERE relnamespace = 'workload'::regnamespace AND relkind = 'r'"
    )
    seeded = (f"identity.{name}" for name in ("users", "groups", "membership", "credentials", "sessions", "settings"))
    for table in (*seeded, *(name for (name,) in own)):
        key = "key" if table == "identity.settings" else "id"
        rows = connection.execute(f"SELECT {key}::text, version FROM {table}".encode())
        found.update({(table, text): version for text, version in rows})
    return found


def of_outcome(entries: Sequence[Entry], outcome: Outcome) -> list[Entry]:
    return [entry for entry in entries if entry.outcome is outcome]


def replay(before: dict[tuple[str, str], int], entries: Sequence[Entry]) -> dict[tuple[str, str], int]:
    """The versions that a ledger says must be there."""
    state = dict(before)
    for entry in of_outcome(entries, Outcome.ACKNOWLEDGED):
        for effect in entry.effects:
            if effect.version is None:
                del state[effect.table, effect.key]
            else:
                state[effect.table, effect.key] = effect.version
    return state


def test_the_ledger_is_what_the_database_holds(database: Connect, ledger: Ledger) -> None:
    with database() as connection:
        before = versions(connection)
        stats = write(database, ledger, number=1, transactions=1200, clients=8)
        write(database, ledger, number=2, transactions=300, clients=3)
        entries = ledger.entries()
        assert requests(connection) == {entry.request_id for entry in of_outcome(entries, Outcome.ACKNOWLEDGED)}
        after = versions(connection)
    assert after == replay(before, entries)
    assert max(after.values()) < DOOMED
    assert stats.acknowledged + stats.rolled_back == 1200
    assert (stats.indeterminate, stats.not_attempted) == (0, 0)
    assert {entry.client for entry in entries} == set(range(8))
    assert {entry.kind for entry in entries} >= {"register", "login", "logout", "leave", "avatar", "savepoint"}
    assert {entry.kind for entry in entries} >= {"make", "import", "empty", "alter", "drop"}
    rolled_back = of_outcome(entries, Outcome.ROLLED_BACK)
    assert len(rolled_back) > 50
    assert all(entry.time is None and entry.lsn is None for entry in rolled_back)
    assert all((entry.xid is None) == (entry.kind == "savepoint") for entry in rolled_back)


def test_xid_lsn_and_time_are_those_of_the_commit_records(server: Server, database: Connect, ledger: Ledger) -> None:
    with database() as connection:
        ((start,),) = connection.execute("SELECT pg_current_wal_insert_lsn()::text")
        write(database, ledger)
        ((end,),) = connection.execute("SELECT pg_switch_wal()::text")
    wal = server.run("pg_waldump", "-r", "Transaction", "-s", start, "-e", end, "-p", f"{server.root}/data/pg_wal")
    commits = r"tx:\s+(\d+), lsn: (\S+), .*desc: COMMIT(?:_PREPARED (\d+):)? ([\d-]+ [\d:.]+) UTC"
    records = {int(match[3] or match[1]): (match[2], match[4]) for match in re.finditer(commits, wal)}
    assert " ABORT_PREPARED " in wal
    assert " COMMIT_PREPARED " in wal
    assert re.search(r" COMMIT .* subxacts: ", wal)
    entries = of_outcome(ledger.entries(), Outcome.ACKNOWLEDGED)
    assert len(entries) > 300
    for entry in entries:
        assert entry.xid is not None
        assert entry.lsn is not None
        begins, stamp = records[entry.xid]
        assert position(begins) < position(entry.lsn) <= position(end)
        assert entry.time == datetime.fromisoformat(stamp).replace(tzinfo=timezone.utc)


def position(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def test_the_same_numbers_on_the_same_rows_do_the_same(server: Server, loaded: str, tmp_path: Path) -> None:
    done = []
    for number in (1, 2):
        ledger = Ledger(tmp_path / f"{number}.jsonl")
        write(partial(server.connect, server.create(loaded)), ledger)
        done.append(
            {entry.request_id: (entry.client, entry.kind, entry.outcome, entry.effects) for entry in ledger.entries()}
        )
    assert done[0] == done[1]


def test_acknowledged_means_on_disk_whatever_the_default(database: Connect, ledger: Ledger) -> None:
    with database() as connection:
        connection.execute("CREATE TABLE seen (setting text)")
        trigger(connection, "INSERT INTO public.seen VALUES (current_setting('synchronous_commit'))")
        write(database, ledger, transactions=20)
        assert connection.execute("SELECT DISTINCT setting FROM seen").fetchall() == [("on",)]


def test_progress_counts_transactions(database: Connect, ledger: Ledger) -> None:
    seen: list[tuple[int, int]] = []
    run_workload(database, WorkloadSpec(seed=7, number=1, transactions=101), ledger, lambda *done: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == (101, 101)


def test_marks_under_load_neither_fail_nor_stop_a_client(database: Connect, ledger: Ledger) -> None:
    """All tables locked in SHARE mode, by name, as a mark does it."""
    marks = 0

    def mark(done: int, total: int) -> None:
        nonlocal marks
        with database() as connection, connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '10s'; SET LOCAL deadlock_timeout = '1ms'")
            connection.execute(
                "LOCK identity.audit_log, identity.credentials, identity.groups, identity.login_attempts,"
                " identity.membership, identity.sessions, identity.settings, identity.users IN SHARE MODE"
            )
        marks += done < total

    stats = run_workload(database, WorkloadSpec(seed=7, number=1, transactions=2000), ledger, mark)
    assert stats.not_attempted == 0
    assert marks > 0


def trigger(connection: Connection, action: str, *, at_commit: bool = False, client: int | None = None) -> None:
    """Do something when the workload writes an audit row, or at that transaction's commit.

    Of a ``client``, only in the sixth transaction.
    """
    connection.execute(
        f"CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {action}; RETURN NULL; END$$".encode()
    )
    when = f"""WHEN (new.detail @> '{{"client": {client}, "transaction": "5"}}')""" if client is not None else ""
    kind, timing = ("CONSTRAINT", "DEFERRABLE INITIALLY DEFERRED") if at_commit else ("", "")
    connection.execute(
        f"CREATE {kind} TRIGGER act AFTER INSERT ON identity.audit_log {timing}"
        f" FOR EACH ROW {when} EXECUTE FUNCTION act()".encode()
    )


HANG_UP = "PERFORM pg_terminate_backend(pg_backend_pid())"


@pytest.mark.parametrize(
    ("at_commit", "outcome"),
    [(True, Outcome.INDETERMINATE), (False, Outcome.ROLLED_BACK)],
    ids=["in commit", "before it"],
)
def test_a_lost_connection_ends_one_client_and_is_entered(
    database: Connect, ledger: Ledger, at_commit: bool, outcome: Outcome
) -> None:
    with database() as connection:
        before = versions(connection)
        trigger(connection, HANG_UP, at_commit=at_commit, client=2)
        stats = write(database, ledger)
        entries = ledger.entries()
        assert requests(connection) == {entry.request_id for entry in of_outcome(entries, Outcome.ACKNOWLEDGED)}
        assert versions(connection) == replay(before, entries)
    last = [entry for entry in entries if entry.client == 2][-1]
    assert last.outcome is outcome
    assert last.effects
    assert (last.xid is not None) == at_commit
    assert stats.indeterminate == int(at_commit)
    assert stats.not_attempted == 94
    assert stats.acknowledged + stats.rolled_back + stats.indeterminate == 306


@pytest.mark.parametrize("after", ["prepare", "commit"])
def test_a_client_lost_between_the_two_phases_leaves_nothing_behind(
    database: Connect, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Its transaction is there or not, as the ledger allows, and holds no lock: the next write has its rows."""
    commit = Client._commit
    lost: list[str] = []

    def lose(client: Client, plan: Plan, xid: int) -> tuple[str, datetime]:
        if plan.ending is Ending.COMMIT_PREPARED and not lost:
            lost.append(plan.unit.request_id)
            if after == "commit":
                commit(client, plan, xid)
            with database() as killer:
                killer.execute("SELECT pg_terminate_backend(%s, 10000)", [client.session])
        return commit(client, plan, xid)

    monkeypatch.setattr(Client, "_commit", lose)
    with database() as connection:
        before = versions(connection)
        stats = write(database, ledger)
        assert (stats.indeterminate, stats.not_attempted > 0) == (1, True)
        (entry,) = of_outcome(ledger.entries(), Outcome.INDETERMINATE)
        assert [entry.request_id] == lost
        assert entry.xid
        assert connection.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)
        assert (entry.request_id in requests(connection)) == (after == "commit")
        outcome = Outcome.ACKNOWLEDGED if after == "commit" else Outcome.ROLLED_BACK
        known = [replace(each, outcome=outcome) if each == entry else each for each in ledger.entries()]
        assert versions(connection) == replay(before, known)
        assert write(database, ledger, number=2).not_attempted == 0


def test_where_nothing_can_be_prepared_that_kind_is_left_out(ledger: Ledger) -> None:
    with running(max_prepared_transactions="3") as server:
        name = server.create()
        with server.connect(name) as connection:
            load(connection, DatasetSpec(users=50), silent)
            ((start,),) = connection.execute("SELECT pg_current_wal_insert_lsn()::text")
            stats = write(partial(server.connect, name), ledger)
            ((end,),) = connection.execute("SELECT pg_switch_wal()::text")
        assert (stats.indeterminate, stats.not_attempted) == (0, 0)
        wal = server.run("pg_waldump", "-r", "Transaction", "-s", start, "-e", end, "-p", f"{server.root}/data/pg_wal")
    assert "COMMIT" in wal
    assert "PREPARE" not in wal


def test_what_is_done_beside_it_is_done_while_clients_are_at_work(database: Connect, ledger: Ledger) -> None:
    seen: list[int] = []

    def look(_number: int) -> None:
        before = len(ledger.entries())
        deadline = time.monotonic() + 10
        while len(ledger.entries()) < before + 10 and time.monotonic() < deadline:
            time.sleep(0.002)
        seen.append(len(ledger.entries()) - before)

    spec = WorkloadSpec(seed=7, number=1, transactions=300, clients=3, times=5)
    stats = run_workload(database, spec, ledger, silent, look)
    assert stats.not_attempted == 0
    assert len(seen) == 5
    assert min(seen) >= 10


def test_what_fails_beside_it_ends_it_and_lost_clients_end_what_waits(database: Connect, ledger: Ledger) -> None:
    class Stop(Exception):  # noqa: N818 - not an error
        pass

    def fail(_number: int) -> None:
        raise Stop

    spec = WorkloadSpec(seed=7, number=1, transactions=100_000, clients=3, times=50)
    with pytest.raises(Stop):
        run_workload(database, spec, ledger, silent, fail)
    assert len(ledger.entries()) < 10_000

    calls: list[int] = []
    with database() as connection:
        trigger(connection, HANG_UP)
        spec = WorkloadSpec(seed=7, number=2, transactions=400, clients=3, times=5)
        stats = run_workload(database, spec, ledger, silent, calls.append)
    assert stats.not_attempted > 300
    assert calls == []


def test_a_deadlock_is_a_rollback(database: Connect, ledger: Ledger) -> None:
    with database() as connection:
        trigger(connection, "RAISE SQLSTATE '40P01'", client=1)
        stats = write(database, ledger)
        present = requests(connection)
    assert stats.not_attempted == 0
    victims = [entry for entry in ledger.entries() if entry.xid is None and entry.kind != "savepoint"]
    assert [(entry.client, entry.outcome) for entry in victims] == [(1, Outcome.ROLLED_BACK)]
    assert victims[0].request_id not in present


@pytest.mark.parametrize(
    ("at_commit", "outcome"),
    [(True, Outcome.INDETERMINATE), (False, Outcome.ROLLED_BACK)],
    ids=["in commit", "before it"],
)
def test_any_other_error_is_raised_after_it_was_entered(
    database: Connect, ledger: Ledger, at_commit: bool, outcome: Outcome
) -> None:
    with database() as connection:
        trigger(connection, "RAISE EXCEPTION 'no more'", at_commit=at_commit, client=1)
        with pytest.raises(errors.RaiseException, match="no more"):
            write(database, ledger, transactions=100_000)
        entries = ledger.entries()
        assert requests(connection) == {entry.request_id for entry in of_outcome(entries, Outcome.ACKNOWLEDGED)}
    assert [entry for entry in entries if entry.client == 1][-1].outcome is outcome


def test_a_row_changed_by_someone_else_is_noticed(database: Connect, ledger: Ledger) -> None:
    with database() as connection:
        trigger(connection, "UPDATE identity.settings SET version = version + 1", client=0)
        with pytest.raises(ProofError, match="changed 0 rows where 1 was expected"):
            write(database, ledger, transactions=2000, clients=1)


def test_a_server_that_stands_still_is_an_error(
    database: Connect, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "_STALL_SECONDS", 0.5)
    with database() as connection, connection.transaction():
        connection.execute("LOCK TABLE identity.audit_log IN SHARE MODE")
        with pytest.raises(DeadlineError, match="0 of 400"):
            write(database, ledger)
    assert [entry.outcome for entry in ledger.entries() if entry.kind != "savepoint"] == [Outcome.ROLLED_BACK] * 4


def test_a_database_without_the_dataset_is_refused(server: Server, ledger: Ledger) -> None:
    with pytest.raises(UsageError, match=r"no table identity\.users"):
        write(server.connect, ledger)


def test_a_server_without_commit_timestamps_is_refused(ledger: Ledger) -> None:
    with running(track_commit_timestamp="off") as server, pytest.raises(UsageError, match="commit timestamps"):
        write(server.connect, ledger)
