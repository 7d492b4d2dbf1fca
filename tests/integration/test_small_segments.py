"""A restore is planned with the size that the cluster's WAL segments have, whether or not a server runs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from pytest_iopbackup import session
from pytest_iopbackup.cluster import pgbackrest, restore
from pytest_iopbackup.cluster.lsn import format_lsn, segment_end
from pytest_iopbackup.cluster.targets import By, Target
from pytest_iopbackup.drill import Drill, nothing
from pytest_iopbackup.errors import TargetError
from pytest_iopbackup.options import Options
from pytest_iopbackup.scenario.model import Dataset

pytestmark = pytest.mark.integration


@pytest.fixture
def drill(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drill]:
    monkeypatch.setattr(session, "WAL_SEGMENT", 1)
    one = session.Session(Options(), run=secrets.token_hex(4))
    try:
        with one.provide(Dataset(users=20), lambda _name: nothing) as drill:
            yield drill
    finally:
        one.close()


def test_behind_the_last_of_small_segments_a_target_is_refused_before_anything_is_touched(drill: Drill) -> None:
    drill.mark("here")
    newest = pgbackrest.info(drill.stack, drill.limits).newest_wal
    assert newest is not None
    copy = drill.stack.copy()  # where no server runs that could be asked
    try:
        end = segment_end(newest, 1 << 20)
        within = Target(by=By.LSN, value=format_lsn(end - 1))
        assert restore.segment_size(restore.plan(copy, within, drill.limits)) == 1 << 20
        with pytest.raises(TargetError, match=f"lies after the last WAL .segment {newest}"):
            restore.plan(copy, Target(by=By.LSN, value=format_lsn(end + 1)), drill.limits)
    finally:
        copy.close()
