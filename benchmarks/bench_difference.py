"""What it costs to name the rows that differ: against the digest's own time, against reladiff and pg_comparator.

A table of ROWS rows (5,000,000 by default), a physical copy of its database, and in that 1, 10 and 1,000 rows changed,
missing or extra. Every ratio is of two times measured in this run; both sides are read and counted on both:

- at hand: ``differences_between`` the two, against the digests of both, at the same time;
- sketch: the sketch of the source, as for a mark, then that of the copy and the names, against both digests in turn.

Bounds: at most 1.3 times the digest; at least 5 times faster than reladiff 0.6 and 3 times faster than pg_comparator
2.3; less than 100 MB of memory; a sketch of at most 200 KB; every row found. The two tools are installed for this, from
PyPI and Debian, into a temporary directory; where they cannot be, their claims are unknown.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from bounds import Claim, judge
from tabulate import tabulate

from pytest_iopbackup.proof.localise import differences_between
from pytest_iopbackup.proof.naming import Named, name_differences
from pytest_iopbackup.proof.readers import share
from pytest_iopbackup.proof.rowset import Table, digest, user_tables
from pytest_iopbackup.proof.session import Cursor, reading
from pytest_iopbackup.proof.sketching import layout
from pytest_iopbackup.proof.taking import take_as
from pytest_iopbackup.stack.binaries import find_binaries
from pytest_iopbackup.stack.host import account

ROWS = int(os.environ.get("ROWS", "5000000"))
COUNTS = (1, 10, 1000)
MEMORY_MB = 100
SKETCH_BYTES = 200_000
PORT = int(os.environ.get("PORT", "54329"))
"""On 127.0.0.1, where the server listens meanwhile."""
DATABASES = ("source", "copy")
BOUNDS = {"at hand": 1.3, "sketch": 1.3}
FASTER = {"reladiff": 5.0, "pg_comparator": 3.0}

TABLE = """
CREATE TABLE t (id integer, acct bigint, name text, email text, note text, amount numeric(12, 2), rate numeric,
    created timestamptz, seen timestamptz, score float8, ok boolean, doc jsonb);
INSERT INTO t
SELECT n, n::bigint * 7919, 'name ' || n, 'user' || n || '@example.org',
    CASE WHEN n %% 3 = 0 THEN repeat(md5(n::text), 2) END, (n %% 100000) / 100.0,
    CASE WHEN n %% 4 > 0 THEN n / 7.0 END, '2026-01-01 00:00+00'::timestamptz + n * interval '1 second',
    CASE WHEN n %% 2 = 0 THEN '2026-01-01 00:00+00'::timestamptz + n * interval '1 minute' END, n / 3.0::float8,
    n %% 5 = 0, CASE WHEN n %% 2 = 0 THEN jsonb_build_object('n', n, 'tags', jsonb_build_array('a', n %% 10)) END
