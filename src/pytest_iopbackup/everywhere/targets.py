"""Every kind of recovery target, each on a copy beside the running stack, two at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pytest_iopbackup.drill import Drill, nothing
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.everywhere import candidates, zones
from pytest_iopbackup.everywhere.attempt import Attempt, attempt
from pytest_iopbackup.everywhere.window import Window, archive_all
from pytest_iopbackup.points import PointFacts, PointsFacts

_AT_A_TIME = 2


def try_every_target(drill: Drill) -> PointsFacts:
    """Restore to every kind of target on the history that a drill has made, and judge each; the stack goes on.

    Raises UsageError where that history is too short: it takes two marks with writes between them, and a backup.
    """
    archive_all(drill)
    attempts = tuple(every_target(drill))
    progress, drill.progress = drill.progress, nothing
    done, lock = 0, threading.Lock()

    def run(wanted: Attempt) -> PointFacts:
        nonlocal done
        facts = attempt(drill, wanted)
        with lock:
            done += 1
            progress(done, len(attempts))
        return facts

    try:
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            points = tuple(pool.map(run, attempts))
    finally:
        drill.progress = progress
    order = attempts[0].window.order
    return PointsFacts(
        points=points,
        restores=sum(point.backup_set is not None and point.reached is not None for point in points),
        window=f"{len(order.endings)} transactions, {len(attempts[0].window.backups)} backups",
    )


def every_target(drill: Drill) -> Iterator[Attempt]:
    """Give what is tried: first what depends on nothing being committed meanwhile."""
    newest = Window(drill)
    if len(newest.marks) < 2:
        raise UsageError(
            f"{len(newest.marks)} marks lie on the newest timeline, and two are needed", hint="write, and mark again"
        )
    yield from candidates.ends(newest)
    yield from candidates.commits(newest)
    yield from candidates.backups(newest)
    yield from candidates.marks(newest)
    yield from candidates.nowhere(newest)
    yield from zones.zones(newest)
    yield from zones.fold(newest)
    yield from candidates.again(newest)
    if len(newest.timelines) > 1:
        yield from candidates.timelines(newest, Window(drill, newest.timelines[-2]))
