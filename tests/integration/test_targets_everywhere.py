"""What goes wrong with a restore to a target must end red, with the right words; each is done on a real server."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone, tzinfo

import pytest

from pytest_iopbackup.cluster import pgbackrest, restore
from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.recovery import await_recovery
from pytest_iopbackup.cluster.targets import By, Target
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.everywhere import candidates, zones
from pytest_iopbackup.everywhere.attempt import Attempt, attempt, prove, untried
from pytest_iopbackup.everywhere.window import Window, archive_all
from pytest_iopbackup.faults import clock
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.points import PointFacts
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import BackupFacts
from pytest_iopbackup.stack.base import Service

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=100)]


def written(drill: Drill) -> Window:
    """Make a history with two marks and a backup between them."""
    drill.mark("seeded")
    drill.write(40)
    drill.backup("diff")
    drill.write(40)
    drill.mark("first")
    drill.write(40)
    drill.mark("last")
    archive_all(drill)
    return Window(drill)


def restored_to(drill: Drill, wanted: Attempt, really: Target, base: BackupFacts | None = None) -> PointFacts:
    """Judge by one target what a restore to another has given; with ``base`` from that backup, whatever it holds."""
    copy = drill.stack.copy()
    try:
        chosen = restore.plan(copy, wanted.target, drill.limits)
        cut = wanted.window.cut(wanted.target, chosen)
        assert cut is not None
        if base is None:
            reached = restore.restore(copy, really, drill.limits, resume=()).reached
        else:
            pgbackrest.restore(copy, restore.restore_options(really, base), drill.limits)
            reached = await_recovery(copy, 0, drill.limits, lambda _: None).reached
        return prove(wanted, cut, copy, replace(untried(wanted), reached=reached))
    finally:
        copy.close()


def test_one_transaction_early_one_late_the_wrong_set_and_a_hole_are_each_seen(iop_stack: Drill) -> None:
    window = written(iop_stack)
    commits = [one for one in window.endings if window.acknowledged(one)]
    before, commit, after = commits[-23:-20]
    wanted = Attempt(name="here", window=window, target=Target(by=By.XID, value=str(commit.xid)))
    assert restored_to(iop_stack, wanted, wanted.target).verdict is Verdict.PASSED

    early = restored_to(iop_stack, wanted, replace(wanted.target, value=str(before.xid)))
    assert early.verdict is Verdict.FAILED
    assert "1 acknowledged transaction lost" in (early.reason or "")
    late = restored_to(iop_stack, wanted, replace(wanted.target, value=str(after.xid)))
    assert late.verdict is Verdict.FAILED
    assert "1 transaction unexpected" in (late.reason or "")

    # The same rows, but not by the target that was meant: nothing ends between them, so only the words tell.
    beside = replace(wanted.target, by=By.LSN, value=None)
    words = restored_to(iop_stack, wanted, replace(beside, value=f"{commit.lsn >> 32:X}/{commit.lsn & 0xFFFFFFFF:X}"))
    assert words.verdict is Verdict.FAILED
    assert f"should have said “recovery stopping after commit of transaction {commit.xid}" in (words.reason or "")

    # A backup that ends after the target: our own refusal comes first, and past it, the rows tell.
    newest = window.backups[-1]
    old = next(one for one in window.endings if window.acknowledged(one) and one.lsn < parse_lsn(newest.start_lsn))
    moment = candidates.by_time("old", window, old.time)
    refused = attempt(iop_stack, replace(moment, target=replace(moment.target, backup_set=newest.label)))
    assert refused.verdict is Verdict.FAILED
    assert "ends after the target" in (refused.reason or "")
    wrong = restored_to(iop_stack, moment, moment.target, newest)
    assert wrong.verdict is Verdict.FAILED
    assert "unexpected" in (wrong.reason or "")

    # A segment in the middle: recovery ends there and "succeeds".
    segment = pgbackrest.info(iop_stack.stack, iop_stack.limits).newest_wal
    assert segment is not None
    path = Site(iop_stack.stack, iop_stack.limits).archived(segment)
    last = window.marks[-1].facts
    whole = path.read_bytes()
    (hole,) = [p for p in path.parent.iterdir() if p.name.startswith(segment_of(last.lsn))]
    content = hole.read_bytes()
    hole.unlink()
    everything = Attempt(name="all", window=window, target=Target())
    short = attempt(iop_stack, everything)
    assert short.verdict is Verdict.FAILED
    assert "acknowledged transactions lost" in (short.reason or "")
    with pytest.raises(ProofError, match=r"WAL segment \w{24} is missing from the repository"):
        Window(iop_stack)
    hole.write_bytes(content)
    path.write_bytes(whole)


def segment_of(lsn: str) -> str:
    place = parse_lsn(lsn)
    return f"00000001{place >> 32:08X}{(place & 0xFFFFFFFF) >> 24:08X}"


def test_the_wrong_timeline_is_seen(iop_stack: Drill) -> None:
    written(iop_stack)
    iop_stack.restore("first", by="name")
    iop_stack.write(40)
    iop_stack.mark("onward")
    archive_all(iop_stack)
    newest, old = Window(iop_stack), Window(iop_stack, 1)
    assert newest.timelines == (1, 2)
    (left,) = [mark for mark in old.marks if mark not in newest.marks]
    (onward,) = [mark for mark in newest.marks if mark not in old.marks]
    wanted = candidates.at_mark(old, left, By.NAME)
    elsewhere = restored_to(iop_stack, wanted, candidates.at_mark(newest, onward, By.NAME).target)
    assert elsewhere.verdict is Verdict.FAILED
    assert "acknowledged transaction" in (elsewhere.reason or "")
    assert "lost" in (elsewhere.reason or "")
    assert restored_to(iop_stack, wanted, wanted.target).verdict is Verdict.PASSED


def test_a_refusal_counts_only_with_its_words_and_only_where_it_is_due(iop_stack: Drill) -> None:
    window = written(iop_stack)
    (early,) = [one for one in candidates.backups(window) if one.name == "before the first backup"]
    assert attempt(iop_stack, early).verdict is Verdict.PASSED
    other = attempt(iop_stack, replace(early, refusal="lies in the future"))
    assert other.verdict is Verdict.FAILED
    assert "refused with other words than 'lies in the future'" in (other.reason or "")
    undue = attempt(iop_stack, replace(early, refusal=None))
    assert undue.verdict is Verdict.FAILED
    assert "no backup ends before the target" in (undue.reason or "")
    reachable = candidates.at_mark(window, window.marks[-2], By.NAME)
    never = attempt(iop_stack, replace(reachable, refusal="ended before"))
    assert never.verdict is Verdict.UNKNOWN
    assert "is reached, against what was expected" in (never.reason or "")


def test_zones_of_system_server_and_client_do_not_count_but_the_offset_does(iop_stack: Drill) -> None:
    window = written(iop_stack)
    tokyo = next(one for one in zones.zones(window) if one.name == "offset +05:45")
    assert attempt(iop_stack, tokyo).verdict is Verdict.PASSED
    # The same digits an hour off in the offset are another moment, and another result.
    value = (tokyo.target.value or "").replace("+05:45", "+06:45")
    hour = attempt(iop_stack, replace(tokyo, target=replace(tokyo.target, value=value)))
    assert hour.verdict is Verdict.FAILED
    assert "no backup ends before the target" in (hour.reason or "")


class ServerHourLater(clock.ServerClock):
    """An hour passes for the server between two of its transactions."""

    offset = 3600


def test_an_idle_hour_in_which_clocks_are_set_back(iop_stack: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same wall clock time, an hour apart, is both in the idle hour and behind it: only the offset tells."""
    iop_stack.mark("seeded")
    wait_until(lambda: datetime.now(timezone.utc) > stopped(iop_stack), limit=10, what="the end of the second")
    iop_stack.write(20)
    for worker in (Service.BACKUP, Service.CHECK):
        iop_stack.stack.stop(worker)
    site, later = Site(iop_stack.stack, iop_stack.limits), ServerHourLater()
    try:
        later.turn(site)
        iop_stack.write(120)
        iop_stack.mark("last")
        archive_all(iop_stack)
    finally:
        later.turn_back(site)
    monkeypatch.setattr(restore, "datetime", HourLater)
    window = Window(iop_stack)
    tried = {one.name: one for one in (*candidates.commits(window), *zones.fold(window))}
    idle = next(name for name in tried if re.fullmatch(r"in 36\d\d\.\d s without a commit", name))
    early, late = tried["the same wall clock time, before, +01"], tried["after the clocks were set back, +00"]
    assert early.refusal is None
    assert (early.target.value or "").replace("+01", "+00") == late.target.value
    found = {name: attempt(iop_stack, tried[name]) for name in (idle, early.name, late.name)}
    assert {name: (point.verdict, point.reason) for name, point in found.items()} == dict.fromkeys(
        found, (Verdict.PASSED, None)
    )
    assert found[early.name].expected == found[idle].expected
    assert (found[late.name].expected or 0) > (found[idle].expected or 0) > 0
    other = restored_to(iop_stack, early, late.target)  # rows that a later transaction deletes count as lost
    assert other.verdict is Verdict.FAILED
    assert re.search(r"transactions? (lost|unexpected)", other.reason or "")


class HourLater:
    """What time it is by the server's clock."""

    @staticmethod
    def now(zone: tzinfo) -> datetime:
        return datetime.now(zone) + timedelta(hours=1)


def stopped(drill: Drill) -> datetime:
    """Return when the last second has passed in which a target could lie before the newest backup."""
    return pgbackrest.info(drill.stack, drill.limits).backups[-1].stopped + timedelta(seconds=3)
