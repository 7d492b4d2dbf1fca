"""Capture, change one thing, compare: each line of the tables below is one change that must be seen, and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from proof_server import facts, server, words
from psycopg import sql
from psycopg.rows import dict_row

from clusters import Server
from pytest_iopbackup.dataset.ledger import Effect, Entry, Outcome
from pytest_iopbackup.errors import MachineError, ProofError
from pytest_iopbackup.proof import rowset, taking
from pytest_iopbackup.proof.capture import Capture, capture, load
from pytest_iopbackup.proof.compare import Comparison, compare
from pytest_iopbackup.proof.cut import AtTime
from pytest_iopbackup.proof.judge import judge
from pytest_iopbackup.proof.requests import request_ids
from pytest_iopbackup.proof.sequences import SequenceState, read_states
from pytest_iopbackup.proof.session import PINNED, reading
from pytest_iopbackup.proof.sketch import Sketch
from pytest_iopbackup.proof.verdict import describe, verdict
from pytest_iopbackup.proven import Verdict

__all__ = ["server"]

pytestmark = pytest.mark.integration

SOURCE = """
CREATE ROLE app NOLOGIN;
CREATE ROLE auditor LOGIN PASSWORD 'first';
GRANT app TO auditor;
ALTER ROLE auditor SET work_mem = '8MB';
CREATE SCHEMA identity;
COMMENT ON SCHEMA identity IS 'who is who';
CREATE TYPE identity.mood AS ENUM ('sad', 'happy');
CREATE TYPE identity.pair AS (a text, b numeric);
CREATE DOMAIN identity.age AS integer CHECK (VALUE >= 0);
CREATE COLLATION identity.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

CREATE TABLE identity.users (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL CONSTRAINT users_email_key UNIQUE,
    mood identity.mood DEFAULT 'happy',
    dropped text,
    age identity.age,
    initial text GENERATED ALWAYS AS (left(email, 1)) STORED,
    biography text
);
ALTER TABLE identity.users ALTER biography SET STORAGE EXTERNAL, DROP dropped;
INSERT INTO identity.users (email, age, biography)
    SELECT 'Zoë' || n || '@example.org', n, CASE WHEN n % 50 = 0 THEN repeat('líne ' || n, 2000) END
    FROM generate_series(1, 200) AS n;
ALTER TABLE identity.users ADD since integer DEFAULT 7;
CREATE INDEX users_age ON identity.users (age);
COMMENT ON COLUMN identity.users.age IS 'in years';
GRANT SELECT, UPDATE ON identity.users TO app;
GRANT UPDATE (email) ON identity.users TO auditor;

CREATE TABLE identity.membership (
    user_id integer REFERENCES identity.users, group_id text, role text, PRIMARY KEY (user_id, group_id)
);
INSERT INTO identity.membership SELECT n, 'g ' || n % 3, 'member' FROM generate_series(1, 30) AS n;

CREATE TABLE identity.attempts (at timestamptz, name text);
INSERT INTO identity.attempts VALUES
    ('2026-01-01 00:00+00', 'a'), ('2026-01-01 00:00+00', 'a'), (NULL, E'tab\\tnew\\nline \\\\');

