"""Recovery points proven per minute by a sweep, against a restore for each of them, in one run on one stack.

50 random points and each mark: one restore, then forward. Beside it, spread over the same points, ``SAMPLE`` of them by
a restore of their own, judged alike. Bounds: at least 10 times as many points a minute, and all
within 90 s. ``WORKERS`` parts of the window, or restores, go side by side.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from random import Random

from bounds import Claim, judge
from tabulate import tabulate

from pytest_iopbackup.cluster.lsn import format_lsn
from pytest_iopbackup.drill import Drill, nothing
from pytest_iopbackup.everywhere.attempt import Attempt, attempt
from pytest_iopbackup.everywhere.draw import draw
from pytest_iopbackup.everywhere.sweep import Sweep
from pytest_iopbackup.everywhere.window import Window, archive_all
from pytest_iopbackup.options import Options
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.scenario.model import Dataset
from pytest_iopbackup.session import Session

TIMES = 10.0
SECONDS = 90.0
POINTS = int(os.environ.get("POINTS", "50"))
SAMPLE = int(os.environ.get("SAMPLE", "6"))
USERS = [int(users) for users in os.environ.get("USERS", "2000 100000").split()]
"""The standard dataset, of 13 MB, and one of 206 MB."""
WORKERS = int(os.environ.get("WORKERS", "2"))


def main() -> int:
    """Time both on the same points, print the ratio; 1 where a bound is missed or a point is not exact."""
    session = Session(Options(), run=secrets.token_hex(4))
    with ExitStack() as stack:
        stack.callback(session.close)
        return judge(*(claim for users in USERS for claim in _compared(session, users)))


def _compared(session: Session, users: int) -> list[Claim]:
    with session.provide(Dataset(users=users), lambda _name: nothing) as drill:
        _write(drill)
        begun = time.monotonic()
        swept = Sweep(drill, POINTS, WORKERS).run()
        seconds = time.monotonic() - begun
        begun = time.monotonic()
        window = Window(drill)
        reading = time.monotonic() - begun
        places = draw(window, POINTS, Random(drill.seed))
        spread = [places[(2 * number + 1) * len(places) // (2 * SAMPLE)] for number in range(SAMPLE)]
        targets = [replace(at.target, at_lsn=format_lsn(at.position[0])) for at in spread]
        attempts = [Attempt(name=one.describe(), window=window, target=one) for one in targets]
        begun = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as pool:
            each = list(pool.map(partial(attempt, drill), attempts))
        per_point = (time.monotonic() - begun) / len(each) + reading / len(places)
    for point in (*swept.points, *each):
        if point.verdict is not Verdict.PASSED:
            print(f"{point.name}: {point.verdict.value}: {point.reason}")
    sweeping, restoring = 60 * len(swept.points) / seconds, 60 / per_point
    aside = f"{WORKERS} at a time"
    rows = [
        (f"sweep, {aside}", f"{len(swept.points)}", f"{seconds:.1f}", f"{sweeping:.0f}"),
        (f"a restore each, {aside}", f"{len(each)} sampled", f"{per_point:.2f} each", f"{restoring:.1f}"),
    ]
    print(tabulate(rows, (f"{users} users", "points", "s", "points per minute"), disable_numparse=True))
    wrong = sum(point.verdict is not Verdict.PASSED for point in (*swept.points, *each))
    ratio = f"{users} users: points per minute, to a restore each"
    return [
        Claim(what=f"{users} users: points that are not exact", figure=wrong, bound=0, unit="points"),
        Claim(what=ratio, figure=sweeping / restoring, bound=TIMES, at_least=True),
        Claim(what=f"{users} users: {len(swept.points)} points", figure=seconds, bound=SECONDS, unit="s"),
    ]


def _write(drill: Drill) -> None:
    """Make the history of the scenario ``sweep``."""
    drill.mark("seeded")
    for mark, kind in (("first", "diff"), ("second", "full"), ("third", None)):
        drill.write(200)
        drill.mark(mark)
        if kind:
            drill.backup(kind)
    archive_all(drill)


if __name__ == "__main__":
    sys.exit(main())
