"""The rows that differ, named: from a sketch of a source that is gone, and with the source at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from proof_server import facts, server, words

from clusters import Server
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof import buckets, localise
from pytest_iopbackup.proof.capture import Capture, capture, load
from pytest_iopbackup.proof.compare import Comparison, compare
from pytest_iopbackup.proof.localise import differences_between
from pytest_iopbackup.proof.naming import Named, name_differences
from pytest_iopbackup.proof.rowset import user_tables
from pytest_iopbackup.proof.session import reading
from pytest_iopbackup.proof.sketching import layout
from pytest_iopbackup.proof.taking import take_as
from pytest_iopbackup.proof.verdict import describe
from pytest_iopbackup.proven import TableComparison

__all__ = ["server"]

pytestmark = pytest.mark.integration

UUID = "('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid"
SOURCE = f"""
CREATE DOMAIN number AS bigint;
CREATE TABLE by_int (id integer PRIMARY KEY, a text, b numeric, c timestamptz, d jsonb, e float8, f boolean);
INSERT INTO by_int SELECT n, 'a' || n, n / 7.0, '2026-01-01 00:00+00'::timestamptz + n * interval '1 s',
    jsonb_build_object('n', n), n / 3.0::float8, n % 2 = 0 FROM generate_series(1, 20000) AS n;
