"""The two tiers of the digest, and several connections in one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

import psycopg
import pytest
from psycopg import sql

from clusters import Server, new_server
from pytest_iopbackup.proof import forms, rowhash, rowset, tiers
from pytest_iopbackup.proof import readers as reading_all
from pytest_iopbackup.proof.forms import FORMS, Form
from pytest_iopbackup.proof.readers import Shared, readers, share
from pytest_iopbackup.proof.rowset import RowSet, digest, row_hashes, user_tables
from pytest_iopbackup.proof.session import Connection, Cursor, reading
from pytest_iopbackup.proof.tables import Table
from pytest_iopbackup.proof.tiers import Read
from pytest_iopbackup.proven import FAST

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with new_server() as made:
        yield made


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    """A connection in a transaction that may write and is rolled back."""
    with server.connect() as made, made.transaction(force_rollback=True):
        made.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield made


@pytest.fixture
def cursor(connection: Connection) -> Iterator[Cursor]:
    with reading(connection) as made:
        yield made


def table(cursor: Cursor, name: str) -> Table:
    return next(found for found in user_tables(cursor) if found.name == name)


def both(cursor: Cursor, name: str) -> tuple[str, str]:
    with tiers.fast(cursor) as tier:
        assert tier is not None
        return digest(cursor, table(cursor, name)).digest, tier.digest(table(cursor, name))


def test_types_are_spelt_as_the_catalog_spells_them(cursor: Cursor) -> None:
    cursor.execute("SELECT format('%s.%s', typnamespace::regnamespace::name, typname) FROM pg_type")
    assert FORMS.keys() | forms.ELEMENTS <= {name for (name,) in cursor}


def test_each_type_is_hashed_in_its_form_on_every_release(cursor: Cursor) -> None:
    columns = ", ".join(f'"{name}" pg_catalog."{name.partition(".")[2]}"' for name in FORMS)
    cursor.execute(f"CREATE TABLE public.t ({columns})")
    kinds = table(cursor, "public.t").kinds
    assert [forms.form(kind, as_text=False) for kind in kinds] == list(FORMS.values())


@pytest.mark.parametrize("kind", ["timestamptz", "bigint", "inet"])
def test_as_many_columns_as_there_can_be(cursor: Cursor, kind: str) -> None:
    columns = ", ".join(f"c{number} {kind}" for number in range(1600))
    value = {"timestamptz": "'2026-01-01'", "bigint": "1", "inet": "'10.0.0.1'"}[kind]
    cursor.execute(f"CREATE TABLE public.wide ({columns})")
    cursor.execute(f"INSERT INTO public.wide (c0, c1598) VALUES ({value}, {value})")
    seen = {both(cursor, "public.wide")}
    cursor.execute(f"UPDATE public.wide SET c1598 = NULL, c1599 = {value}")
    seen.add(both(cursor, "public.wide"))
    cursor.execute("UPDATE public.wide SET c1599 = NULL")
    seen.add(both(cursor, "public.wide"))
    assert [len(set(digests)) for digests in zip(*seen, strict=True)] == [3, 3]


@pytest.mark.parametrize("name", ["t", "r", "b0", "h1", "c1_0", 'a "b', "rows", "image"])
def test_names_mean_nothing(cursor: Cursor, name: str) -> None:
    quoted = sql.Identifier(name)
    cursor.execute(sql.SQL("CREATE TABLE public.{0} ({0} integer, other inet)").format(quoted))
    cursor.execute(sql.SQL("INSERT INTO public.{} VALUES (1, '::1')").format(quoted))
    (listed,) = cursor.execute("SELECT format('public.%%I', %s::text)", [name]).fetchone() or ("",)
    before = both(cursor, listed)
    cursor.execute(sql.SQL("UPDATE public.{} SET other = '::2'").format(quoted))
    assert all(mine != theirs for mine, theirs in zip(before, both(cursor, listed), strict=True))


def test_hashes_alone_are_those_of_the_digest(cursor: Cursor) -> None:
    cursor.execute("CREATE TABLE public.t (a bigint, b timestamptz, c float8, d inet, e jsonb)")
    cursor.execute("INSERT INTO public.t VALUES (1, '1999-01-01', '-0', '::1', '[1]'), (2, now(), 1, NULL, NULL)")
    found = table(cursor, "public.t")
    alone = sql.SQL("SELECT sum({}), sum({}) FROM public.t AS t").format(*row_hashes(found))
    first, second = cursor.execute(alone).fetchone() or (0, 0)
    assert digest(cursor, found).digest == f"{int(first) % 2**64:016x}{int(second) % 2**64:016x}"


BLIND = {
    "bigint": ("pg_catalog.int8", "hashint8extended({0}, {seed})", "1", "4294967296"),
    "numeric": ("pg_catalog.numeric", "hash_numeric_extended({0}, {seed})", "1.0", "-1.0"),
    "float8": ("pg_catalog.float8", "hashfloat8extended({0}, {seed})", "'0'", "'-0'"),
    "timestamp": ("pg_catalog.timestamp", "timestamp_hash_extended({0}, {seed})",
                  "'2000-01-01 00:00'", "'2000-01-01 01:11:34.967297'"),
    "jsonb": ("pg_catalog.jsonb", "jsonb_hash_extended({0}, {seed})", "'[[1],2]'", "'[[1,2]]'"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_query_kept() -> Iterator[None]:
    """Let each test's own hash be asked for."""
    rowset.summed.cache_clear()
    yield
    rowset.summed.cache_clear()


