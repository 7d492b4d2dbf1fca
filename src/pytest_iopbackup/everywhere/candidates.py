"""Which targets are tried, of every kind and at every edge, and which of them have to be refused.

Each function gives the attempts of one subject, made from what is really there: commits, backups, marks, gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise

from pytest_iopbackup.cluster.lsn import format_lsn, parse_lsn
from pytest_iopbackup.cluster.targets import By, Target, format_time
from pytest_iopbackup.cluster.wal import Ending
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.everywhere.attempt import NEVER_REACHED, Attempt
from pytest_iopbackup.everywhere.window import Window
from pytest_iopbackup.proof.mark import Mark

MICROSECOND = timedelta(microseconds=1)
_NO_BACKUP = "no backup ends before the target"
_SET_TOO_LATE = "ends after the target .* so it cannot be reached from there"


def by_time(
    name: str,
    window: Window,
    moment: datetime,
    refusal: str | None = None,
    *,
    exclusive: bool = False,
    backup_set: str | None = None,
) -> Attempt:
    """Return the attempt to restore to a time."""
    target = Target(
        by=By.TIME, value=format_time(moment), exclusive=exclusive, backup_set=backup_set, timeline=window.timeline
    )
    return Attempt(name=name, window=window, target=target, refusal=refusal)


def by_lsn(
    name: str,
    window: Window,
    lsn: int,
    refusal: str | None = None,
    *,
    exclusive: bool = False,
    backup_set: str | None = None,
) -> Attempt:
    """Return the attempt to restore to an LSN, a byte position."""
    target = Target(
        by=By.LSN, value=format_lsn(lsn), exclusive=exclusive, backup_set=backup_set, timeline=window.timeline
    )
    return Attempt(name=name, window=window, target=target, refusal=refusal)


def at_mark(window: Window, mark: Mark, by: By, *, exclusive: bool = False) -> Attempt:
    """Return the attempt to restore to a mark."""
    facts = mark.facts
    values = {By.TIME: format_time(facts.time), By.LSN: facts.lsn, By.XID: str(facts.xid), By.NAME: facts.name}
    target = Target(by=by, value=values[by], exclusive=exclusive, timeline=window.timeline, at_lsn=facts.lsn)
    name = f"mark {facts.name} by {by.value}{', exclusive' if exclusive else ''}"
    return Attempt(name=name, window=window, target=target)


def marks(window: Window) -> Iterator[Attempt]:
    """Try each mark that a backup leads to by name, and the last but one in every way there is."""
    there = [mark for mark in window.marks if parse_lsn(mark.facts.lsn) >= parse_lsn(window.backups[0].stop_lsn)]
    chosen = there[-2:][:1]
    for mark in there:
        yield at_mark(window, mark, By.NAME)
    for mark in chosen:
        for by in (By.TIME, By.LSN, By.XID):
            for exclusive in (False, True):
                yield at_mark(window, mark, by, exclusive=exclusive)


def ends(window: Window) -> Iterator[Attempt]:
    """Try the end of the archived WAL and what lies behind it, and the end of each backup."""
    last = window.endings[-1]
    yield Attempt(name="default: the end of WAL", window=window, target=Target(timeline=window.timeline))
    oldest = Target(timeline=window.timeline, backup_set=window.backups[0].label)
    yield Attempt(name="default, from the oldest backup", window=window, target=oldest)
    yield by_time("exactly the last commit's time", window, last.time, NEVER_REACHED)
    yield by_time("exactly the last commit's time, exclusive", window, last.time, exclusive=True)
    yield by_time("after the last commit", window, last.time + MICROSECOND, NEVER_REACHED)
    behind = "lies after the last WAL" if window.timeline is None else NEVER_REACHED
    yield by_lsn("after the last archived WAL", window, window.order.end + (64 << 20), behind)
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    yield by_time("tomorrow", window, tomorrow, "lies in the future")
    for backup in window.backups:
        at_end = Target(by=By.IMMEDIATE, backup_set=backup.label)
        yield Attempt(name=f"immediate, {backup.label}", window=window, target=at_end)


def backups(window: Window) -> Iterator[Attempt]:
    """Try before the first backup, between two, and exactly where one stops."""
    first, last = window.backups[0], window.backups[-1]
    early = first.stopped - timedelta(seconds=30)
    yield by_time("before the first backup", window, early, _NO_BACKUP)
    yield by_lsn("before the first backup, by LSN", window, parse_lsn(first.start_lsn) - 1, _NO_BACKUP)
    yield by_time("before the end of the set asked for", window, early, _SET_TOO_LATE, backup_set=last.label)
    one_less = parse_lsn(last.stop_lsn) - 1
    yield by_lsn("before the set's end, by LSN", window, one_less, _SET_TOO_LATE, backup_set=last.label)
    yield by_time("at the second in which the set stops", window, last.stopped, _SET_TOO_LATE, backup_set=last.label)
    yield by_time("at the second in which a backup stops", window, last.stopped)
    for exclusive in (False, True):
        name = f"exactly where a backup stops, by LSN{', exclusive' if exclusive else ''}"
        yield by_lsn(name, window, parse_lsn(last.stop_lsn), exclusive=exclusive)
    for before, after in list(pairwise(window.backups))[-1:]:
        middle = (parse_lsn(before.stop_lsn) + parse_lsn(after.start_lsn)) // 2
        yield by_lsn(f"between backups {before.label} and {after.label}", window, middle)


def commits(window: Window) -> Iterator[Attempt]:
    """Try a microsecond around a commit, its very time, and the longest stretch without any."""
    commit = lone_commit(window)
    for name, moment, exclusive in (
        ("a commit's time less 1 µs", commit.time - MICROSECOND, False),
        ("exactly a commit's time", commit.time, False),
        ("exactly a commit's time, exclusive", commit.time, True),
        ("a commit's time and 1 µs, exclusive", commit.time + MICROSECOND, True),
        ("a commit's time and 1 µs", commit.time + MICROSECOND, False),
    ):
        yield by_time(name, window, moment, exclusive=exclusive)
    before, after = max(pairwise(_usable(window)), key=lambda pair: pair[1].time - pair[0].time)
    idle = after.time - before.time
    yield by_time(f"in {idle.total_seconds():.1f} s without a commit", window, before.time + idle / 2)


def nowhere(window: Window) -> Iterator[Attempt]:
    """Try what nothing in the WAL answers to, and what makes no sense."""
    line = window.timeline
    unknown_xid = str(max(ending.xid for ending in window.endings) + 1_000_000)
    for name, target, refusal in (
        ("an xid that was never used", Target(by=By.XID, value=unknown_xid, timeline=line), NEVER_REACHED),
        ("a name that was never given", Target(by=By.NAME, value="no-such-point", timeline=line), NEVER_REACHED),
        ("a name, exclusive", Target(by=By.NAME, value="x", exclusive=True), "a restore by name cannot be exclusive"),
        ("an LSN that is none", Target(by=By.LSN, value="0/XYZ"), "is not an LSN"),
        ("an xid that is none", Target(by=By.XID, value="12a"), "is not a number"),
        ("a backup that is not there", Target(backup_set="20200101-000000F"), "is not in the repository"),
    ):
        yield Attempt(name=name, window=window, target=target, refusal=refusal)


def timelines(window: Window, old: Window) -> Iterator[Attempt]:
    """Try the timeline that a restore has left, and the new one, where the same xid is another transaction."""
    here = {mark.facts.name for mark in window.marks}
    left = [mark for mark in old.marks if mark.facts.name not in here]
    for mark in left[-1:]:
        for by in (By.NAME, By.TIME, By.LSN):
            yield at_mark(old, mark, by)
        again = Target(by=By.XID, value=str(mark.facts.xid), timeline=old.timeline, at_lsn=mark.facts.lsn)
        yield Attempt(name=f"xid {mark.facts.xid} on timeline {old.timeline}", window=old, target=again)
        base = max((one for one in window.backups if one in old.backups), key=lambda one: parse_lsn(one.stop_lsn))
        here_too = Target(by=By.XID, value=str(mark.facts.xid), backup_set=base.label)
        refusal = None if window.cut(here_too, base) else NEVER_REACHED
        yield Attempt(name=f"xid {mark.facts.xid} on the newest", window=window, target=here_too, refusal=refusal)
        gone = Target(by=By.NAME, value=mark.facts.name)
        name = f"mark {mark.facts.name} on the newest"
        yield Attempt(name=name, window=window, target=gone, refusal=NEVER_REACHED)
    yield Attempt(name="the end of the old timeline", window=old, target=Target(timeline=old.timeline))
    for backup in [one for one in window.backups if one not in old.backups][-1:]:
        wrong = Target(timeline=old.timeline, backup_set=backup.label)
        refusal = "was taken on a timeline that does not lead to the target"
        yield Attempt(name="a backup of the new timeline, for the old", window=old, target=wrong, refusal=refusal)


def again(window: Window) -> Iterator[Attempt]:
    """Try two restores in a row to one place, and ``--delta`` over files that were changed since the first."""
    newest, older = window.marks[-1], window.marks[-2]
    first = at_mark(window, newest, By.NAME).target
    second = at_mark(window, older, By.NAME).target
    name = f"mark {older.facts.name} after a restore to {newest.facts.name}"
    yield Attempt(name=name, window=window, target=second, first=first)
    changed = f"--delta to {older.facts.name} over changed files"
    yield Attempt(name=changed, window=window, target=second, first=first, options=("--delta",))


def lone_commit(window: Window) -> Ending:
    """Return an acknowledged commit in the midst of the window, more than 2 µs apart from both of its neighbours."""
    usable = _usable(window)
    alone = [
        commit
        for before, commit, after in zip(usable, usable[1:], usable[2:], strict=False)
        if window.acknowledged(commit) and min(commit.time - before.time, after.time - commit.time) > 2 * MICROSECOND
    ]
    if not alone:
        raise UsageError("no commit stands alone in the WAL since the oldest backup", hint="write more, then mark")
    return alone[len(alone) // 2]


def _usable(window: Window) -> tuple[Ending, ...]:
    """Return what ends at least 2 s behind the end of the oldest backup."""
    start = window.backups[0].stopped + timedelta(seconds=2)
    return tuple(ending for ending in window.endings if ending.time >= start)