CREATE TABLE by_two (x integer, y number, v text, PRIMARY KEY (y, x));
INSERT INTO by_two SELECT n % 100, -n, 'v' || n FROM generate_series(1, 8000) AS n;
CREATE TABLE by_uuid (id uuid PRIMARY KEY, v text);
INSERT INTO by_uuid SELECT {UUID}, 'v' || n FROM generate_series(1, 7000) AS n;
CREATE TABLE by_text (id text PRIMARY KEY, v text);
INSERT INTO by_text SELECT 'key ' || n, 'v' || n FROM generate_series(1, 5000) AS n;
INSERT INTO by_text VALUES (repeat('long ', 20) || 1, 'one'), (repeat('long ', 20) || 2, 'two');
INSERT INTO by_text VALUES (E'"\\\\ü\\t%s', 'odd');
CREATE TABLE by_content (v text, n integer);
INSERT INTO by_content SELECT 'row ' || n % 4000, n % 4000 FROM generate_series(1, 5000) AS n;
INSERT INTO by_content VALUES (repeat('wide ', 20), 1);
CREATE TABLE "odd ""name"" %s" ("Key %s" integer PRIMARY KEY, "v %s" text);
INSERT INTO "odd ""name"" %s" VALUES (1, 'x');
CREATE TABLE nothing (id integer PRIMARY KEY);
CREATE TABLE zeros (id integer PRIMARY KEY, v integer);
INSERT INTO zeros SELECT n, 0 FROM generate_series(1, 20) AS n;
CREATE TABLE few_by_text AS SELECT * FROM by_text WHERE id LIKE 'long%' OR length(id) < 7;
ALTER TABLE few_by_text ADD PRIMARY KEY (id);
CREATE TABLE few_by_uuid AS TABLE by_uuid LIMIT 1000;
ALTER TABLE few_by_uuid ADD PRIMARY KEY (id);
CREATE TABLE few AS TABLE by_content LIMIT 4000;
INSERT INTO few VALUES ('row 3999', 3999), (repeat('wide ', 20), 1);
"""


def wide(name: str, columns: int) -> str:
    names = ", ".join(f"c{n} smallint DEFAULT {n}" for n in range(1, columns))
    return f"CREATE TABLE {name} (id integer PRIMARY KEY, {names}); INSERT INTO {name} SELECT generate_series(1, 20)"


@pytest.fixture(scope="module")
def expected(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    directory = tmp_path_factory.mktemp("naming") / "mark"
    with server.connect() as connection:
        connection.execute(SOURCE)
        connection.execute(wide("wide", 49))
        capture(connection, directory)
    return load(directory)


@pytest.fixture
def after(server: Server, expected: Capture) -> Iterator[Callable[..., Comparison]]:
    with server.connect() as connection:

        def changed(*statements: str, redact: bool = False) -> Comparison:
            with connection.transaction(force_rollback=True):
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                for statement in statements:
                    connection.execute(statement)
                return compare(expected, connection, redact=redact)

        yield changed


def table(found: Comparison, name: str) -> TableComparison:
    return next(table for table in found.tables if table.table == f"public.{name}")


def totals(found: TableComparison | Named) -> tuple[int, int, int]:
    return found.missing.total, found.unexpected.total, found.changed.total


NUMBERS = (1, 10, 1000)
WAYS = {
    "missing": ("DELETE FROM by_int WHERE id <= {n}", lambda n: (n, 0, 0), "id=1"),
    "unexpected": (
        "INSERT INTO by_int (id) SELECT -n FROM generate_series(1, {n}) AS n",
        lambda n: (0, n, 0),
        "id=-1",
    ),
    "changed": ("UPDATE by_int SET a = a || '!', e = -e WHERE id <= {n}", lambda n: (0, 0, n), "id=1 (a, e)"),
    "doubled": (
        "ALTER TABLE by_int DROP CONSTRAINT by_int_pkey; INSERT INTO by_int SELECT * FROM by_int WHERE id <= {n}",
        lambda n: (0, n, 0),
        "id=1",
    ),
    "swapped": (
        "UPDATE by_int AS t SET b = o.b FROM by_int AS o WHERE o.id = 2 * {n} + 1 - t.id AND t.id <= 2 * {n}",
        lambda n: (0, 0, 2 * n),
        "id=1 (b)",
    ),
}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("statement", "wanted", "name"), WAYS.values(), ids=list(WAYS))
def test_so_many_rows(
    after: Callable[..., Comparison],
    statement: str,
    wanted: Callable[[int], tuple[int, int, int]],
    name: str,
    number: int,
) -> None:
    if "o.id" in statement:
        number = (number + 1) // 2  # a swap changes two rows
    found = table(after(statement.format(n=number)), "by_int")
    assert totals(found) == wanted(number)
    assert found.more_than is None
    assert name in (*found.missing.examples, *found.unexpected.examples, *found.changed.examples)


KEYS = {
    "two numbers": ("DELETE FROM by_two WHERE y = -7", "public.by_two: 1 row missing\n    y=-7, x=7"),
    "two numbers, changed": ("UPDATE by_two SET v = '' WHERE y = -7", "by_two: 1 row changed\n    y=-7, x=7 (v)"),
    "uuid": (
        "DELETE FROM by_uuid WHERE v = 'v42'",
        "public.by_uuid: 1 row missing\n    id=00000000-0000-4000-8000-000000000042",
    ),
    "text": ("DELETE FROM by_text WHERE v = 'v3'", "public.by_text: 1 row missing\n    id=key 3"),
    "odd text": ("DELETE FROM by_text WHERE v = 'odd'", 'public.by_text: 1 row missing\n    id="\\"\\\\\\u00fc\\t%s"'),
    "long text": ("DELETE FROM by_text WHERE v = 'one'", "public.by_text: 1 row missing\n    id=long long"),
    "long text is there": (
        "UPDATE by_text SET v = 'three' WHERE v = 'two'",
        f"public.by_text: 1 row changed\n    id={'long ' * 20}2 (v)",
    ),
    "one long text for another": (
        "UPDATE by_text SET id = id || '0' WHERE v = 'two'",
        f"public.by_text: 1 row unexpected\n    id={'long ' * 20}20",
    ),
    "content": ("DELETE FROM by_content WHERE n = 3999", 'public.by_content: 1 row missing\n    ("row 3999",3999)'),
    "one of two alike": (
        "DELETE FROM by_content WHERE ctid = '(0,1)'",
        'public.by_content: 1 row missing\n    ("row 1",1)',
    ),
    "rows there three times now": (
        "INSERT INTO by_content SELECT * FROM by_content WHERE n = 5",
        'public.by_content: 2 rows unexpected\n    ("row 5",5)\n    ("row 5",5)',
    ),
    "wide content": (
        "DELETE FROM by_content WHERE v LIKE 'wide%'",
        'public.by_content: 1 row missing\n    ("wide wide',
    ),
    "wide content is there": (
        "INSERT INTO by_content SELECT * FROM by_content WHERE v LIKE 'wide%'",
        f'public.by_content: 1 row unexpected\n    ("{"wide " * 20}",1)',
    ),
    "odd names": (
        'UPDATE "odd ""name"" %s" SET "v %s" = NULL',
        'public."odd ""name"" %s": 1 row changed\n    Key %s=1 (v %s)',
    ),
    "empty table": ("INSERT INTO nothing VALUES (1)", "public.nothing: 1 row unexpected\n    id=1"),
    "one of many columns": (
        "UPDATE wide SET c20 = 0 WHERE id = 3",
        "public.wide: 1 row changed\n    id=3 (one of c19 … c21)",
    ),
    "table gone": ("DROP TABLE wide", "public.wide: 20 rows missing\n    id=1\n    id=2"),
    "column gone": ("ALTER TABLE by_uuid DROP v", "public.by_uuid: 7000 rows expected, 7000 found, more than"),
    "one of few": (
        "DELETE FROM few_by_uuid WHERE v = 'v42'",
        "public.few_by_uuid: 1 row missing\n    id=00000000-0000-4000-8000-000000000042",
    ),
    "all of few changed": (
        "UPDATE few_by_uuid SET v = v || '!'",
        "public.few_by_uuid: 1000 rows changed\n    id=00000000-0000-4000-8000-000000000001 (v)",
    ),
    "one of few long texts for another": (
        "UPDATE few_by_text SET id = id || '0' WHERE v = 'two'",
        f"public.few_by_text: 1 row unexpected\n    id={'long ' * 20}20",
    ),
    "one of two alike, of few": (
        "DELETE FROM few WHERE ctid IN (SELECT ctid FROM few WHERE n = 3999 LIMIT 1)",
        'public.few: 1 row missing\n    ("row 3999",3999)',
    ),
    "few rows there three times now": (
        "INSERT INTO few SELECT * FROM few WHERE n = 3999",
        'public.few: 2 rows unexpected\n    ("row 3999",3999)\n    ("row 3999",3999)',
    ),
    "wide content of few is there": (
        "INSERT INTO few SELECT * FROM few WHERE v LIKE 'wide%'",
        f'public.few: 1 row unexpected\n    ("{"wide " * 20}",1)',
    ),
    "key of few renamed": (
        "ALTER TABLE few_by_uuid RENAME id TO other; DELETE FROM few_by_uuid WHERE v = 'v42'",
        "public.few_by_uuid: 1 row missing\n    id=00000000-0000-4000-8000-000000000042",
    ),
    "column gone, few rows": ("ALTER TABLE wide DROP c1", "public.wide: 20 rows changed\n    id=1 (one of c1 … c3)"),
    "all rows gone": ("DELETE FROM by_int", "public.by_int: 20000 rows missing"),
    "too many": (
        "UPDATE by_int SET a = '' WHERE id <= 10000",
        "public.by_int: 20000 rows expected, 20000 found, more than 10",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "named"), KEYS.values(), ids=list(KEYS))
def test_rows_are_named(after: Callable[..., Comparison], statement: str, named: str) -> None:
    assert named in words(after(statement))


def test_every_column_by_itself(after: Callable[..., Comparison]) -> None:
    found = after(
        "UPDATE by_int SET a = '' WHERE id = 1", "UPDATE by_int SET b = b * 1.0 WHERE id = 2",
        "UPDATE by_int SET c = c + interval '4294.967296 s' WHERE id = 3",
        "UPDATE by_int SET d = '{\"n\": 4.0}' WHERE id = 4", "UPDATE by_int SET e = NULL WHERE id = 5",
        "UPDATE by_int SET f = NOT f WHERE id = 6", "UPDATE by_int SET a = NULL, f = NULL WHERE id = 7",
    )  # fmt: skip
    assert table(found, "by_int").changed.examples == (
        "id=1 (a)", "id=2 (b)", "id=3 (c)", "id=4 (d)", "id=5 (e)", "id=6 (f)", "id=7 (a, f)",
    )  # fmt: skip


def test_few_rows_became_many(after: Callable[..., Comparison], monkeypatch: pytest.MonkeyPatch) -> None:
    statement = "INSERT INTO few_by_text SELECT 'new ' || n, 'x' FROM generate_series(1, 1000) AS n"
    assert table(after(statement), "few_by_text").unexpected.total == 1000
    monkeypatch.setattr("pytest_iopbackup.proof.naming.MOST", 500)
    monkeypatch.setattr("pytest_iopbackup.proof.taking.MOST", 500)
    found = table(after(statement), "few_by_text")
    assert (totals(found), found.more_than) == ((0, 0, 0), 500 - found.expected_rows)


@pytest.mark.parametrize("rows", [20, 100_000])
def test_as_many_columns_as_there_can_be(server: Server, rows: int) -> None:
    """Without the catalogs, which take PostgreSQL half a minute for so many columns."""
    with server.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(wide("widest", 1600))
        with reading(connection) as cursor:
            there = next(table for table in user_tables(cursor) if table.name == "public.widest")
            how = layout(there, rows)
            before = take_as(cursor, there, how)
        connection.execute("UPDATE widest SET c777 = 0 WHERE id = 3; DELETE FROM widest WHERE id = 4")
        with reading(connection) as cursor:
            found = name_differences(cursor, before, how, there)
    assert found.changed.examples == ("id=3 (one of c700 … c799)",)
    assert found.missing.examples == ("id=4",)


def test_a_sketch_is_small(expected: Capture) -> None:
    sizes = [file.stat().st_size for file in (expected.directory / "sketch").iterdir()]
    assert len(sizes) == len(expected.tables)
    assert max(sizes) <= 200_000
    assert min(sizes) == 0  # an empty table's


def test_redacted(after: Callable[..., Comparison]) -> None:
    found = after(
        "UPDATE by_text SET v = 'secret' WHERE id = 'key 17'",
        "DELETE FROM by_uuid WHERE v = 'v42'",
        "INSERT INTO nothing VALUES (4711)",
        "INSERT INTO by_content VALUES ('secret', 4711)",
        redact=True,
    )
    text = describe(facts(found))
    for value in ("secret", "key 17", "0042", "4711"):
        assert value not in text
        assert value not in repr(found)
    assert len(table(found, "by_text").changed.examples) == 1
    assert table(found, "by_text").changed.examples[0].endswith(" (v)")
    assert "public.by_uuid: 1 row missing\n    #" in text


@pytest.fixture(scope="module")
def source(server: Server, expected: Capture) -> Iterator[psycopg.Connection[Any]]:
    """A database with the same content as the capture."""
    with server.connect() as connection:
        connection.execute("CREATE DATABASE source TEMPLATE postgres")
    try:
        with server.connect(dbname="source") as connection:
            yield connection
    finally:
        with server.connect() as connection:
            connection.execute("DROP DATABASE source WITH (FORCE)")


@pytest.fixture
def between(server: Server, source: psycopg.Connection[Any]) -> Iterator[Callable[..., Named]]:
    """Change a copy in a transaction, compare it with the source, and roll back."""
    with server.connect() as connection:

        def changed(name: str, *statements: str, redact: bool = False) -> Named:
            with connection.transaction(force_rollback=True):
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                for statement in statements:
                    connection.execute(statement)
                return differences_between(source, connection, f"public.{name}", redact=redact)

        yield changed


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("statement", "wanted"), [way[:2] for way in WAYS.values()], ids=list(WAYS))
def test_so_many_rows_with_the_source_at_hand(
    between: Callable[..., Named], statement: str, wanted: Callable[[int], tuple[int, int, int]], number: int
) -> None:
    if "o.id" in statement:
        number = (number + 1) // 2
    assert totals(between("by_int", statement.format(n=number))) == wanted(number)


VALUES = {
    "changed": (
        "by_int",
        "UPDATE by_int SET a = E'x\\n', f = NULL WHERE id = 5",
        ("changed", 'id=5 (a: a5 → "x\\n", f: false → NULL)'),
    ),
    "long value": (
        "by_int",
        "UPDATE by_int SET a = repeat('x', 99) WHERE id = 5",
        ("changed", f"id=5 (a: a5 → {'x' * 39}…)"),
    ),
    "two numbers": ("by_two", "UPDATE by_two SET v = '' WHERE y = -7", ("changed", 'y=-7, x=7 (v: v7 → "")')),
    "odd text": (
        "by_text",
        "UPDATE by_text SET v = 'even' WHERE v = 'odd'",
        ("changed", 'id="\\"\\\\\\u00fc\\t%s" (v: odd → even)'),
    ),
    "content": ("by_content", "DELETE FROM by_content WHERE n = 3999", ("missing", '("row 3999",3999)')),
    "one of two alike": ("by_content", "DELETE FROM by_content WHERE ctid = '(0,1)'", ("missing", '("row 1",1)')),
    "odd names": (
        '"odd ""name"" %s"',
        'UPDATE "odd ""name"" %s" SET "v %s" = NULL',
        ("changed", "Key %s=1 (v %s: x → NULL)"),
    ),
    "one of many columns": ("wide", "UPDATE wide SET c20 = 0 WHERE id = 3", ("changed", "id=3 (c20: 20 → 0)")),
    "column gone": ("wide", "ALTER TABLE wide DROP c48; DELETE FROM wide WHERE id > 1",
        ("changed", "id=1 (c48: 48 → NULL)")),
    "empty": ("nothing", "INSERT INTO nothing VALUES (1)", ("unexpected", "id=1")),
    "written anew in another order": (
        "by_int",
        "CREATE TEMP TABLE o AS TABLE by_int; TRUNCATE by_int; INSERT INTO by_int SELECT * FROM o ORDER BY id DESC; "
        "UPDATE by_int SET e = 0 WHERE id = 3",
        ("changed", "id=3 (e: 1 → 0)"),
    ),
    "written anew, without a key": (
        "by_content",
        "CREATE TEMP TABLE o AS TABLE by_content; TRUNCATE by_content; INSERT INTO by_content SELECT * FROM o "
        "ORDER BY n DESC; DELETE FROM by_content WHERE n = 3999",
        ("missing", '("row 3999",3999)'),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "statement", "wanted"), VALUES.values(), ids=list(VALUES))
def test_values_with_the_source_at_hand(
    between: Callable[..., Named], name: str, statement: str, wanted: tuple[str, str]
) -> None:
    found = between(name, statement)
    way, text = wanted
    assert getattr(found, way).examples[:1] == (text,)
    assert getattr(found, way).total == (19 if "DELETE FROM wide" in statement and way == "missing" else 1)


def test_no_difference_with_the_source_at_hand(between: Callable[..., Named]) -> None:
    assert totals(between("by_int")) == (0, 0, 0)


@pytest.fixture
def tiers_used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note by which tier blocks are compared, on which side soever."""
    used: list[str] = []
    for tier in ("image_buckets", "block_buckets"):

        def noted(*arguments: Any, tier: str = tier) -> Any:
            used.append(f"{tier} of {arguments[2]}")
            return getattr(buckets, tier)(*arguments)

        monkeypatch.setattr(localise, tier, noted)
    return used


