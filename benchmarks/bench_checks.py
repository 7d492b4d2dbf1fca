"""What a check cycle costs besides ``pgbackrest check``, on repositories with more and more archived WAL.

The limit is ``pgbackrest check`` alone, timed in turn on the same system. Bounds: with 10,000 segments a cycle takes
at most 2 s more than that, in which it verifies checksums for IOP_WAL_VERIFY_SECONDS (1 s) beside its other questions;
and its processor time grows linearly. From 3,000 to 10,000 there come 3.5 times as many segments as from 1,000 to
3,000: linear cost grows 3.5 times as much, quadratic cost 11 times. The bound is 7, where there is enough to measure.
"""

from __future__ import annotations

import itertools
import os
import re
import statistics
import sys
import time
from pathlib import Path

from bounds import Claim, judge
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))
from pgbackrest_system import System, system

SIZES = (1_000, 3_000, 10_000)
BOUND = 2.0
STEEPEST = 7.0
LEAST = 0.05  # seconds of CPU time: less is noise
BATCH = 64  # segments of 16 MiB that wait for the archive at a time
ROUNDS = int(os.environ.get("ROUNDS", "5"))


def main() -> int:
    """Time both in turn, print the differences; 1 where one is over a bound."""
    rows, more, spent = [], {}, []
    with system() as stack:
        stack.must(stack.scripts / "backup.sh")
        for size in SIZES:
            fill(stack, size)
            cycle(stack)  # remembers what is there
            needed = re.search(r"(\d+) segments needed", stack.must(stack.scripts / "check.sh"))
            assert needed, "the check named wal-chain does not say what it looked at"
            assert int(needed[1]) >= size - 10, needed[0]
            pairs = [(alone(stack), cycle(stack)) for _ in range(ROUNDS)]
            limit, whole = (statistics.median(times) for times in zip(*pairs, strict=True))
            more[size] = whole - limit
            spent.append(statistics.median(cpu(stack) for _ in range(ROUNDS)))
            rows.append((size, *(f"{figure:.2f}" for figure in (limit, whole, more[size], whole / limit, spent[-1]))))
    names = ("segments", "pgbackrest check s", "cycle s", "difference s", "ratio", "CPU s")
    print(tabulate(rows, names, disable_numparse=True))
    first, second = (after - before for before, after in itertools.pairwise(spent))
    print(f"CPU time more: {first:+.2f} s up to {SIZES[1]} segments, {second:+.2f} s from there")
    steep = second / max(first, LEAST)
    return judge(
        Claim(
            what=f"a cycle, {SIZES[-1]} segments, beside pgbackrest check",
            figure=more[SIZES[-1]],
            bound=BOUND,
            unit="s",
        ),
        Claim(what="its CPU time, growth with 3.5 times the segments", figure=steep, bound=STEEPEST),
    )


def fill(stack: System, size: int) -> None:
    """Have so many segments in the archive: real ones, for the checks read each record of them."""
    while (missing := size - len(list(stack.repository.glob("archive/iop/*/*/*-*")))) > 0:
        switch = "SELECT pg_logical_emit_message(false, 'bench', ''), pg_switch_wal()"
        stack.sql(f"SELECT count(*) FROM ({switch} FROM generate_series(1, {min(missing, BATCH)})) AS segments")
        newest = stack.sql("SELECT pg_walfile_name(pg_switch_wal() - 1)")
        while newest > (stack.sql("SELECT last_archived_wal FROM pg_stat_archiver") or ""):
            time.sleep(0.05)


def alone(stack: System) -> float:
    """Time ``pgbackrest check``."""
    return timed(stack, "pgbackrest", "--stanza=iop", "check")


def cycle(stack: System) -> float:
    """Time a cycle; it has to find nothing."""
    return timed(stack, str(stack.scripts / "check.sh"))


def timed(stack: System, *argv: str) -> float:
    """Return the seconds that a program takes, which has to succeed."""
    started = time.perf_counter()
    stack.must(*argv)
    return time.perf_counter() - started


def cpu(stack: System) -> float:
    """Return the processor time of a cycle with all that it runs."""
    printed = stack.run("bash", "-c", f"TIMEFORMAT='%U %S'; time {stack.scripts}/check.sh >/dev/null").stderr
    return sum(map(float, printed.split()[-2:]))


if __name__ == "__main__":
    sys.exit(main())
