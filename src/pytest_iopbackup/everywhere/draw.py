"""Random recovery points of every kind that names a place, over all of a window, in the order of WAL."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from pytest_iopbackup.cluster.lsn import format_lsn, parse_lsn
from pytest_iopbackup.cluster.targets import By, Target, format_time
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.everywhere.window import Window
from pytest_iopbackup.proof.cut import InWal
from pytest_iopbackup.record import BackupFacts

_KINDS = (By.TIME, By.LSN, By.XID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A target, what it leaves, and where recovery stops for it."""

    target: Target
    cut: InWal
    position: tuple[int, int]
    """Byte position, and 0 before or 1 behind the record that begins there."""


def draw(window: Window, count: int, random: Random) -> list[Place]:
    """Return so many random places and every mark of the window, in the order of WAL.

    Raises UsageError where nothing is committed behind the end of the oldest backup.
    """
    base = window.backups[0]
    start = parse_lsn(base.stop_lsn)
    first = next((at for at, ending in enumerate(window.endings) if ending.previous > start), len(window.endings))
    if first >= len(window.endings) - 1:
        raise UsageError("nothing was committed since the oldest backup, so there is no point to draw", hint="write")
    places = [
        place
        for mark in window.marks
        if parse_lsn(mark.facts.lsn) > start
        and (place := placed(window, _mark(window, mark.facts.name, mark.facts.lsn), base))
    ]
    drawn = 0
    while drawn < count:
        at = random.randrange(first, len(window.endings) - 1)
        place = placed(window, _target(window, _KINDS[drawn % len(_KINDS)], at, random), base)
        if place is not None and place.position[0] > start:
            places.append(place)
            drawn += 1
    return sorted(places, key=lambda place: place.position)


def placed(window: Window, target: Target, base: BackupFacts) -> Place | None:
    """Return where recovery from ``base`` stops for a target; None where it never does."""
    cut = window.cut(target, base)
    return None if cut is None else Place(target=target, cut=cut, position=_position(window, target, cut))


def _position(window: Window, target: Target, cut: InWal) -> tuple[int, int]:
    if target.by in {By.LSN, By.NAME}:
        at = target.value if target.by is By.LSN else target.at_lsn
        return parse_lsn(at or ""), int(target.by is By.LSN and not target.exclusive)
    if target.by is By.XID and not target.exclusive:
        return window.endings[cut.stop - 1].lsn, 1
    return window.endings[cut.stop].lsn, 0


def _target(window: Window, by: By, at: int, random: Random) -> Target:
    """Return a random target of a kind about the transaction that is the ``at``-th to end.

    An LSN that is to be reached is where a record begins: else recovery might stop behind the next point already.
    """
    exclusive = random.random() < 0.5
    ending, following = window.endings[at], window.endings[at + 1]
    line = window.timelines[-1]  # by its number, so that no start looks for a newer one
    if by is By.XID:
        return Target(by=by, value=str(ending.xid), exclusive=exclusive, timeline=line)
    if by is By.LSN:
        places = [ending.lsn, ending.previous]
        if exclusive:
            places += [ending.lsn + 1, random.randrange(ending.lsn, following.lsn)]
        return Target(by=by, value=format_lsn(random.choice(places)), exclusive=exclusive, timeline=line)
    gap = following.time - ending.time
    moment = ending.time + (gap * random.random() if random.random() < 0.5 else 0 * gap)
    return Target(by=by, value=format_time(moment), exclusive=exclusive, timeline=line)


def _mark(window: Window, name: str, lsn: str) -> Target:
    return Target(by=By.NAME, value=name, at_lsn=lsn, timeline=window.timelines[-1])