@pytest.mark.parametrize("kind", BLIND)
@pytest.mark.parametrize("naive", [True, False])
def test_what_an_equality_hash_is_blind_to(
    cursor: Cursor, monkeypatch: pytest.MonkeyPatch, kind: str, naive: bool
) -> None:
    """The sabotage: with PostgreSQL's own hash in the form's place the change is not seen."""
    name, call, before, after = BLIND[kind]
    if naive:
        monkeypatch.setitem(FORMS, name, Form(f"coalesce(pg_catalog.{call}, {{null}})"))
    cursor.execute(f"CREATE TABLE public.t AS SELECT {before}::{kind} AS v")
    first = digest(cursor, table(cursor, "public.t"))
    cursor.execute(f"UPDATE public.t SET v = {after}::{kind}")
    assert (digest(cursor, table(cursor, "public.t")) == first) is naive


@pytest.mark.parametrize("mixed", [True, False])
def test_rows_that_swap_a_value(cursor: Cursor, monkeypatch: pytest.MonkeyPatch, mixed: bool) -> None:
    """The sabotage: combined by a sum and not mixed, the digest is the same."""
    if not mixed:
        plain = "({}::numeric + {})"
        monkeypatch.setattr(rowhash, "_xor", lambda parts: sql.SQL(plain).format(*parts))
        monkeypatch.setattr(rowhash, "MIXED", "{1}")
    cursor.execute("CREATE TABLE public.t AS SELECT * FROM (VALUES (1, 3), (2, 4)) AS rows (a, b)")
    before = digest(cursor, table(cursor, "public.t"))
    cursor.execute("UPDATE public.t SET b = 7 - b")
    assert (digest(cursor, table(cursor, "public.t")) != before) is mixed


def test_the_fast_tier_leaves_nothing_behind(cursor: Cursor) -> None:
    before = cursor.execute("SELECT count(*) FROM pg_proc").fetchone()
    with tiers.fast(cursor) as tier:
        assert tier is not None
        assert cursor.execute("SELECT count(*) FROM pg_proc").fetchone() != before
    assert cursor.execute("SELECT count(*) FROM pg_proc").fetchone() == before


SABOTAGE = {
    "half of each row is not hashed": ("HEADER", 40),
    "no such function": ("FUNCTIONS", tiers.FUNCTIONS.replace("bytea_substr_no_len", "bytea_substr_gone")),
    "another function": ("FUNCTIONS", tiers.FUNCTIONS.replace("hashvarlenaextended", "hashint8extended")),
    "a function that sees the length alone": (
        "FUNCTIONS",
        tiers.FUNCTIONS.replace("hashvarlenaextended", "byteaoctetlen"),
    ),
    "a row more than expected": ("DIFFERENT", 216),
}


@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_the_fast_tier_is_not_believed(cursor: Cursor, monkeypatch: pytest.MonkeyPatch, sabotage: str) -> None:
    monkeypatch.setattr(tiers, *SABOTAGE[sabotage])
    with tiers.fast(cursor) as tier:
        assert tier is None
    assert cursor.execute("SELECT 1").fetchone() == (1,)


def test_the_fast_tier_needs_a_superuser_that_may_write(server: Server, cursor: Cursor) -> None:
    cursor.execute("CREATE ROLE reader")
    cursor.execute("SET LOCAL ROLE reader")
    with tiers.fast(cursor) as tier:
        assert tier is None
    with server.connect() as connection, reading(connection) as other, tiers.fast(other) as tier:
        assert tier is None, "a read-only transaction"


