"""Many recovery points for one restore: a standby pauses at the first, is judged there, and moved on to the next.

At each point, whatever was found at the one before: every request in the audit table against the ledger, the version of
every row that any transaction of the ledger changed, the row set of every table that the workload never changes (at a
mark, of all tables, and schema, sequences and large objects), PostgreSQL's words on where it stopped, and how far it
says that it has replayed. Of the tables that never change, those that no record of the WAL changes either are read at
each restore's first and last point, and at marks (see :mod:`still`). Done once: reading the WAL, the text of a query,
and for each restore the physical proof, when recovery ends at its last point.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from random import Random

from pytest_iopbackup.blame import blame, words
from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.standby import Paused, Standby
from pytest_iopbackup.dataset.prepared import roll_back_left_over
from pytest_iopbackup.drill import Drill, nothing
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.everywhere.draw import Place, draw, placed
from pytest_iopbackup.everywhere.still import Still
from pytest_iopbackup.everywhere.window import Window, archive_all
from pytest_iopbackup.points import PointFacts, PointsFacts
from pytest_iopbackup.proof.prove import require_sound
from pytest_iopbackup.proof.stop import misplaced, overrun
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import BackupFacts


class Sweep:
    """Proves random points of a window and every mark in it, in the order of WAL.

    ``workers`` split the window, each with a restore of its own from the newest backup before its part.
    """

    def __init__(self, drill: Drill, points: int, workers: int = 1) -> None:
        self._drill = drill
        self._workers = workers
        self._count = points
        self._progress = drill.progress
        self._lock = threading.Lock()
        self._done = self._total = 0

    def run(self) -> PointsFacts:
        """Judge each point; the first that cannot be reached ends its part, and those behind it are unknown.

        Raises ProofError where WAL of the window is missing.
        """
        archive_all(self._drill)
        window = Window(self._drill, changes=True)
        return self.over(window, draw(window, self._count, Random(self._drill.seed)))  # noqa: S311 - reproducible

    def over(self, window: Window, places: Sequence[Place]) -> PointsFacts:
        """Judge these places of a window, which come in the order of WAL."""
        self._total = len(places)
        parts = split(places, self._workers)
        self._drill.progress = nothing
        try:
            with ThreadPoolExecutor(max(len(parts), 1)) as pool:
                done = list(pool.map(lambda part: self._part(window, part), parts))
        finally:
            self._drill.progress = self._progress
        first, last = window.backups[0].stop_lsn, window.order.last
        return PointsFacts(
            points=tuple(point for points, _ in done for point in points),
            restores=sum(restores for _, restores in done),
            window=f"{len(window.endings)} transactions from LSN {first}" + (f" to {last:X}" if last else ""),
            seed=self._drill.seed,
        )

    def _part(self, window: Window, places: Sequence[Place]) -> tuple[list[PointFacts], int]:
        points: list[PointFacts] = []
        standby = Standby(self._drill.stack.copy(), self._drill.limits)
        still = window.still()
        try:
            for place in places:
                still.last = place is places[-1]
                points.append(self._point(window, place, standby, still))
                if broken := still.take_broken():
                    points[:-1] = taken_back(points[:-1], points[-1], broken)
                self._tell()
                if points[-1].reached is None:  # WAL is missing, and will be for all that come behind
                    break
                if standby.base is None or place is places[-1]:  # nothing more comes of this restore
                    points[-1] = self._look_over(standby, points[-1])
                    still = window.still()
        finally:
            standby.close()
        lost = f"not tried: recovery did not get past {points[-1].name}"
        return points + [
            replace(_facts(place, newest_before(window, place)), verdict=Verdict.UNKNOWN, reason=lost)
            for place in places[len(points) :]
        ], standby.restores

    def _point(self, window: Window, place: Place, standby: Standby, still: Still) -> PointFacts:
        began = time.monotonic()
        base = standby.base or newest_before(window, place)
        facts = _facts(place, base)
        try:
            _demand_same(window, place, base)
            paused = standby.reach(place.target, base)
            facts = replace(facts, reached=paused.reached)
            still.ended = paused.locked
            facts = self._judge(window, place, paused, standby, facts, still=still)
        except Exception as error:  # whatever it is, it is a verdict with a reason
            facts = replace(facts, verdict=blame(error), reason=words(error))
        return replace(facts, seconds=time.monotonic() - began)

    def _judge(
        self, window: Window, place: Place, paused: Paused, standby: Standby, facts: PointFacts, *, still: Still
    ) -> PointFacts:
        if paused.locked:
            standby.promote()
            roll_back_left_over(standby.connection)  # a prepared transaction keeps its locks even then
        proven = window.prove(place.cut, standby.connection, still=still)
        astray = misplaced(window.order, place.target, place.cut, paused.reached)
        return proven.judged(facts, astray or overrun(window.order, place.cut, paused.replayed))

    def _look_over(self, standby: Standby, last: PointFacts) -> PointFacts:
        """Look the restored cluster over, as after each restore; its last point is judged, for this ends recovery."""
        try:
            standby.end()
            roll_back_left_over(standby.connection)
            return replace(last, physical=require_sound(standby.connection, self._drill.limits.examine))
        except Exception as error:  # whatever it is, it is a verdict with a reason
            return _worse(last, blame(error), words(error))

    def _tell(self) -> None:
        with self._lock:
            self._done += 1
            self._progress(self._done, self._total)


def split(places: Sequence[Place], parts: int) -> list[Sequence[Place]]:
    """Return the places in so many stretches of about the same length, none of them empty."""
    size, rest = divmod(len(places), parts)
    ends = [number * size + min(number, rest) for number in range(parts + 1)]
    return [places[begin:end] for begin, end in pairwise(ends) if end > begin]


def taken_back(points: Sequence[PointFacts], witness: PointFacts, tables: Sequence[str]) -> list[PointFacts]:
    """Return points as failed from the last one on at which all was read: these tables were vouched for, and differ."""
    reason = f"{', '.join(tables)}: not read here, for no record of the WAL changes it; at {witness.name} it differs"
    whole = next((at for at in reversed(range(len(points))) if not points[at].still), -1)
    return [*points[: whole + 1], *(_worse(point, Verdict.FAILED, reason) for point in points[whole + 1 :])]


def newest_before(window: Window, place: Place) -> BackupFacts:
    """Return the newest backup that ends before a place."""
    return [one for one in window.backups if parse_lsn(one.stop_lsn) < place.position[0]][-1]


def _demand_same(window: Window, place: Place, base: BackupFacts) -> None:
    """Raise ProofError where a restore from ``base`` would stop elsewhere than one from the oldest backup."""
    again = placed(window, place.target, base)
    if again is None or again.position != place.position:
        raise ProofError(f"from backup {base.label}, {place.target.describe()} is another place")


def _worse(point: PointFacts, found: Verdict, reason: str) -> PointFacts:
    """Return a point's facts with what was found besides, unless it has not passed anyway."""
    return point if point.verdict is not Verdict.PASSED else replace(point, verdict=found, reason=reason)


def _facts(place: Place, base: BackupFacts) -> PointFacts:
    target = place.target
    return PointFacts(
        name=target.describe(),
        by=target.by.value,
        target=target.value,
        exclusive=target.exclusive,
        backup_set=base.label,
        timeline=target.timeline,
        verdict=Verdict.UNKNOWN,
        seconds=0,
    )
