"""Which transactions a target leaves, by the order of WAL: PostgreSQL's rules for each kind, at their edges."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_iopbackup.cluster.lsn import format_lsn
from pytest_iopbackup.cluster.targets import By, Target, format_time
from pytest_iopbackup.cluster.wal import Ending, WalOrder
from pytest_iopbackup.dataset.ledger import Entry, Outcome
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.cut import InWal, cut_at, owners
from pytest_iopbackup.record import BackupFacts

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=timezone.utc)
START, END = 0x1000, 0x9000


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def ending(xid: int, seconds: float, lsn: int, *, committed: bool = True) -> Ending:
    return Ending(xid=xid, committed=committed, time=at(seconds), timeline=1, lsn=lsn, previous=lsn - 0x40)


# The second and the third were written in another order than their clocks say; the fourth was rolled back.
ORDER = WalOrder(
    endings=(
        ending(10, 1, 0x2000),
        ending(12, 3, 0x3000),
        ending(11, 2, 0x4000),
        ending(13, 4, 0x5000, committed=False),
        ending(14, 5, 0x6000),
    ),
    start=START,
    end=END,
)
BASE = BackupFacts(
    label="base", type="full", prior=None, database_size=1, repository_size=1, started=NOON, stopped=NOON,
    start_lsn=format_lsn(0x1000), stop_lsn=format_lsn(0x2800), start_wal="0" * 24, stop_wal="0" * 24,
)  # fmt: skip


def kept(target: Target, order: WalOrder = ORDER, base: BackupFacts = BASE) -> list[int] | None:
    cut = cut_at(order, target, base)
    return None if cut is None else sorted(cut.kept)


@pytest.mark.parametrize(
    ("seconds", "exclusive", "expected"),
    [
        (0.999999, False, []),
        (1, False, [10]),
        (1, True, []),
        (1.000001, True, [10]),
        (2, False, [10]),  # the commit of 2 lies behind that of 3, at which recovery stops
        (2.5, True, [10]),
        (3, False, [10, 11, 12]),
        (3, True, [10]),
        (4, True, [10, 11, 12]),
        (4, False, [10, 11, 12]),
        (4.999999, False, [10, 11, 12]),
        (5, True, [10, 11, 12]),
        (5, False, None),  # nothing later ends, at which recovery could stop
        (99, False, None),
    ],
)
def test_by_time_recovery_stops_at_the_first_end_that_is_later(
    seconds: float, exclusive: bool, expected: list[int] | None
) -> None:
    assert kept(Target(by=By.TIME, value=format_time(at(seconds)), exclusive=exclusive)) == expected


@pytest.mark.parametrize(
    ("lsn", "exclusive", "expected"),
    [
        (0x2000, False, [10]),
        (0x2000, True, []),
        (0x1FC1, False, [10]),  # the first record at or behind it is the commit
        (0x1FC0, False, []),  # that is the record before it
        (0x1FC1, True, []),
        (0x2001, True, [10]),
        (0x5FFF, False, [10, 11, 12, 14]),
        (0x8FFF, False, [10, 11, 12, 14]),
        (0x9000, False, None),
    ],
)
def test_by_lsn_the_record_that_begins_there_counts(lsn: int, exclusive: bool, expected: list[int] | None) -> None:
    assert kept(Target(by=By.LSN, value=format_lsn(lsn), exclusive=exclusive)) == expected


@pytest.mark.parametrize(
    ("xid", "exclusive", "expected"),
    [
        (12, False, [10, 12]),
        (12, True, [10]),
        (11, True, [10, 12]),
        (13, False, [10, 11, 12]),  # an abort is an end, too
        (14, False, [10, 11, 12, 14]),
        (2**32 + 12, False, [10, 12]),
        (99, False, None),
    ],
)
def test_by_xid_commits_count_in_the_order_of_wal(xid: int, exclusive: bool, expected: list[int] | None) -> None:
    assert kept(Target(by=By.XID, value=str(xid), exclusive=exclusive)) == expected


def test_by_name_all_before_the_restore_point_is_there() -> None:
    assert kept(Target(by=By.NAME, value="p", at_lsn=format_lsn(0x3800))) == [10, 12]
    assert kept(Target(by=By.NAME, value="p", at_lsn=format_lsn(0x9800))) is None
    with pytest.raises(ProofError, match="it is not known where in WAL name p lies"):
        kept(Target(by=By.NAME, value="p"))


def test_without_a_target_all_is_there_and_at_once_only_what_the_backup_needs() -> None:
    assert kept(Target()) == [10, 11, 12, 14]
    assert kept(Target(by=By.IMMEDIATE)) == [10]


def test_what_ended_before_the_backup_began_is_there_whatever_its_time() -> None:
    order = replace(ORDER, endings=(ending(9, 50, 0x1800), *ORDER.endings))
    late = replace(BASE, start_lsn=format_lsn(0x1900))
    target = Target(by=By.TIME, value=format_time(at(3)))
    assert kept(target, order, late) == [9, 10, 11, 12]
    assert kept(target, order, BASE) == []


def entry(xid: int | None, outcome: Outcome = Outcome.ACKNOWLEDGED, *, seconds: float = 0, lsn: int = 0x7000) -> Entry:
    known = outcome is Outcome.ACKNOWLEDGED
    return Entry(
        request_id=str(UUID(int=xid or 0)), client=1, kind="login", outcome=outcome, xid=xid,
        lsn=format_lsn(lsn) if known else None, time=at(seconds) if known else None, effects=(),
    )  # fmt: skip


def cut(target: Target) -> InWal:
    found = cut_at(ORDER, target, BASE)
    assert found is not None
    return found


def test_each_outcome_is_judged_by_the_wal() -> None:
    target = cut(Target(by=By.XID, value="12"))
    assert target.holds(entry(12, seconds=3)) is True
    assert target.holds(entry(2**32 + 12, seconds=3)) is True
    assert target.holds(entry(11, seconds=2)) is False
    assert target.holds(entry(11, Outcome.ROLLED_BACK)) is False
    assert target.holds(entry(12, Outcome.INDETERMINATE)) is True  # WAL knows better than its client
    assert target.holds(entry(11, Outcome.INDETERMINATE)) is False
    assert target.holds(entry(77, Outcome.INDETERMINATE)) is None
    assert target.holds(entry(None, Outcome.INDETERMINATE)) is None
    assert target.holds(entry(5, lsn=START)) is True  # acknowledged before the WAL that was read begins
    assert target.holds(entry(77, lsn=START + 1)) is False  # not archived
    assert target.holds(entry(12, seconds=3.5)) is False  # another timeline's transaction of that number


def test_an_xid_that_was_used_again_is_not_taken_for_a_transaction_of_unknown_outcome() -> None:
    lost, again = entry(12, Outcome.INDETERMINATE), entry(12, seconds=3)
    known = owners(ORDER, [lost, again])
    for value, holds in (("10", False), ("12", True)):
        target = cut_at(ORDER, Target(by=By.XID, value=value), BASE, known)
        assert target is not None
        assert target.holds(again) is holds
        assert target.holds(lost) is False
        assert target.beyond(lost) == "nowhere in the archived WAL, where its xid 12 is another transaction's"
        assert target.holds(entry(2**32 + 12, Outcome.INDETERMINATE)) is None  # the other's is of another epoch


@pytest.mark.parametrize(
    ("others", "holds"),
    [
        ((), True),
        ((entry(12, seconds=3.5),), True),  # of another timeline: it is not this commit
        ((replace(entry(12, seconds=3), outcome=Outcome.ROLLED_BACK),), False),  # given up by a restore, and yet here
        ((entry(12, Outcome.ROLLED_BACK),), True),
        ((entry(12, Outcome.INDETERMINATE),), None),
        ((entry(12, Outcome.INDETERMINATE), entry(12, seconds=3)), False),
    ],
)
def test_of_several_transactions_with_an_xid_the_one_that_is_told_has_the_commit(
    others: tuple[Entry, ...], holds: bool | None
) -> None:
    unsure = entry(12, Outcome.INDETERMINATE)
    target = cut_at(ORDER, Target(by=By.XID, value="12"), BASE, owners(ORDER, [unsure, *others]))
    assert target is not None
    assert target.holds(unsure) is holds


def test_a_commit_of_no_entry_is_known_by_xid_and_time() -> None:
    unsure = entry(12, Outcome.INDETERMINATE)
    for seconds, holds in ((3, False), (4, True)):
        target = cut_at(ORDER, Target(by=By.XID, value="12"), BASE, owners(ORDER, [unsure], [(12, at(seconds))]))
        assert target is not None
        assert target.holds(unsure) is holds


def test_where_a_transaction_went_is_told() -> None:
    target = cut(Target(by=By.XID, value="12"))
    assert target.beyond(entry(11, seconds=2)) == "at 0/4000, behind xid 12"
    assert target.beyond(entry(77, lsn=0x9100)) == "where the archived WAL does not reach (0/9100)"


@given(st.data())
def test_a_later_target_never_leaves_less(data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=12))
    endings = tuple(
        ending(100 + at, seconds, 0x2000 + 0x100 * at, committed=data.draw(st.booleans()))
        for at, seconds in enumerate(times)
    )
    order = WalOrder(endings=endings, start=START, end=END)
    by = data.draw(st.sampled_from([By.TIME, By.LSN]))
    exclusive = data.draw(st.booleans())
    first, second = sorted(data.draw(st.tuples(st.integers(0, 40), st.integers(0, 40))))

    def left(place: int) -> set[int]:
        value = format_time(at(place / 2)) if by is By.TIME else format_lsn(0x1F80 + 0x40 * place)
        found = cut_at(order, Target(by=by, value=value, exclusive=exclusive), BASE)
        return {one.xid for one in endings if one.committed} if found is None else set(found.kept)

    assert left(first) <= left(second)


def test_behind_the_last_record_no_lsn_is_reached() -> None:
    order = replace(ORDER, last=0x7000)
    assert kept(Target(by=By.LSN, value=format_lsn(0x7000)), order) == [10, 11, 12, 14]
    assert kept(Target(by=By.LSN, value=format_lsn(0x7001)), order) is None
