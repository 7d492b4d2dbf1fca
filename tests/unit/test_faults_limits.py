"""The time within which a fault has to be reported allows for what its own limits make a cycle of checks take."""

from __future__ import annotations

from pytest_iopbackup.faults.base import PACE
from pytest_iopbackup.faults.repository import RepositoryHangs

WORK = 3
"""Seconds for what a cycle does besides waiting, of two cycles, on a machine that is busy."""


def test_a_repository_that_hangs_may_be_reported_by_the_cycle_after_the_one_under_way() -> None:
    limits = {**PACE, **RepositoryHangs.variables}
    # In each, one answer is waited for in vain, and so is pgbackrest check: one after the other.
    answer, check = (int(limits[name]) for name in ("IOP_PROBE_TIMEOUT", "IOP_ARCHIVE_CHECK_TIMEOUT"))
    assert check > int(limits["PGBACKREST_ARCHIVE_TIMEOUT"]), "pgBackRest's own reason says more"
    assert RepositoryHangs.expected.within >= 2 * (answer + check) + WORK
    assert f"within {answer} s" in RepositoryHangs.expected.reason
