"""Takes marks on a stack that is written to, and recovers to every one of them: each must hold exactly its row sets.

    python benchmarks/stress_marks.py [MARKS [CLIENTS]] [--between N] [--users N]

One restore, whose target moves from mark to mark, by name, time, xid and LSN in turn. Prints how long writers waited
by the marks' own account: the longest that one of them can have, and what it is made of. Exit code 1 if a mark was not
exact, or if there was one without writers at work around it. Not part of ``control.sh bench``: 200 marks take minutes.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from bisect import bisect
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from uuid import uuid4

from tabulate import tabulate

from pytest_iopbackup.dataset.ledger import Entry
from pytest_iopbackup.drill import Drill, nothing
from pytest_iopbackup.options import Options
from pytest_iopbackup.record import MarkFacts
from pytest_iopbackup.scenario.model import Dataset
from pytest_iopbackup.session import Session

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))
from moving_standby import WAYS, standby

NEAR = timedelta(milliseconds=250)
"""Writers were at work if one committed so shortly before a mark, and one so shortly after."""


def main() -> int:
    """Take them, recover to them; 1 where one was not exact or had no load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("marks", nargs="?", type=int, default=200)
    parser.add_argument("clients", nargs="?", type=int, default=8)
    parser.add_argument("--between", type=int, default=100, help="transactions between two marks (default: 100)")
    parser.add_argument("--users", type=int, default=200, help="size of the dataset (default: 200)")
    arguments = parser.parse_args()
    session = Session(Options(stack="local"), uuid4().hex[:8])
    with closing(session), session.provide(Dataset(users=arguments.users), lambda _: nothing) as drill:
        begun = time.monotonic()
        total = arguments.between * (arguments.marks + 1)
        facts = drill.write(total, arguments.clients, marks=arguments.marks)
        written = time.monotonic()
        print(
            f"{facts.acknowledged} transactions acknowledged, {facts.rolled_back} rolled back, "
            f"{len(facts.marks)} marks in {written - begun:.0f} s"
        )
        report_waits(facts.marks)
        idle = without_load(facts.marks, drill.ledger.entries())
        wrong = recover(drill, facts.marks)
        print(f"{len(facts.marks) - wrong} of {arguments.marks} marks exact, in {time.monotonic() - written:.0f} s")
    print(f"without a commit within {NEAR.total_seconds() * 1000:.0f} ms on both sides: {idle}")
    return 1 if wrong or idle or len(facts.marks) < arguments.marks else 0


def recover(drill: Drill, marks: Sequence[MarkFacts]) -> int:
    """Visit every mark; return how many are not exact."""
    wrong = 0
    with standby(drill) as copy:
        for mark, by in zip(marks, cycle(WAYS), strict=False):
            copy.move(mark, by)
            if (difference := copy.differences(mark)) is not None:
                wrong += 1
                print(f"{mark.name} by {by.value}: {difference}", flush=True)
    return wrong


def without_load(marks: Sequence[MarkFacts], entries: Sequence[Entry]) -> int:
    """Count marks without a commit shortly before and one shortly after: they say nothing about load."""
    times = sorted(entry.time for entry in entries if entry.time)
    found = 0
    for mark in marks:
        at = bisect(times, mark.time)
        before, after = times[max(at - 1, 0)], times[min(at, len(times) - 1)]
        found += not (mark.time - NEAR <= before <= mark.time <= after <= mark.time + NEAR)
    return found


def report_waits(marks: Sequence[MarkFacts]) -> None:
    """Print how long writers waited, in milliseconds."""
    columns = {
        "one writer at most": [mark.writers_waited for mark in marks],
        "locks held": [mark.locked for mark in marks],
        "queued behind requests": [mark.queued for mark in marks],
    }
    rows = [
        (name, *(f"{1000 * percentile(values, part):.1f}" for part in (0.5, 0.95, 1.0)))
        for name, values in columns.items()
    ]
    print(tabulate(rows, ("writers waited, ms", "p50", "p95", "max"), disable_numparse=True))
    print(f"requests for locks: {sum(mark.requests for mark in marks)}, at most {max(mark.requests for mark in marks)}")
    print(f"second points: {sum(mark.restore_point != mark.name for mark in marks)}")


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that so many are not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)]


if __name__ == "__main__":
    sys.exit(main())
