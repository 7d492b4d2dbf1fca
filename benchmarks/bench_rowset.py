"""What a digest costs, on a table of 5 million rows and 12 columns, many of them NULL.

The limit is a scan that takes every row apart down to the last column (``count`` of that column) and does nothing else,
measured in the same run, on one connection, in one process of the server: what all ways need alike. Figures are
processor time of that process, the least of several shuffled rounds: the machine's other work does not count. Bounds:

- portable tier: 5 times the limit with 64 bits, 8 times with 128;
- fast tier: 2.5 times with 128 bits;
- each at least 4 times faster than ``md5(t::text)`` of as many bits, with one call for each 64 of them, as it is mostly
  written; that with one call for both is in the table, too;
- linear: from 10 thousand rows on, a row costs at most 1.5 times what it costs in a table of any other size;
- memory of the client below 100 MB.

``ROWS`` and ``ROUNDS`` are environment variables.
"""

from __future__ import annotations

import os
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from bounds import Claim, judge
from psycopg import sql
from tabulate import tabulate

from pytest_iopbackup.proof.rowset import row_hashes, summed
from pytest_iopbackup.proof.session import Connection, Cursor, reading
from pytest_iopbackup.proof.tables import Table, user_tables
from pytest_iopbackup.proof.tiers import Fast, fast

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from clusters import new_server

