"""Timelines of the archive that are not the newest one. A restore begins a new timeline, and leaves the old one's rest.

A time belongs to the timeline that was live then. An LSN, a transaction or a name tells no time: it is looked for on
the newest timeline and its ancestors, up to where each was left. Python 3.9 or later, standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from repository import Refused
from wal import Archive, Record, format_time

DOUBT = 10
"""Seconds that the archiving of a history file may take."""


def live_at(archive: Archive, moment: datetime) -> tuple[Archive, list[str]]:
    """Return the archive along the timeline that was live at a moment, and what is to be said of that choice.

    It is the newest one that had begun by then. When one began is not recorded anywhere: its history was archived
    within seconds, unless archiving was broken, and its own transactions ended later.
    """
    began, seconds = archive.began, moment.timestamp()
    live = max(timeline for timeline, at in began.items() if at <= seconds)
    for timeline in [archive.newest, *archive.others()]:
        if timeline > live:
            along = archive.along(timeline)
            records = along.search(along.branch // along.size, "Transaction", 0)
            first = next((r.when for r in records if r.when and r.lsn >= along.branch), None)
            live = timeline if first and first <= moment else live
    doubtful = (t for t, at in began.items() if at - DOUBT < seconds < at + 1 and (t > live or seconds >= at))
    notes = [f"timeline {t} began within seconds of this moment; taken for one of timeline {live}" for t in doubtful]
    return archive if live == archive.timeline else archive.along(live), notes


def refuse_left(archive: Archive, what: str, find: Callable[[Archive, int], Record | None], lsn: int = 0) -> None:
    """Raise Refused if a target that is not on the newest timeline's way is on that of another one.

    ``find`` looks for it in an archive, from an LSN on. The message has the time by which it can be reached: that of
    the last transaction up to ``lsn``, or to the record.
    """
    for timeline in archive.others():
        along = archive.along(timeline)
        try:
            record = find(along, max(along.branch, archive.lineage.get(timeline) or 0))
            if not record:
                continue
            place = lsn or record.lsn
            numbers = range(place // along.size, along.branch // along.size - 1, -1)
            ends = (r for n in numbers if n in along.files for r in reversed(along.records(n, "--rmgr=Transaction")))
            when = next((r.when for r in ends if r.when and r.lsn <= place), None)
        except Refused:  # damage there is not what was asked for
            continue
        raise Refused(
            f"{what} is on timeline {timeline} only, which the newest one, {archive.timeline}, left before that",
            "choose a time, which follows the timeline of then" + (f': time "{format_time(when)}"' if when else ""),
        )
