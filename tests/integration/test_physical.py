"""Damage of each kind, made on a cluster of its own: each line of the tables is one, with the words that name it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from clusters import Server, copied, new_server
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof import pages
from pytest_iopbackup.proof.capture import capture
from pytest_iopbackup.proof.constraints import with_value
from pytest_iopbackup.proof.mark import Mark
from pytest_iopbackup.proof.pages import verify_pages
from pytest_iopbackup.proof.physical import examine
from pytest_iopbackup.proof.prove import prove
from pytest_iopbackup.proof.session import connector, scratch
from pytest_iopbackup.proof.verdict import describe, verdict
from pytest_iopbackup.proven import Finding, PhysicalFacts, ProofFacts, Verdict
from pytest_iopbackup.record import MarkFacts
from pytest_iopbackup.stack.host import account

pytestmark = pytest.mark.integration

BLOCK = 8192
NO_GIN = "amcheck has no check of gin indexes here"
Result = tuple[PhysicalFacts, tuple[Finding, ...]]

SOURCE = """
CREATE SCHEMA s;
CREATE DOMAIN s.age AS integer CONSTRAINT age_check CHECK (VALUE >= 0);
CREATE DOMAIN s.name AS text NOT NULL CONSTRAINT name_check CHECK (VALUE <> 'no ''VALUE''' AND VALUE !~ '^\\s');
CREATE DOMAIN s.short AS s.name CONSTRAINT short_check CHECK (length(VALUE) < 20);
CREATE TYPE s.pair AS (a s.age, b text);
CREATE FUNCTION s.unqualified(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    AS 'BEGIN PERFORM 1 FROM helper; RETURN $1 > 0; END';
CREATE TABLE public.helper (id integer);
CREATE COLLATION s.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

CREATE TABLE s.users (
    id integer CONSTRAINT users_pkey PRIMARY KEY,
    email text COLLATE s.caseless NOT NULL CONSTRAINT users_email_key UNIQUE,
    name s.short,
    age s.age,
    ages s.age[],
    pair s.pair,
    filled s.pair NOT NULL DEFAULT '(,)',
    boss integer CONSTRAINT users_boss_fkey REFERENCES s.users DEFERRABLE INITIALLY DEFERRED,
    quota integer CONSTRAINT users_quota_check CHECK (quota > 0) CHECK (s.unqualified(quota + 5)),
    "odd %s" integer CHECK ("odd %s" <> 7),
    biography text
);
ALTER TABLE s.users ALTER biography SET STORAGE EXTERNAL;
INSERT INTO s.users (id, email, name, age, ages, pair, boss, quota, biography)
    SELECT n, 'u' || n || '@example.org', 'name ' || n, n, ARRAY[n], ROW(n::s.age, 'b'::text)::s.pair,
           nullif(n / 10, 0), n, CASE WHEN n % 50 = 0 THEN repeat('line ' || n, 2000) END
    FROM generate_series(1, 300) AS n;
SET CONSTRAINTS ALL IMMEDIATE;
CREATE INDEX users_age ON s.users (age);
CREATE UNIQUE INDEX users_lower ON s.users (lower(email COLLATE "C") text_pattern_ops) WHERE age < 1000;
CREATE INDEX users_ages ON s.users USING gin (ages);

CREATE TABLE s.places (street text, number integer, CONSTRAINT places_pkey PRIMARY KEY (street, number));
INSERT INTO s.places SELECT 'street ' || n % 5, n FROM generate_series(1, 50) AS n;
CREATE TABLE s.letters (
    id bigint, street varchar(30), number bigint,
    CONSTRAINT letters_fkey FOREIGN KEY (street, number) REFERENCES s.places (street, number) MATCH FULL
);
INSERT INTO s.letters SELECT n, 'street ' || n % 5, n FROM generate_series(1, 50) AS n;
INSERT INTO s.letters VALUES (51, NULL, NULL);

CREATE TABLE s.events (
    id bigint, day date, user_id integer CONSTRAINT events_user_fkey REFERENCES s.users, PRIMARY KEY (id, day)
) PARTITION BY RANGE (day);
CREATE TABLE s.events_1 PARTITION OF s.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE s.events_rest PARTITION OF s.events DEFAULT;
INSERT INTO s.events SELECT n, DATE '2026-01-25' + n, n FROM generate_series(1, 20) AS n;
CREATE TABLE s.guests (
    event bigint, day date, CONSTRAINT guests_fkey FOREIGN KEY (event, day) REFERENCES s.events (id, day)
);
INSERT INTO s.guests SELECT id, day FROM s.events;

CREATE TABLE s.bookings (room integer, during tsrange,
    CONSTRAINT bookings_excl EXCLUDE USING gist (during WITH &&) WHERE (room > 0));
INSERT INTO s.bookings SELECT 1, tsrange(day, day + interval '1 hour')
    FROM generate_series(timestamp '2026-01-01', timestamp '2026-01-20', interval '1 day') AS day;
INSERT INTO s.bookings SELECT 0, during FROM s.bookings;

CREATE TABLE s.later (id integer);
INSERT INTO s.later VALUES (-1);
ALTER TABLE s.later ADD CONSTRAINT later_check CHECK (id > 0) NOT VALID;
CREATE UNLOGGED TABLE s.cache (id integer PRIMARY KEY);
INSERT INTO s.cache SELECT generate_series(1, 100);
CREATE MATERIALIZED VIEW s.totals AS SELECT count(*) AS users FROM s.users;
CREATE TABLE s."No Columns" ();
INSERT INTO s."No Columns" DEFAULT VALUES;
CREATE EXTENSION pg_surgery;
"""

OTHER = """
CREATE TABLE t (id integer CONSTRAINT t_pkey PRIMARY KEY, v integer CONSTRAINT t_v_check CHECK (v > 0));
INSERT INTO t SELECT n, n FROM generate_series(1, 100) AS n;
"""


@pytest.fixture(scope="module")
def original() -> Iterator[Server]:
    """A cluster with data checksums, stopped."""
    with new_server() as server:
        with server.connect() as connection:
            connection.execute(SOURCE)
            connection.execute("CREATE DATABASE other")
        with server.connect("other") as connection:
            connection.execute(OTHER)
        server.stop()
        yield server
        server.start()  # for new_server stops it


@pytest.fixture
def stopped(original: Server) -> Iterator[Server]:
    with copied(original) as server:
        yield server


@pytest.fixture
def server(stopped: Server) -> Iterator[Server]:
    stopped.start()
    try:
        yield stopped
    finally:
        stopped.stop("immediate")


def look(server: Server) -> Result:
    with server.connect() as connection:
        return examine(connector(connection), 60)


def lines(findings: tuple[Finding, ...]) -> list[str]:
    return [f"{one.kind} {one.name}: expected {one.expected}, found {one.actual}" for one in findings]


def start_and_look(server: Server) -> Result:
    server.start()
    try:
        return look(server)
    finally:
        server.stop("immediate")


def inventory(server: Server) -> list[Any]:
    """Count the rows of every catalog, and of what else could have been left behind."""
    with server.connect() as connection:
        names = connection.execute("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' ORDER BY oid")
        return [
            (name, connection.execute(f"SELECT count(*), min(xmin::text) FROM ONLY {name}").fetchone())
            for (name,) in names.fetchall()
            if name != "pg_statistic"
        ]


def test_a_sound_cluster_has_no_finding_and_nothing_is_left_behind(server: Server) -> None:
    before = inventory(server)
    facts, findings = look(server)
    assert lines(findings) == []
    assert facts.databases == 3
    others = {"PG_VERSION", "pg_control", "pg_filenode.map", "pg_internal.init"}
    places = (server.data / "base", server.data / "global")
    files = [path for place in places for path in place.rglob("*") if path.is_file() and path.name not in others]
    assert abs(facts.files - len(files)) < 5  # the checks themselves make a few
    assert abs(facts.pages - sum(path.stat().st_size for path in files) // BLOCK) < 50
    assert facts.pages > 3000
    assert facts.tables > 3 * 90
    assert facts.indexes > 3 * 150
    assert facts.constraints > 30
    with server.connect() as connection:
        gin = {} if connection.info.server_version >= 180000 else {"index s.users_ages": NO_GIN}
    assert facts.omissions == gin | {
        "constraint s.later.later_check": "NOT VALID",
        "index s.bookings_excl": "amcheck has no check of gist indexes here",
        "heaps and indexes of database template0": "it accepts no connections",
    }
    assert inventory(server) == before


def remade(table: str, drop: str, harm: str, add: str, name: str) -> tuple[str, ...]:
    """Break a constraint while it is not there, and put it back as if nothing had happened."""
    return (
        f"ALTER {table} DROP CONSTRAINT {drop}",
        harm,
        f"ALTER {table} ADD CONSTRAINT {add} NOT VALID",
        f"UPDATE pg_constraint SET convalidated = true WHERE conname = '{name}'",
    )


def behind(index: str, column: str, harm: str) -> tuple[str, ...]:
    """Do something while a column of an index's description is false."""
    switch = f"UPDATE pg_index SET {column} = {{}} WHERE indexrelid = '{index}'::regclass"
    return (switch.format("false"), harm, switch.format("true"))


def row(number: int, **columns: str) -> str:
    given = {"id": str(number), "email": f"'n{number}'", "name": "'n'", **columns}
    return f"INSERT INTO s.users ({', '.join(given)}) VALUES ({', '.join(given.values())})"


REPLICA = "SET session_replication_role = replica"
HARM: dict[str, tuple[tuple[str, ...], str]] = {
    "index that lost an entry": (
        behind("s.users_age", "indisready", row(1000, age="7")),
        r'index s\.users_age: expected each row\'s entry in its place, found heap tuple \(\d+,\d+\) from table "users" '
        r'lacks matching index tuple within index "users_age"',
    ),
    "index with an entry at the wrong place": (
        (
            "CREATE OR REPLACE FUNCTION s.key(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1'",
            "CREATE INDEX users_key ON s.users (s.key(id))",
            "CREATE OR REPLACE FUNCTION s.key(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT -$1'",
        ),
        r"index s\.users_key: expected each row's entry in its place, found ",
    ),
    "foreign key": (
        (REPLICA, "UPDATE s.users SET boss = 999 WHERE id IN (7, 8)"),
        r"constraint s\.users\.users_boss_fkey: expected FOREIGN KEY \(boss\) REFERENCES s\.users\(id\) DEFERRABLE .*, "
        r"found 2 rows against it, one at s\.users \(\d+,\d+\)",
    ),
    "foreign key whose target is gone": (
        (REPLICA, "DELETE FROM s.places WHERE number = 17"),
        r"constraint s\.letters\.letters_fkey: expected FOREIGN KEY \(street, number\) .*, found 1 row against it",
    ),
    "foreign key, half null under MATCH FULL": (
        (REPLICA, "INSERT INTO s.letters VALUES (60, 'street 1', NULL)"),
        r"constraint s\.letters\.letters_fkey: .*found 1 row against it, at s\.letters ",
    ),
    "foreign key of a partition": (
        (REPLICA, "UPDATE s.events SET user_id = 999 WHERE id = 3"),
        r"constraint s\.events\.events_user_fkey: .*found 1 row against it, at s\.events_1 ",
    ),
    "foreign key to a partition": (
        (REPLICA, "DELETE FROM s.events WHERE id = 20"),
        r"constraint s\.guests\.guests_fkey: .*found 1 row against it, at s\.guests ",
    ),
    "check": (
        remade(
            "TABLE s.users",
            "users_quota_check",
            "INSERT INTO s.users (id, email, name, quota) VALUES (1000, 'a', 'n', 0), (1001, 'b', 'n', NULL)",
            "users_quota_check CHECK (quota > 0)",
            "users_quota_check",
        ),
        r"constraint s\.users\.users_quota_check: expected CHECK \(\(quota > 0\)\), found 1 row against it, at \(\d+,",
    ),
    "not null": (
        (
            "UPDATE pg_attribute SET attnotnull = false WHERE attrelid = 's.users'::regclass AND attname = 'email'",
            "UPDATE s.users SET email = NULL WHERE id = 3",
            "UPDATE pg_attribute SET attnotnull = true WHERE attrelid = 's.users'::regclass AND attname = 'email'",
        ),
        r"constraint s\.users\.email: expected NOT NULL, found 1 row against it, at \(\d+,\d+\)",
    ),
    "domain": (
        remade("DOMAIN s.age", "age_check", row(1000, age="-5"), "age_check CHECK (VALUE >= 0)", "age_check"),
        r"constraint s\.users\.age of domain s\.age: expected CHECK \(\(VALUE >= 0\)\), found 1 row against it",
    ),
    "domain under a domain": (
        remade(
            "DOMAIN s.name", "name_check", row(1000, name="'no ''VALUE'''"),
            "name_check CHECK (VALUE <> 'no ''VALUE''' AND VALUE !~ '^\\s')", "name_check",
        ),
        r"constraint s\.users\.name of domain s\.name: expected CHECK .*, found 1 row against it",
    ),
    "domain not null": (
        (
            "ALTER DOMAIN s.name DROP NOT NULL",
            row(1000, name="NULL"),
            "UPDATE pg_type SET typnotnull = true WHERE oid = 's.name'::regtype",
        ),
        r"constraint s\.users\.name of domain s\.name: expected NOT NULL, found 1 row against it",
    ),
    "domain in an array": (
        remade("DOMAIN s.age", "age_check", row(1000, ages="'{-5}'"), "age_check CHECK (VALUE >= 0)", "age_check"),
        r"constraint s\.users\.ages: expected values of type s\.age\[\], and of the domains in it, found "
        r'value for domain s\.age violates check constraint "age_check"',
    ),
    "domain in a composite": (
        remade("DOMAIN s.age", "age_check", row(1000, pair="'(-5,b)'"), "age_check CHECK (VALUE >= 0)", "age_check"),
        r"constraint s\.users\.pair: .* violates check constraint \"age_check\"",
    ),
    "row in the wrong partition": (
        (
            "ALTER TABLE s.guests DROP CONSTRAINT guests_fkey",
            "ALTER TABLE s.events DETACH PARTITION s.events_1",
            "INSERT INTO s.events_1 VALUES (99, '2026-07-01', 1)",
            "ALTER TABLE s.events_1 ADD CONSTRAINT bound "
            "CHECK (day IS NOT NULL AND day >= '2026-01-01' AND day < '2026-02-01') NOT VALID",
            "UPDATE pg_constraint SET convalidated = true WHERE conname = 'bound'",
            "ALTER TABLE s.events ATTACH PARTITION s.events_1 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
            "ALTER TABLE s.events_1 DROP CONSTRAINT bound",
        ),
        r"constraint s\.events_1: expected rows of its partition alone, found 1 row against it",
    ),
    "duplicate under a primary key": (
        behind("s.places_pkey", "indisunique", "INSERT INTO s.places SELECT * FROM s.places WHERE number IN (3, 4)"),
        r"constraint s\.places\.places_pkey: expected PRIMARY KEY \(street, number\), found 2 rows against it, one at",
    ),
    "duplicate that its collation alone calls equal": (
        behind("s.users_email_key", "indisunique", row(1000, email="'U7@Example.ORG'", age="5000")),
        r"constraint s\.users\.users_email_key: expected UNIQUE \(email\), found 1 row against it",
    ),
    "duplicate that is not in the index": (
        behind("s.users_email_key", "indisready", row(1000, email="'u7@example.org'", age="5000")),
        r"constraint s\.users\.users_email_key: expected UNIQUE \(email\), found 1 row against it",
    ),
    "duplicate under a unique index on an expression": (
        (
            "ALTER TABLE s.users DROP CONSTRAINT users_email_key",
            *behind("s.users_lower", "indisunique", row(1000, email="'U7@Example.ORG'", age="5")),
        ),
        r"index s\.users_lower: expected UNIQUE \(lower\(.*\), found 1 row against it",
    ),
    "overlap": (
        behind("s.bookings_excl", "indisexclusion", "INSERT INTO s.bookings SELECT * FROM s.bookings LIMIT 1"),
        r"constraint s\.bookings\.bookings_excl: expected EXCLUDE USING gist .*, found could not create exclusion "
        r'constraint .*; Key \(during\)=.* conflicts with key',
    ),
    "missing TOAST chunk": (
        (
            "DO $$ DECLARE toast regclass; place tid; BEGIN "
            "SELECT reltoastrelid INTO toast FROM pg_class WHERE oid = 's.users'::regclass; "
            "EXECUTE format('SELECT ctid FROM %s WHERE chunk_seq = 1 LIMIT 1', toast) INTO place; "
            "PERFORM heap_force_kill(toast, ARRAY[place]); END $$",
        ),
        r"table s\.users: expected sound, found block \d+, item \d+, attribute \d+: toast value \d+ ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statements", "named"), HARM.values(), ids=list(HARM))
def test_harm_is_named(server: Server, statements: tuple[str, ...], named: str) -> None:
    with server.connect() as connection:
        for statement in statements:
            connection.execute(statement)
    _, findings = look(server)
    assert [line for line in lines(findings) if re.match(named, line)], lines(findings)


def test_harm_in_another_database_is_named(server: Server) -> None:
    with server.connect("other") as connection:
        for statement in (
            *remade("TABLE t", "t_v_check", "UPDATE t SET v = 0", "t_v_check CHECK (v > 0)", "t_v_check"),
            *behind("t_pkey", "indisready", "INSERT INTO t VALUES (1000, 1)"),
        ):
            connection.execute(statement)
    found = "\n".join(lines(look(server)[1]))
    assert "constraint public.t.t_v_check in database other: expected CHECK ((v > 0)), found 100 rows against" in found
    assert "index public.t_pkey in database other: expected each row's entry in its place, found heap tuple" in found


def path_of(server: Server, relation: str, dbname: str = "postgres") -> Path:
    """Return a relation's first file; the server is stopped afterwards."""
    server.start()
    with server.connect(dbname) as connection:
        found = connection.execute("SELECT pg_relation_filepath(%s)", (relation,)).fetchone()
    assert found
    server.stop()
    return server.data / str(found[0])


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def page_damage(path: Path, where: Callable[[bytearray], None]) -> None:
    content = bytearray(path.read_bytes())
    where(content)
    path.write_bytes(content)


def newer(content: bytearray) -> None:
    content[0:4] = b"\0\0\0\x7f"  # the LSN's upper half: far in the future


def pretended(content: bytearray) -> None:
    content[14:16] = b"\0\0"  # pd_upper: 0 is a page that was never written


PAGES: dict[str, tuple[Callable[[bytearray], None], str]] = {
    "a byte of a tuple": (lambda content: content.__setitem__(BLOCK - 9, content[BLOCK - 9] ^ 1), "block 0"),
    "a byte of another page": (
        lambda content: content.__setitem__(2 * BLOCK - 9, content[2 * BLOCK - 9] ^ 1),
        "block 1",
    ),
    "a page newer than everything": (newer, "block 0"),
    "a page that says it is new": (pretended, "block 0"),
}


@pytest.mark.parametrize(("damage", "block"), PAGES.values(), ids=list(PAGES))
def test_a_page_that_does_not_match_its_checksum_is_named(
    stopped: Server, damage: Callable[[bytearray], None], block: str
) -> None:
    path = path_of(stopped, "s.users")
    page_damage(path, damage)
    name = re.escape(str(path.relative_to(stopped.data)))
    found = lines(start_and_look(stopped)[1])
    expected = rf"file {name} \(s\.users\): expected pages that match their checksums, found 1 of \d+ do not: {block}$"
    assert [line for line in found if re.match(expected, line)], found


def test_a_page_of_a_database_that_takes_no_connections_is_named(stopped: Server) -> None:
    stopped.start()
    with stopped.connect() as connection:
        oid = connection.execute("SELECT oid::text FROM pg_database WHERE datname = 'template0'").fetchone()
    assert oid
    stopped.stop()
    path = max((stopped.data / "base" / oid[0]).glob("[0-9]*"), key=lambda file: file.stat().st_size)
    flip(path, 5 * BLOCK + 4000)
    found = lines(start_and_look(stopped)[1])
    assert len(found) == 1
    assert re.match(rf"file base/{oid[0]}/{path.name} \(database template0\): .* 1 of \d+ do not: block 5", found[0])


def test_a_free_space_map_counts_too(stopped: Server) -> None:
    table = path_of(stopped, "pg_proc")
    path = table.with_name(f"{table.name}_fsm")
    flip(path, 100)
    found = lines(start_and_look(stopped)[1])
    assert [line for line in found if f"/{path.name} (pg_proc): expected pages that match their checksums" in line], (
        found
    )


def test_a_file_cut_within_a_page_is_named(stopped: Server) -> None:
    path = path_of(stopped, "s.places")
    path.write_bytes(path.read_bytes()[:-100])
    found = lines(start_and_look(stopped)[1])
    assert [line for line in found if "(s.places)" in line and "found its size, 8092 bytes, is not a number" in line]


@pytest.mark.parametrize("settled", ["written", "removed"])
def test_a_page_that_is_being_written_is_read_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, settled: str
) -> None:
    with server.connect() as connection:
        connection.execute("CREATE TABLE s.busy AS SELECT generate_series(1, 1000) AS id; CHECKPOINT")
        found = connection.execute("SELECT pg_relation_filepath('s.busy')").fetchone()
    assert found
    path = server.data / found[0]
    flip(path, 5000)
    waits: list[float] = []

    def settle(pause: float) -> None:
        waits.append(pause)
        if len(waits) == 2:
            flip(path, 5000) if settled == "written" else path.unlink()

    monkeypatch.setattr(f"{pages.__name__}.time.sleep", settle)
    with server.connect() as connection, scratch(connection, 60) as cursor:
        assert verify_pages(cursor).findings == ()
    assert len(waits) == 2