ROWS = int(os.environ.get("ROWS", "5000000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
PORTABLE = {64: 5.0, 128: 8.0}
FAST = 2.5
FASTER = 4.0
STEEPEST = 1.5
MEMORY = 100  # MB

TABLE = """
CREATE TABLE {name} (
    id integer, account bigint, name text, email text, note text, amount numeric(14, 2), share numeric,
    created timestamptz, updated timestamptz, score float8, active boolean, document jsonb
);
INSERT INTO {name}
SELECT n, n * 7919::bigint + 5000000000, 'name ' || md5(n::text), 'user' || n || '@example.org',
       CASE WHEN n % 3 = 0 THEN repeat(md5((n * 3)::text), 1 + n % 2) END,
       (n % 1000000) / 100.0, CASE WHEN n % 2 = 0 THEN n / 7.0 END,
       timestamptz '2020-01-01 00:00+00' + n * interval '1.234567 s',
       CASE WHEN n % 4 <> 0 THEN timestamptz '2024-01-01 00:00+00' + n * interval '0.7 s' END,
       CASE WHEN n % 5 <> 0 THEN sqrt(n) END, CASE WHEN n % 7 <> 0 THEN n % 2 = 0 END,
       CASE WHEN n % 2 = 0 THEN jsonb_build_object('k', n, 'tags', 'a' || n % 10) END
FROM generate_series(1, {rows}) AS n
"""
LIMIT = "the scan"
MD5 = "pg_catalog.md5(t::text)"


def main() -> int:
    """Fill tables of several sizes, time all ways, print the ratios; 1 where one is over a bound."""
    sizes = [size for size in (10_000, 100_000, 1_000_000) if size < ROWS] + [ROWS]
    with new_server("shared_buffers=2GB", "max_wal_size=8GB") as server, server.connect() as connection:
        for size in sizes:
            connection.execute(TABLE.format(name=f"rows_{size}", rows=size))
            connection.execute(f"VACUUM (ANALYZE, FREEZE) rows_{size}")
        with connection.transaction(force_rollback=True):
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
            with reading(connection) as cursor, fast(cursor) as tier:
                if tier is None:
                    sys.exit("the fast tier's trial failed on this server")
                tables = {table.name: table for table in user_tables(cursor)}
                largest = timed(connection, ways(cursor, tables[f"public.rows_{ROWS}"], tier))
                claims = ratios(largest)
                claims += linear(
                    {size: line(connection, cursor, tables[f"public.rows_{size}"], tier) for size in sizes}
                )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return judge(*claims, Claim(what="client memory", figure=peak, bound=MEMORY, unit="MB"))


def ways(cursor: Cursor, table: Table, tier: Fast) -> dict[str, Callable[[], object]]:
    """Return what is compared, by name."""
    half = "('x' || pg_catalog.substr({}, {}, 16))::bit(64)::bigint"
    first, second, both = half.format(MD5, 1), half.format(MD5, 17), [half.format("m", at) for at in (1, 17)]
    once = f"(SELECT {MD5} AS m FROM ONLY {table.name} AS t OFFSET '0'::bigint) AS t"
    queries: dict[str, str | bytes | sql.Composed] = {
        "count(*)": f"SELECT count(*) FROM ONLY {table.name}",
        LIMIT: f"SELECT count(t.{table.columns[-1][0]}) FROM ONLY {table.name} AS t",
        "portable, 64 bits": sql.SQL("SELECT count(*), sum({}) FROM ONLY {} AS t").format(
            row_hashes(table)[0], sql.SQL(table.name)
        ),
        "portable, 128 bits": summed(table),
        "md5(t::text), 64 bits": f"SELECT count(*), sum({first}) FROM ONLY {table.name} AS t",
        "md5(t::text), 128 bits": f"SELECT count(*), sum({first}), sum({second}) FROM ONLY {table.name} AS t",
        "md5(t::text) once, 128 bits": f"SELECT count(*), sum({both[0]}), sum({both[1]}) FROM {once}",
    }
    found: dict[str, Callable[[], object]] = {name: asking(cursor, query) for name, query in queries.items()}
    found["fast, 128 bits"] = lambda: tier.digest(table)
    return found


def asking(cursor: Cursor, query: str | bytes | sql.Composed) -> Callable[[], object]:
    """Return a call that runs a query."""
    return lambda: cursor.execute(query).fetchall()


def timed(connection: Connection, calls: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the least seconds of the server's process for each call."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            before = processor(connection)
            calls[name]()
            spent[name].append(processor(connection) - before)
    return {name: min(figures) for name, figures in spent.items()}


def processor(connection: Connection) -> float:
    """Return the processor time that the server's process has used, in seconds."""
    nanoseconds = Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()[0]
    return int(nanoseconds) / 1e9


def ratios(spent: dict[str, float]) -> list[Claim]:
    """Print each way against the limit, and return what is claimed of those with a bound."""
    bounds = {f"portable, {bits} bits": bound for bits, bound in PORTABLE.items()} | {"fast, 128 bits": FAST}
    print(f"{ROWS} rows")
    ordered = sorted(spent.items(), key=lambda item: item[1])
    rows = [(name, f"{seconds:.3f}", f"{seconds / spent[LIMIT]:.2f}") for name, seconds in ordered]
    print(tabulate(rows, ("way", "CPU s", "x scan"), disable_numparse=True))
    claims = []
    for name, bound in bounds.items():
        md5 = spent[f"md5(t::text), {name.split(', ')[1]}"]
        claims += [
            Claim(what=f"{name}, against the scan", figure=spent[name] / spent[LIMIT], bound=bound),
            Claim(what=f"{name}, md5 against it", figure=md5 / spent[name], bound=FASTER, at_least=True),
        ]
    return claims


def line(connection: Connection, cursor: Cursor, table: Table, tier: Fast) -> dict[str, float]:
    """Return what both tiers cost on a table."""
    calls: dict[str, Callable[[], object]] = {
        "portable": asking(cursor, summed(table)),
        "fast": lambda: tier.digest(table),
    }
    return timed(connection, calls, rounds=max(ROUNDS, 3))


def linear(spent: dict[int, dict[str, float]]) -> list[Claim]:
    """Print the cost of a row by size of the table, and claim that it stays the same."""
    each = {name: [spent[size][name] / size * 1e9 for size in spent] for name in ("portable", "fast")}
    rows = [(name, *(f"{cost:.0f}" for cost in costs)) for name, costs in each.items()]
    print(tabulate(rows, ("ns per row, 128 bits", *map(str, spent)), disable_numparse=True))
    return [
        Claim(what=f"{name}, dearest against cheapest row of any size", figure=max(costs) / min(costs), bound=STEEPEST)
        for name, costs in each.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