def test_what_is_known_is_proven_by_the_fast_tier_and_all_else_by_the_portable_one(
    cursor: Cursor, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor.execute("CREATE TABLE public.t AS SELECT n AS id FROM generate_series(1, 9) AS n")
    found = table(cursor, "public.t")
    expected = {found.name: digest(cursor, found)}
    with tiers.learner(cursor) as learn:
        known = tiers.together([learn(found)])
    assert known is not None
    asked = []

    def portable(cursor: Cursor, wanted: Table) -> RowSet:
        asked.append(wanted)
        return digest(cursor, wanted)

    monkeypatch.setattr(tiers, "digest", portable)
    with tiers.reader(cursor, expected, known) as read:
        assert read(found) == Read(rows=expected[found.name], tier=FAST)
        assert asked == []
        cursor.execute("UPDATE public.t SET id = 10 WHERE id = 9")
        assert read(found) == Read(rows=digest(cursor, found)) != Read(rows=expected[found.name])
        assert len(asked) == 1
        cursor.execute("UPDATE public.t SET id = 9 WHERE id = 10")
        assert read(found) == Read(rows=expected[found.name], tier=FAST)
        assert len(asked) == 1
        cursor.execute("ALTER TABLE public.t ALTER id TYPE oid")  # the same bits, another type
        changed = table(cursor, "public.t")
        assert read(changed) == Read(rows=digest(cursor, changed))
        assert len(asked) == 2
    for other in (None, replace(known, made_with="elsewhere"), replace(known, digests={found.name: "0"})):
        with tiers.reader(cursor, expected, other) as read:
            read(table(cursor, "public.t"))
    assert len(asked) == 5


def test_what_was_learned_in_two_ways_is_not_put_together() -> None:
    one, other = tiers.Known(made_with="a", digests={"x": "1"}), tiers.Known(made_with="a", digests={"y": "2"})
    assert tiers.together([one, other]) == tiers.Known(made_with="a", digests={"x": "1", "y": "2"})
    for parts in ([], [one, None], [one, replace(other, made_with="b")]):
        assert tiers.together(parts) is None


@contextmanager
def opened(cursor: Cursor) -> Iterator[Callable[[Table], tuple[int, RowSet]]]:
    """Read a table's digest, and say by which of the server's processes."""
    yield lambda table: (cursor.connection.info.backend_pid, digest(cursor, table))


@pytest.fixture
def many(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A connection in a transaction, and eight tables, in a server on which two read even the smallest database."""
    monkeypatch.setattr(reading_all, "WORTH", 0)
    monkeypatch.setattr(reading_all, "processors", lambda: 3)
    with server.connect() as writer:
        for number in range(8):
            writer.execute(f"CREATE TABLE t{number} AS SELECT n FROM generate_series(1, {10**number % 5003}) AS n")
        with server.connect(autocommit=False) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield connection
        for number in range(8):
            writer.execute(f"DROP TABLE t{number}")


def test_several_connections_see_one_snapshot(server: Server, many: Connection) -> None:
    shared = share(many)
    assert shared is not None
    opened_then: list[Connection] = []

    def connect() -> Connection:
        opened_then.append(server.connect())
        return opened_then[-1]

    with server.connect() as writer:
        writer.execute("INSERT INTO t3 VALUES (0)")
        told: list[str] = []
        with reading(many) as cursor:
            tables = user_tables(cursor)
            alone = {name: found for name, (_, found) in readers(cursor, tables, None).read(opened).items()}
            every = readers(cursor, tables, replace(shared, connect=connect))
            found = every.read(opened, lambda table: told.append(table.name))
        assert {name: rows for name, (_, rows) in found.items()} == alone
        assert sorted(told) == sorted(alone)
        assert len(opened_then) == 2
        assert all(other.closed for other in opened_then)
        with reading(writer) as cursor:
            assert digest(cursor, table(cursor, "public.t3")) != alone["public.t3"]
    many.execute("CREATE TABLE mine ()")
    assert share(many) is None, "others would not see the table"


def test_the_biggest_come_first(many: Connection) -> None:
    told: list[Table] = []
    with reading(many) as cursor:
        every = readers(cursor, user_tables(cursor), None)
        every.read(opened, told.append)
    sizes = [every.sizes[table.name].whole for table in told]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2


def test_a_table_that_is_waited_for_is_left_to_the_connection_that_holds_it(server: Server, many: Connection) -> None:
    """Whoever wants to alter a table waits for the first connection, and the others would wait for him."""
    shared, tried = share(many), Event()
    many.execute("LOCK TABLE t3 IN ACCESS SHARE MODE")

    @contextmanager
    def others_first(cursor: Cursor) -> Iterator[Callable[[Table], int]]:
        def read(table: Table) -> int:
            if table.name == "public.t3":
                tried.set()
            digest(cursor, table)
            return cursor.connection.info.backend_pid

        if cursor.connection is many:
            assert tried.wait(30)
        yield read

    with server.connect() as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.execute, "ALTER TABLE t3 ADD x integer")
        try:
            asked = "SELECT FROM pg_locks WHERE NOT granted AND pid = %s"
            while many.execute(asked, [other.info.backend_pid]).fetchone() is None:
                assert not waiting.done()
            with reading(many) as cursor:
                tables = [found for found in user_tables(cursor) if found.name.startswith("public.t")]
                found = readers(cursor, tables, shared).read(others_first)
        finally:
            many.rollback()  # else the other would wait for ever
        waiting.result()
    assert found["public.t3"] == many.info.backend_pid
    assert len(found) == 8
    assert len(set(found.values())) > 1


def test_an_error_of_another_connection_is_not_lost(server: Server, many: Connection) -> None:
    shared = Shared(snapshot="no such snapshot", connect=server.connect, read_only=True)
    with reading(many) as cursor, pytest.raises(psycopg.Error, match="invalid snapshot identifier"):
        readers(cursor, user_tables(cursor), shared).read(opened)