def test_an_expression_that_no_path_finds_is_named(server: Server) -> None:
    with server.connect() as connection:
        connection.execute("ALTER TABLE public.helper RENAME TO gone")
    facts, findings = look(server)
    assert findings == ()
    name = "constraint s.users.users_quota_check1"
    assert {what: why for what, why in facts.omissions.items() if what == name} == {
        name: 'relation "helper" does not exist'
    }


def test_a_tablespace_is_read_as_well(server: Server) -> None:
    place = server.root / "space"
    place.mkdir()
    account().own(place)
    with server.connect() as connection:
        connection.execute(f"CREATE TABLESPACE space LOCATION '{place}'")
        connection.execute("CREATE TABLE s.afar TABLESPACE space AS SELECT generate_series(1, 1000) AS id")
        found = connection.execute("SELECT pg_relation_filepath('s.afar')").fetchone()
        connection.execute("CHECKPOINT")
    assert found
    assert look(server)[1] == ()
    flip(server.data / found[0], 8000)
    named = lines(look(server)[1])
    assert [line for line in named if line.startswith(f"file {found[0]} (s.afar): ")], named


def test_a_catalog_that_cannot_be_read_is_a_finding_wherever_it_shows(stopped: Server) -> None:
    path = path_of(stopped, "pg_attribute", "other")
    for block in range(path.stat().st_size // BLOCK):
        flip(path, block * BLOCK + 8000)
    found = lines(start_and_look(stopped)[1])
    assert [line for line in found if re.match(rf"file base/\d+/{path.name} \(database other\): ", line)], found
    assert [line for line in found if line.startswith("database other: expected accepts sessions, found ")], found


def test_what_damage_kept_from_being_looked_at_is_named_beside_it(stopped: Server) -> None:
    path = path_of(stopped, "pg_constraint")
    for block in range(path.stat().st_size // BLOCK):
        flip(path, block * BLOCK + 8000)
    facts, findings = start_and_look(stopped)
    found = lines(findings)
    assert [
        line for line in found if line.startswith("catalogs for constraints: expected readable, found invalid page")
    ]
    assert "invalid page in block" in facts.omissions["constraints"]
    if "heaps and indexes" not in facts.omissions:  # from PostgreSQL 18 on, an extension cannot be made then
        assert [line for line in found if re.match(rf"file .*/{path.name} \(pg_constraint\): ", line)], found
        assert [line for line in found if line.startswith("table pg_catalog.pg_constraint: expected sound, found ")], (
            found
        )


def without_checksums(server: Server) -> None:
    server.run("pg_checksums", "--disable", "--no-sync")


def test_without_checksums_that_is_said_and_amcheck_has_to_see_it(stopped: Server) -> None:
    path = path_of(stopped, "s.users")
    without_checksums(stopped)

    def future(content: bytearray) -> None:
        tuple_at = struct.unpack_from("<I", content, 24)[0] & 0x7FFF
        struct.pack_into("<I", content, tuple_at, 0x70000000)  # t_xmin

    page_damage(path, future)
    facts, findings = start_and_look(stopped)
    assert facts.omissions["page checksums"] == "data checksums are off"
    assert facts.pages == 0
    assert [
        line
        for line in lines(findings)
        if re.match(
            r"table s\.users: expected sound, found block 0, item 1: xmin \d+ equals or exceeds next valid", line
        )
    ], lines(findings)


def test_a_page_header_that_makes_no_sense_is_found_without_checksums(stopped: Server) -> None:
    path = path_of(stopped, "s.users")
    without_checksums(stopped)
    page_damage(path, lambda content: content.__setitem__(slice(12, 14), b"\xff\xff"))  # pd_lower
    found = lines(start_and_look(stopped)[1])
    assert [line for line in found if "table s.users: expected sound, found invalid page in block 0" in line], found
    assert not [line for line in found if line.startswith("file ")]


def test_an_extension_that_is_installed_is_used_and_stays(server: Server) -> None:
    with server.connect() as connection:
        connection.execute('CREATE SCHEMA "Mine"; CREATE EXTENSION amcheck SCHEMA "Mine" VERSION \'1.2\'')
        connection.execute('CREATE EXTENSION pageinspect SCHEMA "Mine"')
    facts, findings = look(server)
    assert findings == ()
    assert facts.tables > 270
    with server.connect() as connection:
        version = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'amcheck'").fetchone()
    assert version == ("1.2",)


def test_an_event_trigger_of_the_database_sees_nothing(server: Server) -> None:
    with server.connect() as connection:
        connection.execute(
            "CREATE FUNCTION s.no() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$no$$; END'"
        )
        connection.execute("CREATE EVENT TRIGGER no ON ddl_command_end EXECUTE FUNCTION s.no()")
        connection.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    facts, findings = look(server)
    assert findings == ()
    assert facts.tables > 270


def test_a_standby_says_what_it_cannot_do(stopped: Server) -> None:
    (stopped.data / "standby.signal").touch()
    facts, findings = start_and_look(stopped)
    assert findings == ()
    missing = "extension amcheck is not installed, and a server in recovery can install nothing"
    assert facts.omissions["heaps and indexes"] == missing
    assert facts.omissions["page checksums"] == missing.replace("amcheck", "pageinspect")
    assert "constraint s.bookings.bookings_excl" in facts.omissions
    assert facts.constraints > 30


def test_a_standby_with_the_extensions_looks_at_the_same(stopped: Server) -> None:
    stopped.start()
    for name in ("postgres", "other", "template1"):
        with stopped.connect(name) as connection:
            connection.execute("CREATE EXTENSION amcheck; CREATE EXTENSION pageinspect")
    with stopped.connect() as connection:
        for statement in behind("s.users_age", "indisready", row(1000, age="7")):
            connection.execute(statement)
    stopped.stop()
    (stopped.data / "standby.signal").touch()
    facts, findings = start_and_look(stopped)
    assert [line.partition(": ")[0] for line in lines(findings)] == ["index s.users_age"]
    assert facts.pages > 3000
    assert facts.omissions["parents of B-tree pages"] == "a server in recovery cannot take the lock for that"


def test_a_lock_in_the_way_is_no_verdict(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE s.users IN ACCESS EXCLUSIVE MODE")
        with server.connect() as other, pytest.raises(ProofError, match="canceling statement due to statement timeout"):
            examine(connector(other), 0.5)


def test_a_server_without_a_connection_to_spare_is_no_verdict(server: Server) -> None:
    with server.connect() as connection:
        connect = connector(connection)
        server.stop("immediate")
        with pytest.raises(ProofError, match="connection"):
            examine(connect, 60)
        server.start()


@pytest.fixture(scope="module")
def mark(original: Server, tmp_path_factory: pytest.TempPathFactory) -> Mark:
    """What is expected, taken from a copy of the cluster as it is."""
    with copied(original) as server:
        server.start()
        with server.connect() as connection:
            expected = capture(connection, tmp_path_factory.mktemp("capture") / "mark")
        server.stop("immediate")
    facts = MarkFacts(
        name="here",
        lsn="0/1",
        xid=1,
        time=datetime.now(timezone.utc),
        timeline=1,
        tables=len(expected.tables),
        rows=expected.rows,
        writers_waited=0,
    )
    return Mark(facts, expected, "000000010000000000000001")


def proven(server: Server, mark: Mark, seconds: float | None = 60) -> ProofFacts:
    with server.connect() as connection:
        return prove(connection, mark, None, seconds=seconds)


def test_a_proof_is_of_rows_and_of_what_holds_them(server: Server, mark: Mark) -> None:
    facts = proven(server, mark)
    assert verdict(facts) == (Verdict.PASSED, None)
    assert facts.rows > 400
    assert facts.physical
    assert facts.physical.tables > 270
    assert proven(server, mark, None).physical is None


def test_damage_that_keeps_rows_from_being_read_is_a_failure(stopped: Server, mark: Mark) -> None:
    path = path_of(stopped, "pg_constraint")
    for block in range(path.stat().st_size // BLOCK):
        flip(path, block * BLOCK + 8000)
    stopped.start()
    try:
        facts = proven(stopped, mark)
        with pytest.raises(ProofError, match="invalid page in block"):
            proven(stopped, mark, None)
    finally:
        stopped.stop("immediate")
    outcome, reason = verdict(facts)
    assert outcome is Verdict.FAILED
    assert reason
    assert "database postgres: expected readable, found the database could not be read: invalid page in" in reason
    assert "catalogs for constraints: expected readable, found invalid page in block" in describe(facts)


def test_what_could_not_be_looked_over_is_unknown_unless_rows_differ(server: Server, mark: Mark) -> None:
    with server.connect() as writer, writer.transaction():
        writer.execute("LOCK TABLE s.users IN ROW EXCLUSIVE MODE")  # rows can be read, but indexes not be checked
        with pytest.raises(ProofError, match="canceling statement due to statement timeout"):
            proven(server, mark, 0.5)
    with server.connect() as writer, writer.transaction():
        with server.connect() as other:
            other.execute("DELETE FROM s.letters WHERE id = 7")
        writer.execute("LOCK TABLE s.users IN ROW EXCLUSIVE MODE")
        facts = proven(server, mark, 0.5)
    assert verdict(facts) == (Verdict.FAILED, 's.letters: 1 row missing ((7,"street 2",7))')
    assert facts.physical is None


def test_predicates_take_the_value_where_it_is_meant() -> None:
    text = """((VALUE <> 'no ''VALUE'' here'::text) AND "VALUE"(VALUE) AND (JSON_VALUE > 1))"""
    assert with_value(text, "(c)::text") == (
        """(((c)::text <> 'no ''VALUE'' here'::text) AND "VALUE"((c)::text) AND (JSON_VALUE > 1))"""
    )
