"""The same moment written in many ways, where system, server and client each keep another time; and clocks set back.

pgBackRest reads a target time in the system's zone where it has none, PostgreSQL in the server's: so an offset is
demanded, and then neither counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from pytest_iopbackup.cluster.targets import By, Target
from pytest_iopbackup.everywhere.attempt import Attempt
from pytest_iopbackup.everywhere.candidates import by_time, lone_commit
from pytest_iopbackup.everywhere.window import Window

SYSTEM, SERVER, CLIENT = "Asia/Tokyo", "America/St_Johns", "Pacific/Chatham"
_OFFSETS = (("+05:45", 345), ("-11", -660), ("Z", 0), ("+0530", 330), ("-03:30", -210), ("+13", 780))
"""As they are written, and in minutes."""
_HOUR = timedelta(hours=1)


def zones(window: Window) -> Iterator[Attempt]:
    """Try one commit's exact time in six offsets, and what is ambiguous, which is refused."""
    moment = lone_commit(window).time
    for offset, minutes in _OFFSETS:
        text = _wall(moment, minutes) + offset
        yield replace(
            by_time(f"offset {offset}", window, moment),
            target=Target(by=By.TIME, value=text, timeline=window.timeline),
            variables={"TZ": SYSTEM, "PGTZ": CLIENT},
            options=(f"--recovery-option=timezone={SERVER}",),
            client=f"-c timezone={CLIENT}",
        )
    wall = _wall(moment, 0)
    for name, text, refusal in (
        ("no offset", wall, r"it has no UTC offset(.|\n)*HINT: add it: .*\+00"),
        ("a named zone", f"{wall} Europe/Berlin", r"not a time with a numeric UTC offset(.|\n)*HINT: write it as"),
        ("an abbreviated zone", f"{wall} CET", r"not a time with a numeric UTC offset(.|\n)*HINT: write it as"),
        ("yesterday", "yesterday", r"not a time with a numeric UTC offset(.|\n)*HINT: write it as"),
    ):
        yield Attempt(name=name, window=window, target=Target(by=By.TIME, value=text), refusal=refusal)


def fold(window: Window) -> Iterator[Attempt]:
    """Try a wall clock time that comes twice, an hour apart: clocks were set back half an hour before the later one.

    Everything on the machine keeps a zone of that kind. The other of the two moments may lie before all backups.
    """
    moment = lone_commit(window).time
    zone, before = set_back_at(moment - _HOUR / 2), moment - _HOUR
    early = None if window.backups[0].stopped < before.replace(microsecond=0) else "no backup ends before the target"
    for name, minutes, real, refusal in (
        ("after the clocks were set back", 0, moment, None),
        ("the same moment in summer time", 60, moment, None),
        ("the same wall clock time, before", 60, before, early),
    ):
        text = f"{_wall(real, minutes)}+{minutes // 60:02}"
        yield Attempt(
            name=f"{name}, +{minutes // 60:02}",
            window=window,
            target=Target(by=By.TIME, value=text, timeline=window.timeline),
            refusal=refusal,
            variables={"TZ": zone},
            options=(f"--recovery-option=timezone={zone}",),
        )


def set_back_at(moment: datetime) -> str:
    """Return a POSIX zone (POSIX.1, "TZ") whose clocks go from +01 back to +00 at a moment of UTC."""
    ends = moment.timetuple().tm_yday - 1  # as the form without J counts, the 29th of February included
    begins = (ends - 100) % 365
    return f"AAA0BBB,{begins}/0,{ends}/{moment.hour + 1}:{moment:%M:%S}"  # in summer time; past 24 h is the day after


def _wall(moment: datetime, minutes: int) -> str:
    return moment.astimezone(timezone(timedelta(minutes=minutes))).strftime("%Y-%m-%d %H:%M:%S.%f")
