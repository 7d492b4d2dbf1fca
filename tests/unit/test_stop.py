"""PostgreSQL's words on where it stopped, and how far it replayed, against the order of WAL."""

from __future__ import annotations

import pytest
from test_cut import BASE, ORDER, at

from pytest_iopbackup.cluster.lsn import format_lsn
from pytest_iopbackup.cluster.targets import By, Target, format_time
from pytest_iopbackup.proof.cut import cut_at
from pytest_iopbackup.proof.stop import misplaced, overrun


def judged(target: Target, reached: str) -> str | None:
    cut = cut_at(ORDER, target, BASE)
    assert cut is not None
    return misplaced(ORDER, target, cut, reached)


XID = Target(by=By.XID, value="12")
TIME = Target(by=By.TIME, value=format_time(at(3)))
LSN = Target(by=By.LSN, value=format_lsn(0x3800))
NAME = Target(by=By.NAME, value="p", at_lsn=format_lsn(0x3800))


@pytest.mark.parametrize(
    ("target", "reached", "wrong"),
    [
        (XID, "recovery stopping after commit of transaction 12, time 2026", None),
        (
            XID,
            "recovery stopping before commit of transaction 12, time 2026",
            "should have said “recovery stopping after",
        ),
        (XID, "recovery stopping after commit of transaction 122, time 2026", "should have said"),
        (
            Target(by=By.XID, value="12", exclusive=True),
            "recovery stopping before commit of transaction 12, time 2026",
            None,
        ),
        (TIME, "recovery stopping before abort of transaction 13, time 2026", None),
        (TIME, "recovery stopping before commit of transaction 13, time 2026", "abort of transaction 13"),
        (TIME, "end of WAL, redo done at 0/5000", "abort of transaction 13"),
        (LSN, 'recovery stopping after WAL location (LSN) "0/3800"', None),
        (LSN, 'recovery stopping after WAL location (LSN) "0/4000"', None),
        (LSN, 'recovery stopping after WAL location (LSN) "0/37FF"', "before the target"),
        (LSN, 'recovery stopping after WAL location (LSN) "0/4001"', "others than expected"),
        (LSN, 'recovery stopping before WAL location (LSN) "0/3800"', "should have stopped after an LSN"),
        (NAME, 'recovery stopping at restore point "p", time 2026', None),
        (NAME, 'recovery stopping at restore point "pp", time 2026', "should have said"),
        (Target(), "end of WAL, redo done at 0/8FFF", None),
        (Target(), "recovery stopping after reaching consistency", "should have said “end of WAL”"),
        (Target(by=By.IMMEDIATE), "recovery stopping after reaching consistency", None),
    ],
)
def test_words_that_do_not_fit_the_target_are_told(target: Target, reached: str, wrong: str | None) -> None:
    found = judged(target, reached)
    assert (found is None) if wrong is None else (found is not None and wrong in found)


@pytest.mark.parametrize(
    ("replayed", "wrong"),
    [
        (0x3000, "before the commit of transaction 12"),
        (0x3001, None),
        (0x4000, None),
        (0x4001, "behind the commit of transaction 11"),
    ],
)
def test_replay_ends_between_two_transactions(replayed: int, wrong: str | None) -> None:
    cut = cut_at(ORDER, XID, BASE)
    assert cut is not None
    found = overrun(ORDER, cut, replayed)
    assert (found is None) if wrong is None else (found is not None and wrong in found)
