"""Timelines of the archive that are not the newest one. A restore begins a new timeline, and leaves the old one's rest.

A time belongs to the timeline that was live then. An LSN, a transaction or a name tells no time: it is looked for on
the newest timeline and its ancestors, up to where each was left. And the files that tell where that was, judged for the
check of the archived WAL. Python 3.9 or later, standard library only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from probes import Findings, Problem, query, some
from repository import Refused, format_lsn, parse_lsn
from wal import Archive, Record, format_time

if TYPE_CHECKING:
    from chain import Chain

DOUBT = 10
"""Seconds that the archiving of a history file may take."""
RESTING = 4
"""Seconds after which a history that was read may be read again, one at a time: its size and time may hide a change."""
OWN = """SELECT coalesce(json_object_agg(left(name, 8), pg_read_file('pg_wal/' || name, 0, 1000000, true)), '{}')
FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{8}\\.history$'"""

Forks = list[tuple[int, int]]
"""The ancestors of a timeline, and where each was left, oldest first."""


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


def parse(text: str) -> Forks:
    """Read a history file."""
    pairs = re.findall(r"^\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)", text, re.MULTILINE)
    return [(int(timeline), parse_lsn(left)) for timeline, left in pairs]


def histories(
    listed: Mapping[str, Mapping[str, Any]], load: Callable[[str], bytes], memory: dict[str, Any]
) -> dict[int, Forks]:
    """Read an archive's history files. Remembered is by name, size and time the text of each, and when it was read."""
    names = [path for path in listed if re.fullmatch(r"[0-9A-F]{8}\.history", path)]
    marks = {f"{path} {listed[path]['size']} {listed[path]['time']}": path for path in names}
    known = {mark: entry for mark, entry in memory.get("histories", {}).items() if isinstance(entry, list)}
    again = min((mark for mark in marks if mark in known), key=lambda mark: float(known[mark][1]), default=None)
    found, memory["histories"] = {}, {}
    for mark, path in marks.items():
        entry = known.get(mark)
        if entry is None or (mark == again and time.time() - float(entry[1]) > RESTING):
            entry = [load(path).decode(errors="replace"), round(time.time(), 1)]
        memory["histories"][mark] = entry
        forks = parse(entry[0])
        if forks:
            found[int(path[:8], 16)] = forks
    return found


def judge_histories(chain: Chain, backups: list[dict[str, Any]], name: str, window: int = 0) -> Findings:
    """Judge whether recovery finds its way from each backup to later timelines; all WAL is kept from ``window`` on.

    Those before the first backup need not be known: the repository may be younger than they are.
    """
    online = [backup for backup in backups if backup["archive"]["start"]]
    origin = min((chain.place(backup["archive"]["start"])[0] for backup in online), default=0)
    lost = [f"{timeline:08X}" for timeline in sorted(chain.newest) if 0 < origin < timeline not in chain.forks]
    if lost:
        seen = f"{name}no history of timeline {some(lost)}: recovery cannot follow it"
        yield Problem("critical", seen, f"put {lost[0]}.history back into the repository, or take a full backup")
    kept = [backup for backup in backups[window:] if backup in online]
    for timeline, forks in sorted(chain.forks.items()):
        wrong = complaint(chain, timeline, forks, kept)
        if wrong:
            yield altered(name, timeline, wrong)


def complaint(chain: Chain, timeline: int, forks: Forks, backups: list[dict[str, Any]]) -> str:
    """Return what is wrong with a timeline's history, by itself and by the WAL that is there."""
    numbers = [*(number for number, _ in forks), timeline]
    places = [left for _, left in forks]
    if numbers != sorted(set(numbers)) or places != sorted(places):
        return "its ancestors do not follow each other"
    parent, left = forks[-1]
    first = chain.oldest.get(timeline)
    where = f"timeline {parent} at {format_lsn(left)}"
    if first is not None and first < left // chain.size:
        return f"it left {where}, but its WAL begins before that, with {chain.name(timeline, first)}"
    for backup in backups:
        origin, last = chain.place(backup["archive"]["stop"])
        if first is not None and origin == parent and left < parse_lsn(backup["lsn"]["stop"]) and first > last:
            after = f"its WAL begins after that, with {chain.name(timeline, first)}"
            return f"it left {where}, before the end of {backup['label']}, but {after}"
    return ""


def judge_own(chain: Chain, name: str) -> Findings:
    """Judge whether the archive's histories are those that the server has."""
    try:
        own = {int(timeline, 16): parse(text or "") for timeline, text in query(OWN).items()}
    except Problem as problem:
        yield f"histories not compared with the server's: {problem.seen}"
        return
    for timeline in sorted(own.keys() & chain.forks.keys()):
        if own[timeline] and own[timeline] != chain.forks[timeline]:
            here, there = (
                ", ".join(f"{t} at {format_lsn(lsn)}" for t, lsn in forks[timeline]) for forks in (own, chain.forks)
            )
            yield altered(name, timeline, f"it left {there}, by the server's own {here}")


def altered(name: str, timeline: int, wrong: str) -> Problem:
    """Return what is to be said of a history that recovery cannot follow."""
    seen = f"{name}the history of timeline {timeline:08X} is wrong: {wrong}"
    hint = f"put {timeline:08X}.history back into the repository: the server may have it in pg_wal"
    return Problem("critical", seen, f"{hint}; else take a full backup")
