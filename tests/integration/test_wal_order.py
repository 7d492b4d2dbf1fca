"""The order of commits as pg_waldump reads it from the archive, against what clients were told, over two timelines."""

from __future__ import annotations

import pytest

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.wal import read_order
from pytest_iopbackup.dataset.ledger import Outcome
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.site import Site

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=100)]


def switch(drill: Drill) -> str:
    site = Site(drill.stack, drill.limits)
    segment = site.switch_wal()
    site.await_archived(segment)
    return segment


def test_every_acknowledged_commit_is_in_the_wal_once_where_its_client_says(iop_stack: Drill) -> None:
    base = pgbackrest.info(iop_stack.stack, iop_stack.limits).backups[0]
    iop_stack.write(transactions=60)
    iop_stack.mark("left")
    iop_stack.write(transactions=30)
    switch(iop_stack)
    order = read_order(iop_stack.stack, base.start_lsn, iop_stack.limits)
    assert [one.lsn for one in order.endings] == sorted(one.lsn for one in order.endings)
    found = {one.xid: one for one in order.endings if one.committed}
    acknowledged = [one for one in iop_stack.ledger.entries() if one.outcome is Outcome.ACKNOWLEDGED]
    for entry in acknowledged:
        assert entry.xid is not None
        assert entry.lsn is not None
        ending = found[entry.xid]
        assert ending.time == entry.time
        assert ending.lsn < parse_lsn(entry.lsn)
    aborted = {one.xid for one in order.endings if not one.committed}
    rolled_back = {one.xid for one in iop_stack.ledger.entries() if one.outcome is Outcome.ROLLED_BACK} - {None}
    assert rolled_back <= aborted
    assert not rolled_back & found.keys()

    # On the new timeline, what was given up is not in the order any more, and what came after is.
    iop_stack.restore("left", by="time")
    iop_stack.write(transactions=30)
    switch(iop_stack)
    later = read_order(iop_stack.stack, base.start_lsn, iop_stack.limits)
    assert {one.timeline for one in later.endings} == {1, 2}
    mark = next(one for one in order.endings if not one.committed or one.time > found[acknowledged[0].xid or 0].time)
    assert mark in later.endings
    left = [one for one in later.endings if one.timeline == 1]
    assert left == [one for one in order.endings if one.lsn < left[-1].lsn + 1]
    times = {one.time for one in later.endings if one.timeline == 2 and one.committed}
    assert {one.time for one in iop_stack.ledger.entries() if one.outcome is Outcome.ACKNOWLEDGED} & times
    assert read_order(iop_stack.stack, base.start_lsn, iop_stack.limits, timeline=1).endings == order.endings


def test_a_hole_and_what_cannot_be_read_are_told(iop_stack: Drill) -> None:
    base = pgbackrest.info(iop_stack.stack, iop_stack.limits).backups[0]
    iop_stack.write(transactions=20)
    lost = switch(iop_stack)
    iop_stack.write(transactions=20)
    switch(iop_stack)
    site = Site(iop_stack.stack, iop_stack.limits)
    (path,) = [path for path in site.archive().glob("*/*") if path.name.startswith(lost)]
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(ProofError, match=f"WAL segment {lost} is missing from the repository"):
        read_order(iop_stack.stack, base.start_lsn, iop_stack.limits)
    path.write_bytes(whole)
