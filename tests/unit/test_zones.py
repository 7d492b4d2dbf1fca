"""A zone whose clocks are set back at a moment, as the C library reads it."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timedelta, timezone

import pytest

from pytest_iopbackup.everywhere.zones import set_back_at


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 29, 15, 0, tzinfo=timezone.utc),
        datetime(2026, 1, 1, 0, 10, tzinfo=timezone.utc),
        datetime(2026, 12, 31, 23, 40, tzinfo=timezone.utc),
        datetime(2028, 2, 28, 12, 0, tzinfo=timezone.utc),
        datetime(2028, 2, 29, 12, 0, tzinfo=timezone.utc),
        datetime(2028, 3, 1, 12, 0, tzinfo=timezone.utc),
        datetime(2028, 12, 31, 12, 0, tzinfo=timezone.utc),
    ],
    ids=str,
)
def test_the_clock_goes_back_by_an_hour_at_the_moment(moment: datetime) -> None:
    zone = set_back_at(moment)
    assert _wall(zone, moment - timedelta(seconds=1)) == f"{moment + timedelta(minutes=60, seconds=-1):%H:%M:%S} +0100"
    assert _wall(zone, moment + timedelta(seconds=1)) == f"{moment + timedelta(seconds=1):%H:%M:%S} +0000"


def _wall(zone: str, moment: datetime) -> str:
    argv = ["date", f"--date=@{int(moment.timestamp())}", "+%H:%M:%S %z"]
    return subprocess.run(
        argv, env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=True
    ).stdout.strip()
