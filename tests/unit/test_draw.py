"""Random recovery points: reproducible, in the order of WAL, never before the backup's end, over all the window."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cut import BASE, ending

from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.targets import By, Target
from pytest_iopbackup.cluster.wal import WalOrder
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.everywhere.draw import Place, draw
from pytest_iopbackup.everywhere.sweep import split
from pytest_iopbackup.everywhere.window import Window
from pytest_iopbackup.proof.cut import InWal, cut_at
from pytest_iopbackup.record import BackupFacts


def window(times: list[int]) -> Window:
    """Return a window with no marks whose transactions end at these seconds, in this order of WAL."""
    endings = tuple(ending(100 + at, seconds, 0x3000 + 0x100 * at) for at, seconds in enumerate(times))
    order = WalOrder(endings=endings, start=0x1000, end=0x90000, last=0x80000)

    def cut(target: Target, base: BackupFacts) -> InWal | None:
        return cut_at(order, target, base)

    made = SimpleNamespace(order=order, endings=endings, backups=(BASE,), marks=(), timelines=(1,), cut=cut)
    return cast("Window", made)


@given(st.lists(st.integers(0, 30), min_size=3, max_size=40), st.integers(0, 2**32))
def test_points_come_in_the_order_of_wal_and_the_same_seed_gives_the_same(times: list[int], seed: int) -> None:
    there = window(times)
    places = draw(there, 20, Random(seed))
    assert len(places) == 20
    assert [place.position for place in places] == sorted(place.position for place in places)
    stops = [place.cut.stop for place in places]
    assert stops == sorted(stops)
    assert min(place.position[0] for place in places) > parse_lsn(BASE.stop_lsn)
    assert [place.target for place in draw(there, 20, Random(seed))] == [place.target for place in places]


def test_every_kind_and_both_sides_are_drawn_over_the_whole_window() -> None:
    there = window(list(range(60)))
    places = draw(there, 200, Random(1))
    kinds = {(place.target.by, place.target.exclusive) for place in places}
    assert kinds == {(by, side) for by in (By.TIME, By.LSN, By.XID) for side in (False, True)}
    assert {place.cut.stop // 10 for place in places} == set(range(6))
    assert {place.target.value for place in draw(there, 20, Random(2))} != {place.target.value for place in places[:20]}


def test_where_nothing_is_committed_behind_the_backup_there_is_no_point() -> None:
    with pytest.raises(UsageError, match="no point to draw"):
        draw(window([1]), 5, Random(1))


@given(st.integers(1, 40), st.integers(1, 8))
def test_parts_are_whole_and_even(count: int, workers: int) -> None:
    places = cast("list[Place]", list(range(count)))
    parts = split(places, workers)
    assert [place for part in parts for place in part] == places
    sizes = [len(part) for part in parts]
    assert len(parts) == min(count, workers)
    assert max(sizes) - min(sizes) <= 1