CHANGE = "UPDATE by_int SET a = 'x' WHERE id = 5"


def test_the_fast_tier_finds_the_blocks_and_the_portable_one_has_the_say(
    between: Callable[..., Named], tiers_used: list[str]
) -> None:
    assert totals(between("by_int", CHANGE)) == (0, 0, 1)
    assert tiers_used == ["image_buckets of 4"] * 2 + ["block_buckets of 1"] * 2


def test_without_the_fast_tier_on_both_sides_the_portable_one_does_all(
    between: Callable[..., Named], tiers_used: list[str], source: psycopg.Connection[Any]
) -> None:
    source.execute("SET default_transaction_read_only = on")
    try:
        assert totals(between("by_int", CHANGE)) == (0, 0, 1)
    finally:
        source.execute("RESET default_transaction_read_only")
    assert tiers_used == ["block_buckets of 4"] * 2 + ["block_buckets of 1"] * 2


def test_the_same_bytes_of_another_type_are_another_value(between: Callable[..., Named], tiers_used: list[str]) -> None:
    assert totals(between("zeros", "ALTER TABLE zeros ALTER v TYPE real USING 0")) == (0, 0, 20)
    assert "image_buckets of 4" not in tiers_used


def test_redacted_with_the_source_at_hand(between: Callable[..., Named]) -> None:
    found = between("by_int", "UPDATE by_int SET a = 'secret' WHERE id = 4711", redact=True)
    assert found.changed.examples[0].endswith(" (a)")
    assert "4711" not in repr(found).replace(found.changed.examples[0], "")
    assert "secret" not in repr(found)


def test_no_such_table(between: Callable[..., Named]) -> None:
    with pytest.raises(ProofError, match=r"the source has no table public\.absent"):
        between("absent")
    with pytest.raises(ProofError, match=r"the restored database has no table public\.by_int"):
        between("by_int", "DROP TABLE by_int")