FROM generate_series(1, %(rows)s) AS n;
ALTER TABLE t ADD PRIMARY KEY (id);
"""

# Spread over the whole table; the count is put in by name.
CHANGES = {
    "changed": "UPDATE t SET email = 'x' || email, score = -score WHERE id %% (%(rows)s / %(count)s) = 1",
    "missing": "DELETE FROM t WHERE id %% (%(rows)s / %(count)s) = 1",
    "extra": "INSERT INTO t (id, name) SELECT -n, 'new' FROM generate_series(1, %(count)s) AS n",
}


def main() -> int:
    """Make the tables, measure, print; 1 where a bound is missed or a tool could not be run."""
    with tempfile.TemporaryDirectory(prefix="iop-bench-", dir="/tmp") as name:  # short, for sockets
        root = Path(name)
        account().own(root)
        tools = {"reladiff": _reladiff(root), "pg_comparator": _pg_comparator()}
        with _server(root) as connect:
            with connect("postgres") as connection:
                connection.execute("CREATE DATABASE source")
            with connect("source") as connection:
                connection.execute(psycopg.ClientCursor(connection).mogrify(TABLE, {"rows": ROWS}))
                connection.execute("VACUUM (FREEZE, ANALYZE) t")
                if tools["pg_comparator"] is not None:
                    connection.execute("CREATE EXTENSION pgcmp")  # the functions that it calls, from its own package
            lines, claims = [], []
            for way, statement in CHANGES.items():
                for count in COUNTS:
                    with connect("postgres") as connection:
                        connection.execute("DROP DATABASE IF EXISTS copy")
                        connection.execute("CREATE DATABASE copy TEMPLATE source STRATEGY file_copy")
                    with connect("copy") as connection:
                        query = psycopg.ClientCursor(connection).mogrify(statement, {"rows": ROWS, "count": count})
                        connection.execute(query)
                    line, claimed = _case(connect, tools, way, count)
                    lines.append(line)
                    claims += claimed
    print(f"{ROWS} rows; seconds, both sides read")
    print(tabulate(lines, headers="keys", disable_numparse=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return judge(*claims, Claim(what="client memory", figure=peak, bound=MEMORY_MB, unit="MB"))


Connect = Callable[[str], psycopg.Connection[Any]]


def _case(
    connect: Connect, tools: dict[str, list[str] | None], way: str, count: int
) -> tuple[dict[str, str], list[Claim]]:
    together = min(_timed(lambda: _together(connect))[0] for _ in range(2))
    in_turn = min(_timed(lambda: _in_turn(connect))[0] for _ in range(2))
    hand_seconds, at_hand = _timed(lambda: _at_hand(connect))
    sketch_seconds, (sketched, size) = _timed(lambda: _sketched(connect))
    case = f"{count} {way}"
    line = {"rows": case, "digest": f"{together:.2f}, in turn {in_turn:.2f}"}
    claims = [Claim(what=f"{case}: what is kept", figure=size, bound=SKETCH_BYTES, unit="bytes")]
    for name, seconds, limit, found in (
        ("at hand", hand_seconds, together, at_hand),
        ("sketch", sketch_seconds, in_turn, sketched),
    ):
        ratio = seconds / limit
        line[name] = f"{seconds:.2f} = {ratio:.2f} x"
        claims += [
            Claim(what=f"{case}, {name}, against the digest", figure=ratio, bound=BOUNDS[name]),
            Claim(what=f"{case}, {name}, found", figure=_total(found, way), bound=count, unit="rows", at_least=True),
        ]
    for name, argv in tools.items():
        faster = None
        line[name] = "unknown"
        if argv is not None:
            seconds, done = _timed(partial(_run, argv))
            line[name] = f"{seconds:.2f} = {seconds / hand_seconds:.1f} x at hand, exit {done.returncode}"
            if done.returncode == 0:
                faster = seconds / hand_seconds
            else:
                print(f"{name}: {done.stderr.decode(errors='replace').strip()[-300:]}")
        claims.append(Claim(what=f"{case}, {name} against at hand", figure=faster, bound=FASTER[name], at_least=True))
    print(line, flush=True)
    return line, claims


def _total(found: Named, way: str) -> int:
    return {"changed": found.changed, "missing": found.missing, "extra": found.unexpected}[way].total


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def _table(cursor: Cursor) -> Table:
    return next(table for table in user_tables(cursor) if table.name == "public.t")


def _digest(connect: Connect, database: str) -> object:
    with connect(database) as connection, reading(connection) as cursor:
        return digest(cursor, _table(cursor))


def _together(connect: Connect) -> list[object]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda database: _digest(connect, database), DATABASES))


def _in_turn(connect: Connect) -> list[object]:
    return [_digest(connect, database) for database in DATABASES]


def _at_hand(connect: Connect) -> Named:
    with connect("source") as source, connect("copy") as copy:
        return differences_between(source, copy, "public.t")


def _sketched(connect: Connect) -> tuple[Named, int]:
    """Sketch the source, as a mark does; then, with it gone, the copy, and name. All processors read each side."""
    with connect("source") as connection, reading(connection) as cursor:
        table = _table(cursor)
        how = layout(table, ROWS)
        kept = take_as(cursor, table, how, share(connection))
    with connect("copy") as connection, reading(connection) as cursor:
        return name_differences(cursor, kept, how, _table(cursor), shared=share(connection)), len(kept.dump())


@contextmanager
def _server(root: Path) -> Iterator[Connect]:
    """Run a PostgreSQL; the other tools want TCP."""
    programs, data = find_binaries().postgresql, root / "data"

    def run(program: str, *arguments: str) -> None:
        argv = [str(programs / program), "-D", str(data), *arguments]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=600, **account().popen_arguments)

    options = (
        f"-c port={PORT} -c listen_addresses=127.0.0.1 -c unix_socket_directories={root} -c fsync=off "
        "-c autovacuum=off "
        "-c shared_buffers=1GB -c max_wal_size=16GB -c wal_level=minimal -c max_wal_senders=0"
    )
    run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
    run("pg_ctl", "-w", "-l", str(root / "log"), "-o", options, "start")
    try:
        yield lambda database: psycopg.connect(
            host=str(root), port=PORT, user="postgres", dbname=database, autocommit=True
        )
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")


def _reladiff(root: Path) -> list[str] | None:
    """Install reladiff into an environment of its own."""
    place = root / "reladiff"
    venv.create(place, with_pip=True)
    done = subprocess.run(
        [place / "bin" / "pip", "install", "--quiet", "reladiff[postgresql]==0.6.*"], check=False, timeout=600
    )
    if done.returncode != 0:
        return None
    urls = [f"postgresql://postgres@127.0.0.1:{PORT}/{database}" for database in DATABASES]
    columns = [part for name in _COLUMNS for part in ("-c", name)]
    return [str(place / "bin" / "reladiff"), urls[0], "t", urls[1], "t", "-k", "id", *columns]


_COLUMNS = ("acct", "name", "email", "note", "amount", "rate", "created", "seen", "score", "ok", "doc")


def _pg_comparator() -> list[str] | None:
    """Install pg_comparator with the system's package manager, if it is not there."""
    if shutil.which("pg_comparator") is None and shutil.which("apt-get") is not None:
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "postgresql-comparator"],
            check=False, timeout=600, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    program = shutil.which("pg_comparator")
    if program is None:
        return None
    return [program, "--max-report=2000", "SOURCE", "COPY"]


def _run(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    columns = ",".join(_COLUMNS)
    urls = {side.upper(): f"pgsql://postgres@127.0.0.1:{PORT}/{side}/t?id:{columns}" for side in DATABASES}
    return subprocess.run([urls.get(item, item) for item in argv], check=False, capture_output=True, timeout=3600)


if __name__ == "__main__":
    sys.exit(main())