CREATE TABLE identity.events (id bigint, day date, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE identity.events_1 PARTITION OF identity.events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE identity.events_rest PARTITION OF identity.events DEFAULT;
INSERT INTO identity.events SELECT n, DATE '2026-01-25' + n, 'event' FROM generate_series(1, 20) AS n;

CREATE TABLE identity.texts (
    at timestamptz, span interval, raw bytea, price money, ratio float8, name text, note text,
    PRIMARY KEY (at, span, raw, price, ratio, name), CHECK (note <> 'back\\slash')
);
INSERT INTO identity.texts
VALUES ('2026-01-31 00:00+00', '1 day 02:00', '\\x00ff', 1000, 0.1::float8 + 0.2::float8, 'Zoë€', 'same');

CREATE TABLE identity.narrow (a integer, b integer, PRIMARY KEY (a, b));
INSERT INTO identity.narrow SELECT n, n FROM generate_series(1, 5000) AS n;
CREATE TABLE identity."No Columns" ();
INSERT INTO identity."No Columns" DEFAULT VALUES;
CREATE TABLE identity.parent (id integer PRIMARY KEY);
CREATE TABLE identity.child () INHERITS (identity.parent);
INSERT INTO identity.parent VALUES (1);
INSERT INTO identity.child VALUES (2);
CREATE UNLOGGED TABLE identity.cache (id integer);
INSERT INTO identity.cache VALUES (1);
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE identity.remote (id integer) SERVER elsewhere;
CREATE MATERIALIZED VIEW identity.totals AS SELECT count(*) AS users FROM identity.users;
CREATE MATERIALIZED VIEW identity.later AS SELECT 1 AS one WITH NO DATA;

CREATE VIEW identity.adults AS SELECT id FROM identity.users WHERE age >= 18;
CREATE FUNCTION identity.answer() RETURNS integer LANGUAGE sql AS 'SELECT 42';
CREATE FUNCTION identity.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON identity.attempts FOR EACH ROW EXECUTE FUNCTION identity.touch();
CREATE AGGREGATE identity.total(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');
ALTER TABLE identity.membership ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON identity.membership USING (role = 'member');
CREATE STATISTICS identity.related ON age, email FROM identity.users;
CREATE PUBLICATION feed FOR TABLE identity.users;
ALTER DEFAULT PRIVILEGES IN SCHEMA identity GRANT SELECT ON TABLES TO app;

CREATE SEQUENCE identity.plain START 5 CACHE 10;
CREATE SEQUENCE identity.down INCREMENT -3 MINVALUE -100;
CREATE SEQUENCE identity.untouched;
SELECT nextval('identity.plain') FROM generate_series(1, 3);
SELECT nextval('identity.down') FROM generate_series(1, 3);
SELECT lo_from_bytea(70000, 'a large object');
CREATE TABLE identity.audit_log (id serial PRIMARY KEY, request_id uuid);
CREATE TABLE identity.accounts (id uuid PRIMARY KEY, version integer NOT NULL);
CREATE TABLE identity.seats (
    user_id integer, group_id integer, version integer NOT NULL, PRIMARY KEY (user_id, group_id)
);
"""

BLIND = [
    ("numeric", "1.0", "-1.0"),
    ("numeric", "1.0", "1.00"),
    ("numeric", "1e-20", "2e-20"),
    ("jsonb", "1", "-1"),
    ("jsonb", "1", "1.0"),
    ("jsonb", "[[1],2]", "[[1,2]]"),
    ("json", '{"a":1}', '{"a": 1}'),
    ("float8", "0", "-0"),
    ("float8", "0.1", "0.10000000000000002"),
    ("float4", "1", "1.0000001"),
    ("bigint", "1", "4294967296"),
    ("timestamptz", "2026-01-01 00:00:00+00", "2026-01-01 01:11:34.967295+00"),
    ("timetz", "12:00+00", "13:00+01"),
    ("interval", "1 day", "24:00"),
    ("interval", "1 mon", "30 days"),
    ("integer[]", "{{1,2}}", "{1,2}"),
    ("integer[]", "{1,2}", "[0:1]={1,2}"),
    ("text[]", "{NULL}", '{"NULL"}'),
    ('text COLLATE identity."caseless"', "a", "A"),
    ("text", "\u00e9", "e\u0301"),
    ("text", "a", "a "),
    ("text", None, ""),
    ("text", None, "NULL"),
    ("text", None, "<null>"),
    ("bytea", r"\x00", r"\x0000"),
    ("char(3)", "a", "b"),
    ("uuid", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000010"),
    ("inet", "10.0.0.1/8", "10.0.0.1/32"),
    ("xml", "<a/>", '<?xml version="1.0"?><a/>'),
    ("xml", "<a/>", '<?xml version="1.0" encoding="UTF-8"?><a/>'),
    ("xml[]", "{<a/>}", '{"<?xml version=\\"1.0\\" encoding=\\"UTF-8\\"?><a/>"}'),
    ("aclitem", "app=r/postgres", "app=w/postgres"),
    ("aclitem[]", "{app=r/postgres}", "{app=w/postgres}"),
    ("identity.pair", "(x,1.0)", "(x,1.00)"),
    ("identity.age", "1", "2"),
    ("identity.mood", "sad", "happy"),
    ("numrange", "[1,2]", "[1,2)"),
    ("nummultirange", "{[1,2]}", "{[1.0,2]}"),
    ("point", "(0,0)", "(-0,0)"),
    ("polygon", "((0,0),(1,1))", "((1,1),(0,0))"),
    ("box", "(2,2),(1,1)", "(3,3),(1,1)"),
    ("path", "((0,0),(1,1))", "[(0,0),(1,1)]"),
    ("bit varying", "1", "10"),
    ("money", "1", "-1"),
    ("tsvector", "a:1", "a:1A"),
    ("tsquery", "a & b", "a | b"),
    ("jsonpath", "$.a", "$.b"),
    ("name", "a", "b"),
    ("pg_lsn", "0/1", "0/2"),
    ('"char"', "a", "b"),
]


def bare(kind: str) -> str:
    """Return a type without its collation."""
    return kind.partition(" COLLATE")[0]


@pytest.fixture(scope="module")
def expected(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """The state that all tests compare with, as it is read back from its files."""
    directory = tmp_path_factory.mktemp("capture") / "mark"
    with server.connect() as connection:
        connection.execute(SOURCE)
        kinds = ", ".join(f"c{number} {kind}" for number, (kind, _, _) in enumerate(BLIND))
        connection.execute(f"CREATE TABLE identity.blind (id integer PRIMARY KEY, {kinds}, l text, r text)")
        casts = ", ".join("NULL" if value is None else f"%s::{bare(kind)}" for kind, value, _ in BLIND)
        values = [value for _, value, _ in BLIND if value is not None]
        connection.execute(f"INSERT INTO identity.blind VALUES (1, {casts}, 'a|b', 'c')", values)
        taken = capture(connection, directory)
    assert load(directory) == taken
    return load(directory)


@pytest.fixture
def after(server: Server, expected: Capture) -> Iterator[Callable[..., Comparison]]:
    """Change something in a transaction, compare in it, and roll back."""
    with server.connect() as connection:

        def changed(*statements: str, values: tuple[Any, ...] | None = None) -> Comparison:
            with connection.transaction(force_rollback=True):
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                for statement in statements:
                    connection.execute(statement, values)
                return compare(expected, connection)

        yield changed


def test_unchanged_is_green(after: Callable[..., Comparison], expected: Capture) -> None:
    found = after()
    assert verdict(facts(found)) == (Verdict.PASSED, None), describe(facts(found))
    assert {table.table for table in found.tables} == {
        "identity.accounts", "identity.attempts", "identity.audit_log", "identity.blind", "identity.child",
        "identity.events_1", "identity.events_rest", "identity.membership", "identity.narrow", 'identity."No Columns"',
        "identity.parent", "identity.seats", "identity.texts", "identity.totals", "identity.users",
        "pg_catalog.pg_largeobject", "pg_catalog.pg_largeobject_metadata",
    }  # fmt: skip
    assert facts(found).rows == 5261
    assert found.sequences == 5
    assert set(found.skipped) == {"identity.cache", "identity.remote", "identity.later"}


ROWS = {
    "row deleted": (
        "DELETE FROM identity.membership WHERE user_id = 7",
        "identity.membership: 1 row missing\n    user_id=7, group_id=g 1",
    ),
    "value changed": (
        "UPDATE identity.users SET email = 'x@example.org' WHERE id = 3",
        "identity.users: 1 row changed\n    id=3",
    ),
    "value changed out of line": (
        "UPDATE identity.users SET biography = biography || '!' WHERE id = 50",
        "identity.users: 1 row changed\n    id=50",
    ),
    "extra row": ("INSERT INTO identity.parent VALUES (9)", "identity.parent: 1 row unexpected\n    id=9"),
    "extra row in a child": ("INSERT INTO identity.child VALUES (9)", "identity.child: 1 row unexpected\n    (9)"),
    "row in another partition": (
        "UPDATE identity.events SET day = '2030-01-01' WHERE id = 1",
        "identity.events_1: 1 row missing\n    id=1, day=2026-01-26",
    ),
    "duplicate in a keyless table": (
        "INSERT INTO identity.attempts VALUES ('2026-01-01 00:00+00', 'a')",
        'identity.attempts: 1 row unexpected\n    ("2026-01-01 00:00:00+00",a)',
    ),
    "one of two duplicates gone": (
        "DELETE FROM identity.attempts WHERE ctid = '(0,1)'",
        'identity.attempts: 1 row missing\n    ("2026-01-01 00:00:00+00",a)',
    ),
    "a pair of duplicates changed alike": (
        "UPDATE identity.attempts SET name = 'z' WHERE name = 'a'",
        'identity.attempts: 2 rows missing\n    ("2026-01-01 00:00:00+00",a)\n    ("2026-01-01 00:00:00+00",a)',
    ),
    "row that needs quoting gone": (
        "DELETE FROM identity.attempts WHERE at IS NULL",
        "identity.attempts: 1 row missing",
    ),
    "two rows swap a value": (
        "UPDATE identity.users SET age = 3 - age WHERE id IN (1, 2)",
        "identity.users: 2 rows changed\n    id=1 (age)\n    id=2 (age)",
    ),
    "columns split elsewhere": (
        "UPDATE identity.blind SET l = 'a', r = 'b|c'",
        "identity.blind: 1 row changed\n    id=1",
    ),
    "row without columns": (
        'INSERT INTO identity."No Columns" DEFAULT VALUES',
        'identity."No Columns": 1 row unexpected\n    ()',
    ),
    "column with a fast default": ("UPDATE identity.users SET since = 8 WHERE id = 4", "identity.users: 1 row changed"),
    "all rows gone": ("DELETE FROM identity.narrow", "identity.narrow: 5000 rows missing\n    a=1, b=1\n    a=2, b=2"),
    "materialized view": ("REFRESH MATERIALIZED VIEW identity.totals WITH NO DATA", "identity.totals: 1 row missing"),
    "large object changed": (
        "SELECT lo_put(70000, 0, 'A')",
        "pg_catalog.pg_largeobject: 1 row changed\n    loid=70000, pageno=0",
    ),
    "large object gone": (
        "SELECT lo_unlink(70000)",
        "pg_catalog.pg_largeobject_metadata: 1 row missing\n    oid=70000",
    ),
    "large object granted": (
        "GRANT SELECT ON LARGE OBJECT 70000 TO app",
        "pg_catalog.pg_largeobject_metadata: 1 row changed",
    ),
    "table dropped": ("DROP TABLE identity.parent CASCADE", "identity.parent: 1 row missing\n    id=1"),
    "table added": (
        "CREATE TABLE identity.extra AS SELECT 1 AS id",
        "identity.extra: 1 row unexpected\n    (1)",
    ),
    "table made unlogged": ("ALTER TABLE identity.attempts SET UNLOGGED", "identity.attempts: 3 rows missing"),
    "primary key dropped and a row changed": (
        "ALTER TABLE identity.narrow DROP CONSTRAINT narrow_pkey; UPDATE identity.narrow SET b = 0 WHERE a = 17",
        "identity.narrow: 1 row missing\n    a=17, b=17",
    ),
    "key column renamed": (
        "ALTER TABLE identity.parent RENAME id TO ident; UPDATE identity.parent SET ident = 5 WHERE ident = 1",
        "identity.parent: 1 row unexpected\n    ident=5",
    ),
}


@pytest.mark.parametrize(("statement", "named"), ROWS.values(), ids=list(ROWS))
def test_rows_are_named(after: Callable[..., Comparison], statement: str, named: str) -> None:
    assert named in words(after(statement))


@pytest.mark.parametrize("number", range(len(BLIND)), ids=[f"{kind} {a} {b}" for kind, a, b in BLIND])
def test_no_blind_spot(after: Callable[..., Comparison], number: int) -> None:
    kind, _, changed = BLIND[number]
    found = after(f"UPDATE identity.blind SET c{number} = %s::{bare(kind)}", values=(changed,))
    assert [table.table for table in found.tables if not table.equal] == ["identity.blind"]
    assert "identity.blind: 1 row changed\n    id=1" in words(found)


OBJECTS = {
    "constraint dropped": (
        "ALTER TABLE identity.users DROP CONSTRAINT users_email_key",
        "constraint identity.users.users_email_key: expected UNIQUE (email), found missing",
    ),
    "constraint not validated": (
        "ALTER TABLE identity.users ADD CHECK (age < 500) NOT VALID",
        "users_age_check: expected no such object, found CHECK (((age)::integer < 500)) NOT VALID",
    ),
    "index dropped": ("DROP INDEX identity.users_age", "index identity.users_age: expected CREATE INDEX users_age ON"),
    "index invalid": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'identity.users_age'::regclass",
        "(age), invalid",
    ),
    "column type changed": (
        "ALTER TABLE identity.parent ALTER id TYPE bigint",
        "column identity.parent.id: expected integer not null, found bigint not null",
    ),
    "column type changed, rows": (
        "ALTER TABLE identity.parent ALTER id TYPE bigint",
        "identity.parent: 1 row changed\n    id=1",
    ),
    "column default dropped": (
        "ALTER TABLE identity.users ALTER mood DROP DEFAULT",
        "column identity.users.mood: expected identity.mood default 'happy'::identity.mood, found identity.mood",
    ),
    "column added": ("ALTER TABLE identity.parent ADD x text", "column identity.parent.x: expected no such object"),
    "not null dropped": ("ALTER TABLE identity.users ALTER email DROP NOT NULL", "column identity.users.email"),
    "function changed": (
        "CREATE OR REPLACE FUNCTION identity.answer() RETURNS integer LANGUAGE sql AS 'SELECT 43'",
        "AS $function$SELECT 43$function$",
    ),
    "aggregate dropped": ("DROP AGGREGATE identity.total(integer)", "aggregate identity.total(integer): expected"),
    "view changed": (
        "CREATE OR REPLACE VIEW identity.adults AS SELECT id FROM identity.users WHERE age >= 21",
        "view identity.adults: expected",
    ),
    "trigger dropped": ("DROP TRIGGER touched ON identity.attempts", "trigger identity.attempts.touched: expected"),
    "trigger disabled": (
        "ALTER TABLE identity.attempts DISABLE TRIGGER touched",
        "trigger identity.attempts.touched: expected …",
    ),
    "foreign key's triggers disabled": (
        "ALTER TABLE identity.membership DISABLE TRIGGER ALL",
        "trigger identity.membership.",
    ),
    "rule added": (
        "CREATE RULE quiet AS ON DELETE TO identity.attempts DO INSTEAD NOTHING",
        "rule identity.attempts.quiet: expected no such object",
    ),
    "enum label added": ("ALTER TYPE identity.mood ADD VALUE 'calm'", "found owner postgres, 'sad', 'happy', 'calm'"),
    "enum label renamed": ("ALTER TYPE identity.mood RENAME VALUE 'sad' TO 'blue'", "enum identity.mood: expected"),
    "domain changed": ("ALTER DOMAIN identity.age SET DEFAULT 1", "domain identity.age: expected"),
    "domain constraint dropped": (
        "ALTER DOMAIN identity.age DROP CONSTRAINT age_check",
        "constraint identity.age.age_check: expected CHECK ((VALUE >= 0)), found missing",
    ),
    "grant revoked": (
        "REVOKE UPDATE ON identity.users FROM app",
        "identity.users to app: expected SELECT by postgres, UPDATE by postgres, found SELECT by postgres",
    ),
    "column grant revoked": (
        "REVOKE UPDATE (email) ON identity.users FROM auditor",
        "grant on column identity.users.email to auditor: expected UPDATE by postgres, found missing",
    ),
    "built-in function granted": (
        "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO app",
        "grant on function pg_read_file(text) to app: expected no such object, found EXECUTE by postgres",
    ),
    "grant to public": (
        "GRANT CREATE ON SCHEMA identity TO PUBLIC",
        "grant on schema identity to public: expected no such object, found CREATE by postgres",
    ),
    "default privileges": (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA identity REVOKE SELECT ON TABLES FROM app",
        "default acl for role postgres in schema identity on tables: expected",
    ),
    "role dropped": ("DROP OWNED BY auditor; DROP ROLE auditor", "role auditor: expected inherit login password"),
    "role made superuser": ("ALTER ROLE app SUPERUSER", "role app: expected inherit nologin, found superuser inherit"),
    "password changed": ("ALTER ROLE auditor PASSWORD 'second'", "role auditor: expected inherit login password"),
    "membership revoked": ("REVOKE app FROM auditor", "membership auditor in app, by postgres: expected"),
    "role's setting": (
        "ALTER ROLE auditor RESET work_mem",
        "settings role auditor: expected {work_mem=8MB}, found missing",
    ),
    "database's setting": (
        "ALTER DATABASE postgres SET work_mem = '1MB'",
        "settings database postgres: expected no such object, found {work_mem=1MB}",
    ),
    "comment changed": (
        "COMMENT ON COLUMN identity.users.age IS 'in months'",
        "comment on table column identity.users.age: expected in years, found in months",
    ),
    "comment on a schema": (
        "COMMENT ON SCHEMA identity IS NULL",
        "comment on schema identity: expected who is who, found missing",
    ),
    "comment on a schema that initdb made": (
        "COMMENT ON SCHEMA public IS 'ours'",
        "comment on schema public: expected standard public schema, found ours",
    ),
    "owner changed": ("ALTER TABLE identity.narrow OWNER TO app", "table identity.narrow: expected owner postgres"),
    "row security off": ("ALTER TABLE identity.membership DISABLE ROW LEVEL SECURITY",
        "table identity.membership: expected",
    ),
    "policy changed": (
        "ALTER POLICY own ON identity.membership USING (true)",
        "policy identity.membership.own: expected",
    ),
    "partition detached": (
        "ALTER TABLE identity.events DETACH PARTITION identity.events_1",
        "table identity.events_1: expected owner postgres, inherits identity.events, FOR VALUES FROM",
    ),
    "sequence redefined": ("ALTER SEQUENCE identity.plain INCREMENT 2", "sequence identity.plain: expected"),
    "extension dropped": (
        "DROP FUNCTION identity.touch() CASCADE; DROP EXTENSION plpgsql",
        "extension plpgsql: expected version 1.0",
    ),
    "statistics dropped": ("DROP STATISTICS identity.related", "statistics object identity.related: expected"),
    "publication changed": ("ALTER PUBLICATION feed SET (publish = 'insert')", "publication feed: expected"),
    "collation dropped": (
        "DROP COLLATION identity.caseless CASCADE",
        "collation identity.caseless: expected",
    ),
    "user mapping": (
        "CREATE USER MAPPING FOR app SERVER elsewhere OPTIONS (password 'hidden')",
        "user mapping app on server elsewhere: expected no such object",
    ),
    "schema dropped": ("DROP SCHEMA identity CASCADE", "more differences"),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "named"), OBJECTS.values(), ids=list(OBJECTS))
def test_objects_are_named(after: Callable[..., Comparison], statement: str, named: str) -> None:
    text = words(after(statement))
    assert named in text
    assert "hidden" not in text


SEQUENCES = {
    "back": ("ALTER SEQUENCE identity.plain RESTART 4", "sequence identity.plain: expected 14 to 46"),
    "back to the start": ("ALTER SEQUENCE identity.plain RESTART", "found 5, not yet given out"),
    "too far ahead": ("SELECT setval('identity.far', 47)", "expected 14 to 46, found 47"),
    "wrong direction": ("ALTER SEQUENCE identity.down RESTART -5", "sequence identity.down: expected -7 to -97"),
    "touched": (
        "ALTER SEQUENCE identity.untouched RESTART 2",
        "expected 1, not yet given out, found 2, not yet given out",
    ),
    "behind its column": (
        "ALTER SEQUENCE identity.users_id_seq RESTART 150",
        "sequence identity.users_id_seq: expected at or past its column, found 150, not yet given out, "
        "but identity.users.id has 200",
    ),
    "dropped": ("DROP SEQUENCE identity.plain", "sequence identity.plain: expected bigint start 5 increment 1"),
}


@pytest.mark.parametrize(("statement", "named"), SEQUENCES.values(), ids=list(SEQUENCES))
def test_sequences_are_named(after: Callable[..., Comparison], statement: str, named: str) -> None:
    # A new sequence under the old name: setval on the old one would survive the rollback.
    anew = """
        ALTER SEQUENCE identity.plain RENAME TO old; CREATE SEQUENCE identity.far START 5 CACHE 10;
        SELECT setval('identity.far', 47); DROP SEQUENCE identity.old; ALTER SEQUENCE identity.far RENAME TO plain
    """
    statement = anew if "identity.far" in statement else statement
    assert named in words(after(statement))


OTHER_SETTINGS = (
    "SET TimeZone = 'Asia/Tokyo'",
    "SET DateStyle = 'German'",
    "SET IntervalStyle = 'iso_8601'",
    "SET bytea_output = 'escape'",
    "SET extra_float_digits = -5",
    "SET client_encoding = 'LATIN1'",
    "SET lc_monetary = 'C.UTF-8'",
    "SET search_path = identity",
    "SET quote_all_identifiers = on",
    "SET standard_conforming_strings = off",
    "SET statement_timeout = '1min'",
)

UNCHANGED = {
    "rewritten": ("VACUUM FULL",),
    "frozen": ("VACUUM FREEZE",),
    "analyzed": ("ANALYZE",),
    "reindexed": ("REINDEX SCHEMA identity",),
    "reordered": (
        "UPDATE identity.users SET age = age WHERE id % 2 = 0",
        "UPDATE identity.narrow SET b = b",
        "UPDATE identity.attempts SET name = name WHERE ctid = '(0,1)'",
    ),
    "fast default written out": ("UPDATE identity.users SET since = since",),
    "temporary table": ("CREATE TEMPORARY TABLE fleeting AS SELECT 1 AS id",),
    "other settings": OTHER_SETTINGS,
}


@pytest.mark.parametrize("statements", UNCHANGED.values(), ids=list(UNCHANGED))
def test_what_is_no_change_stays_green(server: Server, expected: Capture, statements: tuple[str, ...]) -> None:
    with server.connect(row_factory=dict_row) as connection:
        for statement in statements:
            connection.execute(statement)
        before = connection.execute("SELECT name, setting FROM pg_settings ORDER BY name").fetchall()
        found = compare(expected, connection)
        assert verdict(facts(found)) == (Verdict.PASSED, None), describe(facts(found))
        assert connection.execute("SELECT name, setting FROM pg_settings ORDER BY name").fetchall() == before


def test_settings_of_a_transaction_are_given_back(server: Server, expected: Capture) -> None:
    settings = "SELECT name, setting FROM pg_settings ORDER BY name"
    with server.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for statement in OTHER_SETTINGS:
            connection.execute(statement)
        before = connection.execute(settings).fetchall()
        compare(expected, connection)
        assert connection.execute(settings).fetchall() == before


def test_keys_do_not_follow_settings(after: Callable[..., Comparison]) -> None:
    text = words(after(*OTHER_SETTINGS, "UPDATE identity.texts SET note = 'other'"))
    assert "identity.texts: 1 row changed\n" in text
    assert "at=2026-01-31 00:00:00+00, span=1 day 02:00:00, raw=\\x00ff, price=" in text
    assert "ratio=0.30000000000000004, name=Zoë€" in text


def test_digest_comes_from_the_heap(server: Server, expected: Capture) -> None:
    """An index that holds all columns could answer for the table, and be right where the table is not."""
    with server.connect() as connection:
        connection.execute("VACUUM identity.narrow")
        for setting in ("enable_seqscan = off", "seq_page_cost = 1000", "random_page_cost = 0"):
            connection.execute(f"SET {setting}")
        plan = str(connection.execute("EXPLAIN SELECT a, b FROM ONLY identity.narrow").fetchall())
        assert "Index Only Scan" in plan
        scans = "SELECT pg_stat_get_xact_numscans('identity.narrow'::regclass)"
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            rowset.read(connection, "identity.narrow")
            assert connection.execute(scans).fetchone() == (1,)


@pytest.fixture
def scratch(server: Server, tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """A database of its own, for what a transaction cannot take back."""
    with server.connect() as connection:
        connection.execute("CREATE DATABASE scratch")
    try:
        with psycopg.connect(host=str(server.root), user="postgres", dbname="scratch", autocommit=True) as connection:
            yield connection
    finally:
        with server.connect() as connection:
            connection.execute("DROP DATABASE scratch WITH (FORCE)")


def sequence_states(connection: psycopg.Connection[Any]) -> tuple[SequenceState, ...]:
    with reading(connection) as cursor:
        return read_states(cursor)


def test_exported_snapshot_under_writers(scratch: psycopg.Connection[Any], server: Server, tmp_path: Path) -> None:
    scratch.execute("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1); CREATE SEQUENCE s")
    reports = []
    with psycopg.connect(host=str(server.root), user="postgres", dbname="scratch") as locking:
        locking.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        locking.execute("LOCK TABLE t IN SHARE MODE")
        states = sequence_states(locking)
        row = locking.execute("SELECT pg_export_snapshot()").fetchone()
        assert row
        with psycopg.connect(host=str(server.root), user="postgres", dbname="scratch") as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            reader.execute(f"SET TRANSACTION SNAPSHOT '{row[0]}'")
            locking.commit()
            scratch.execute("INSERT INTO t VALUES (2); SELECT nextval('s'), nextval('s')")
            capture(reader, tmp_path / "mark", lambda *report: reports.append(report), sequences=states)
    expected = load(tmp_path / "mark")
    assert reports[-1] == (3, 3)  # tables: t and the two of large objects
    text = words(compare(expected, scratch))
    assert "public.t: 1 row unexpected\n    id=2" in text
    assert "sequence public.s: expected 1, not yet given out, found 2" in text
    scratch.execute("DELETE FROM t WHERE id = 2; SELECT setval('s', 1, false)")
    found = compare(expected, scratch)
    assert verdict(facts(found)) == (Verdict.PASSED, None)


def test_sequences_after_a_crash(scratch: psycopg.Connection[Any], server: Server) -> None:
    """Recovery must end inside the bound, and touch its far end; PostgreSQL decides, not this test."""
    kinds = {
        "plain": "",
        "cached": "CACHE 10",
        "descending": "INCREMENT -3 MINVALUE -100",
        "capped": "MAXVALUE 20",
        "cycling": "MAXVALUE 40 CYCLE CACHE 7",
        "steps": "INCREMENT 5 CACHE 3",
        "untouched": "",
        "checkpointed": "",
    }
    for name, options in kinds.items():
        scratch.execute(f"CREATE SEQUENCE {name} {options}")
    scratch.execute("CREATE UNLOGGED TABLE t (id integer GENERATED ALWAYS AS IDENTITY)")
    scratch.execute("INSERT INTO t SELECT FROM generate_series(1, 40)")
    scratch.execute("SELECT nextval('checkpointed') FROM generate_series(1, 5)")
    scratch.execute("CHECKPOINT")
    for times in (3, 17):
        for name in kinds.keys() - {"untouched", "checkpointed"}:
            scratch.execute("SELECT nextval(%s) FROM generate_series(1, %s)", (name, times))
    expected = sequence_states(scratch)
    server.stop("immediate")
    server.start()
    with psycopg.connect(host=str(server.root), user="postgres", dbname="scratch", autocommit=True) as connection:
        restored = {state.name: state for state in sequence_states(connection)}
    assert {state.name for state in expected} >= {f"public.{name}" for name in kinds}
    for state in expected:
        assert state.allows(restored[state.name]), (state, restored[state.name])
    ahead = {state.name for state in expected if restored[state.name].last_value == state.logged != state.last_value}
    same = {state.name for state in expected if restored[state.name].last_value == state.last_value}
    assert {"public.plain", "public.descending", "public.steps", "public.cycling"} <= ahead
    assert {"public.untouched", "public.checkpointed", "public.capped"} <= same
    assert ahead | same == {state.name for state in expected}


def test_source_behind_its_column_is_no_fault_of_the_restore(scratch: psycopg.Connection[Any], tmp_path: Path) -> None:
    for table, options, value, state in [
        ("up_ok", "START 1", 9, "setval(%s, 9)"),
        ("up_next", "START 1", 9, "setval(%s, 9, false)"),
        ("up_behind", "START 1", 9, "setval(%s, 8)"),
        ("down_ok", "INCREMENT -1 MINVALUE -99", -9, "setval(%s, -9)"),
        ("down_behind", "INCREMENT -1 MINVALUE -99", -9, "setval(%s, -8)"),
        ("cycling", "CYCLE", 9, "setval(%s, 3)"),
        ("empty", "START 1", None, "setval(%s, 3)"),
    ]:
        scratch.execute(f"CREATE TABLE {table} (id bigint GENERATED BY DEFAULT AS IDENTITY ({options}))")
        scratch.execute(f"INSERT INTO {table} SELECT %s::bigint WHERE %s", [value, value is not None])
        scratch.execute(f"SELECT {state}", [f"{table}_id_seq"])
    taken = capture(scratch, tmp_path / "mark")
    assert set(taken.behind) == {"public.up_next_id_seq", "public.up_behind_id_seq", "public.down_behind_id_seq"}
    assert taken.behind["public.down_behind_id_seq"] == "-8, but public.down_behind.id has -9"
    found = compare(load(tmp_path / "mark"), scratch)
    assert verdict(facts(found)) == (Verdict.PASSED, None)


def test_nothing_compared_is_unknown(scratch: psycopg.Connection[Any], tmp_path: Path) -> None:
    capture(scratch, tmp_path / "mark")
    outcome, reason = verdict(facts(compare(load(tmp_path / "mark"), scratch)))
    assert (outcome, reason) == (Verdict.UNKNOWN, "nothing was compared: no table with a row was expected")


def test_rows_kept_are_the_rows_counted(
    scratch: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sabotage: a word that is NULL, and so leaves its row out; a sketch that is empty."""
    scratch.execute("CREATE TABLE t AS SELECT 1 AS id")
    with monkeypatch.context() as patched:
        patched.setattr(taking, "column_word", lambda _: sql.SQL("NULL::bigint"))
        scratch.execute("ALTER TABLE t ADD PRIMARY KEY (id), ADD v text")
        with pytest.raises(ProofError, match=r"public\.t has 1 rows, but 0 were kept"):
            capture(scratch, tmp_path / "mark")
    scratch.execute("INSERT INTO t SELECT generate_series(2, 20000)")
    monkeypatch.setattr(taking, "take_sketch", lambda *_: Sketch.of(_[3]))
    with pytest.raises(ProofError, match=r"public\.t has 20000 rows, but 0 were kept"):
        capture(scratch, tmp_path / "mark")
    assert not (tmp_path / "mark" / "capture.json").exists()


def test_damaged_page_is_a_finding(scratch: psycopg.Connection[Any], server: Server, tmp_path: Path) -> None:
    scratch.execute("CREATE TABLE t (id serial); INSERT INTO t SELECT FROM generate_series(1, 10)")
    scratch.execute("CREATE TABLE u AS SELECT n AS id FROM generate_series(1, 10) AS n")
    capture(scratch, tmp_path / "mark")
    row = scratch.execute("SELECT pg_relation_filepath('t')").fetchone()
    assert row
    server.stop()
    with (server.data / row[0]).open("r+b") as file:
        file.seek(8100)
        file.write(b"\xff")
    server.start()
    with psycopg.connect(host=str(server.root), user="postgres", dbname="scratch", autocommit=True) as connection:
        found = compare(load(tmp_path / "mark"), connection)
    text = words(found)
    assert "public.t: 10 rows expected, 0 found, digests differ" in text
    assert "table public.t: expected readable, found invalid page in block 0" in text
    assert "sequence public.t_id_seq: expected at or past its column, found public.t.id is unreadable: invalid" in text
    assert [table.table for table in found.tables if table.equal][-1] == "public.u"


def test_reading_needs_no_superuser(after: Callable[..., Comparison]) -> None:
    found = after("CREATE ROLE reader BYPASSRLS; GRANT pg_read_all_data TO reader; SET LOCAL ROLE reader")
    assert all(table.equal for table in found.tables)
    assert [finding.name for finding in found.findings] == ["reader in pg_read_all_data, by postgres", "reader"]
    with pytest.raises(ProofError, match="would be affected by row-level security"):
        after("CREATE ROLE reader; GRANT pg_read_all_data TO reader; SET LOCAL ROLE reader")


def test_a_lock_is_not_waited_for_without_end(
    expected: Capture, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "lock_timeout" in PINNED
    monkeypatch.setitem(PINNED, "lock_timeout", "50ms")
    with server.connect() as connection, server.connect() as other, other.transaction(force_rollback=True):
        other.execute("LOCK TABLE identity.users IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ProofError, match="could not be read: canceling statement due to lock timeout"):
            compare(expected, connection)


def test_what_cannot_be_compared_is_an_error(expected: Capture, server: Server, tmp_path: Path) -> None:
    with server.connect() as connection:
        other = replace(expected, method=replace(expected.method, server=expected.method.server - 1))
        with pytest.raises(ProofError, match="cannot be compared with"):
            compare(other, connection)
        other = replace(expected, method=replace(expected.method, algorithm="md5"))
        with pytest.raises(ProofError, match="digests made with md5"):
            compare(other, connection)
        with connection.transaction(), pytest.raises(ProofError, match="READ COMMITTED"):
            compare(expected, connection)
        with pytest.raises(ProofError, match="holds a capture already"):
            capture(connection, expected.directory)
        with pytest.raises(MachineError, match="cannot be kept"):
            capture(connection, Path("/dev/null/capture"))
        with pytest.raises(ProofError, match="no table with rows of its own"):
            rowset.read(connection, "identity.cache")
        connection.execute("SET ROLE app")
        with pytest.raises(ProofError, match="may not read everything: permission denied"):
            compare(expected, connection)
    with pytest.raises(ProofError, match="could not be read: the connection is closed"):
        compare(expected, connection)
    with server.connect() as connection, server.connect() as killer:

        def kill(*_: int) -> None:
            killer.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

        with pytest.raises(ProofError, match="could not be read: terminating connection"):
            compare(expected, connection, kill)
    with pytest.raises(ProofError, match="no usable capture"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "exchanged", "gone"])
def test_damaged_capture_names_nothing(
    after: Callable[..., Comparison], expected: Capture, tmp_path: Path, server: Server, damage: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(expected.directory, copy)
    number = [rows.table for rows in expected.tables].index("identity.narrow") + 1
    file = copy / "sketch" / f"{number:04}"
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "exchanged":
        file.write_bytes((copy / "sketch" / f"{number + 1:04}").read_bytes())
    else:
        file.unlink()
    with server.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("DELETE FROM identity.narrow WHERE a = 1")
        with pytest.raises(ProofError, match=r"sketch of identity\.narrow (was changed since|cannot be read)"):
            compare(load(copy), connection)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_capture_is_for_its_owner_alone(expected: Capture) -> None:
    assert expected.directory.stat().st_mode & 0o777 == 0o700
    assert "first" not in json.dumps(json.loads((expected.directory / "capture.json").read_text()))


MARK = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
A, B, C, D, S, Z, NEW = (f"00000000-0000-4000-9000-00000000000{digit}" for digit in "abcdef0")


def request(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def entry(number: int, outcome: Outcome, second: int | None, *effects: tuple[str, str, int | None]) -> Entry:
    """Return a transaction that committed ``second`` seconds after the mark."""
    return Entry(
        request_id=request(number),
        client=0,
        kind="try",
        outcome=outcome,
        xid=number,
        lsn=None,
        time=None if second is None else MARK + timedelta(seconds=second),
        effects=tuple(Effect(table=f"identity.{table}", key=key, version=left) for table, key, left in effects),
    )


LEDGER = (
    entry(1, Outcome.ACKNOWLEDGED, -3, ("accounts", A, 1)),
    entry(2, Outcome.ACKNOWLEDGED, -2, ("accounts", A, 2), ("seats", "1/2", 1)),
    entry(3, Outcome.ACKNOWLEDGED, 0, ("seats", "3/4", None)),
    entry(4, Outcome.ROLLED_BACK, None, ("accounts", A, 3)),
    entry(5, Outcome.INDETERMINATE, None, ("accounts", B, 1)),
    entry(6, Outcome.INDETERMINATE, None, ("accounts", C, 1)),
    entry(7, Outcome.ACKNOWLEDGED, 1, ("accounts", A, 4), ("accounts", D, 1)),
    entry(8, Outcome.ROLLED_BACK, None, ("accounts", S, 2)),
    entry(9, Outcome.ROLLED_BACK, None, ("accounts", Z, None)),
)
"""4, 7, 8 and 9 must not be there; of 5 and 6, whose outcome is unknown, 5 is. S and Z are seed rows."""

TRUTH = f"""
    INSERT INTO identity.audit_log (request_id)
    VALUES (NULL), ('{request(1)}'), ('{request(2)}'), ('{request(3)}'), ('{request(5)}');
    INSERT INTO identity.accounts VALUES ('{A}', 2), ('{B}', 1), ('{S}', 1), ('{Z}', 1);
    INSERT INTO identity.seats VALUES (1, 2, 1), (8, 8, 8)
"""

JUDGED: dict[str, tuple[str, list[str], list[str]]] = {
    "as it must be": ("SELECT", [], []),
    "transaction lost": (
        f"DELETE FROM identity.audit_log WHERE request_id = '{request(2)}'",
        [f"{request(2)} (try, client 0): not there"],
        [],
    ),
    "row older": (
        f"UPDATE identity.accounts SET version = 1 WHERE id = '{A}'",
        [f"{request(2)} (try, client 0): identity.accounts {A}: expected version 2, found version 1"],
        [],
    ),
    "row gone": (
        "DELETE FROM identity.seats",
        [f"{request(2)} (try, client 0): identity.seats 1/2: expected version 1, found no row"],
        [],
    ),
    "transaction and its row lost count once": (
        f"DELETE FROM identity.audit_log WHERE request_id = '{request(2)}'; DELETE FROM identity.seats",
        [f"{request(2)} (try, client 0): not there"],
        [],
    ),
    "half of an indeterminate one": (
        f"DELETE FROM identity.accounts WHERE id = '{B}'",
        [f"{request(5)} (try, client 0): identity.accounts {B}: expected version 1, found no row"],
        [],
    ),
    "other half of an indeterminate one": (
        f"INSERT INTO identity.accounts VALUES ('{C}', 1)",
        [],
        [f"{request(6)} (try, client 0): identity.accounts {C}: version 1, though the transaction is not there"],
    ),
    "row of a rolled back one": (
        f"UPDATE identity.accounts SET version = 3 WHERE id = '{A}'",
        [],
        [f"{request(4)} (try, client 0): identity.accounts {A}: expected version 2, found version 3"],
    ),
    "row newer than anybody made it": (
        f"UPDATE identity.accounts SET version = 99 WHERE id = '{A}'",
        [],
        [f"identity.accounts {A}: expected version 2, found version 99"],
    ),
    "row present though deleted": (
        "INSERT INTO identity.seats VALUES (3, 4, 1)",
        [],
        ["identity.seats 3/4: expected no row, found version 1"],
    ),
    "committed after the mark": (
        f"INSERT INTO identity.audit_log (request_id) VALUES ('{request(7)}')",
        [],
        [f"{request(7)} (try, client 0): there, though committed 1.000000 s after the mark"],
    ),
    "rolled back": (
        f"INSERT INTO identity.audit_log (request_id) VALUES ('{request(4)}')",
        [],
        [f"{request(4)} (try, client 0): there, though rolled back"],
    ),
    "not in the ledger": (
        f"INSERT INTO identity.audit_log (request_id) VALUES ('{request(77)}')",
        [],
        [f"{request(77)}: there, though not in the ledger"],
    ),
    "seed row updated by a rolled back one": (
        f"UPDATE identity.accounts SET version = 2 WHERE id = '{S}'",
        [],
        [f"{request(8)} (try, client 0): identity.accounts {S}: version 2, though the transaction is not there"],
    ),
    "seed row deleted by a rolled back one": (
        f"DELETE FROM identity.accounts WHERE id = '{Z}'",
        [],
        [f"{request(9)} (try, client 0): identity.accounts {Z}: no row, though the transaction is not there"],
    ),
    "audit table gone": (
        "DROP TABLE identity.audit_log",
        [f"{request(number)} (try, client 0): not there" for number in (1, 2, 3)],
        [f"{request(5)} (try, client 0): identity.accounts {B}: version 1, though the transaction is not there"],
    ),
    "table gone": (
        "DROP TABLE identity.seats",
        [f"{request(2)} (try, client 0): identity.seats 1/2: expected version 1, found no row"],
        [],
    ),
}


@pytest.fixture
def workload(server: Server, expected: Capture) -> Iterator[psycopg.Connection[Any]]:
    """A transaction in which all is there that the ledger says."""
    with server.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(TRUTH)
        yield connection


@pytest.mark.parametrize(("statement", "lost", "unexpected"), JUDGED.values(), ids=list(JUDGED))
def test_ledger(workload: psycopg.Connection[Any], statement: str, lost: list[str], unexpected: list[str]) -> None:
    workload.execute(statement)
    judged = judge(LEDGER, AtTime(MARK), workload)
    assert (list(judged.lost.examples), list(judged.unexpected.examples)) == (lost, unexpected)
    assert (judged.lost.total, judged.unexpected.total) == (len(lost), len(unexpected))
    assert judged.acknowledged == 3
    assert judged.rows == 8
    assert judged.recovered == (0 if "audit_log" in statement and "DROP" in statement else 1)


def test_ledger_sees_past_a_first_attempt(workload: psycopg.Connection[Any]) -> None:
    """A doomed change leaves a version that nobody commits; a commit after the mark may follow on the same row."""
    attempts = (
        entry(20, Outcome.ROLLED_BACK, None, ("accounts", S, 1_000_000_002)),
        entry(21, Outcome.ACKNOWLEDGED, 1, ("accounts", S, 2)),
    )
    ledger = (*(known for known in LEDGER if known.request_id != request(8)), *attempts)
    assert judge(ledger, AtTime(MARK), workload).unexpected.total == 0
    workload.execute(f"UPDATE identity.accounts SET version = 2 WHERE id = '{S}'")
    assert request(21) in judge(ledger, AtTime(MARK), workload).unexpected.examples[0]


def test_ledger_knows_that_a_row_made_and_deleted_after_the_mark_is_rightly_absent(
    workload: psycopg.Connection[Any],
) -> None:
    made_and_deleted = (
        entry(20, Outcome.ACKNOWLEDGED, 1, ("accounts", NEW, 1)),
        entry(21, Outcome.ACKNOWLEDGED, 2, ("accounts", NEW, None)),
    )
    ledger = (*LEDGER, *made_and_deleted)
    assert judge(ledger, AtTime(MARK), workload).unexpected.total == 0
    workload.execute(f"INSERT INTO identity.accounts VALUES ('{NEW}', 1)")
    assert request(20) in judge(ledger, AtTime(MARK), workload).unexpected.examples[0]


def test_ledger_knows_requests_that_were_there_before(workload: psycopg.Connection[Any]) -> None:
    workload.execute(f"INSERT INTO identity.audit_log (request_id) VALUES ('{request(77)}')")
    assert request_ids(workload) == {request(number) for number in (1, 2, 3, 5, 77)}
    assert judge(LEDGER, AtTime(MARK), workload, seeded={request(77)}).unexpected.total == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry(10, Outcome.ACKNOWLEDGED, None), "no commit time"),
        (entry(10, Outcome.ACKNOWLEDGED, -1, ("attempts", "a", 1)), "no primary key"),
        (entry(10, Outcome.ACKNOWLEDGED, -1, ("parent", "1", 1)), 'column "version" does not exist'),
        (entry(10, Outcome.ACKNOWLEDGED, -1, ("accounts", "no uuid", 1)), "invalid input syntax for type uuid"),
    ],
)
def test_ledger_that_cannot_be_judged(workload: psycopg.Connection[Any], bad: Entry, message: str) -> None:
    with pytest.raises(ProofError, match=message):
        judge((*LEDGER, bad), AtTime(MARK), workload)
