"""Where recovery must say that it has stopped, and how far it may have replayed, by the order of WAL.

PostgreSQL's words are those of ``recoveryStopsBefore`` and ``recoveryStopsAfter`` in xlogrecovery.c.
"""

from __future__ import annotations

import re

from pytest_iopbackup.cluster.lsn import format_lsn, parse_lsn
from pytest_iopbackup.cluster.targets import By, Target
from pytest_iopbackup.cluster.wal import Ending, WalOrder
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.cut import InWal

_LOCATION = re.compile(r'recovery stopping (?P<side>before|after) WAL location \(LSN\) "(?P<lsn>[0-9A-F/]+)"')


def misplaced(order: WalOrder, target: Target, cut: InWal, reached: str) -> str | None:
    """Return what is wrong with PostgreSQL's words on where it stopped; None where they are as they must be."""
    if target.by is By.LSN:
        return _misplaced_location(order, target, cut, reached)
    expected = _words(order, target, cut)
    if reached.startswith(expected):
        return None
    return f"PostgreSQL should have said “{expected}”, and said “{reached}”"


def overrun(order: WalOrder, cut: InWal, replayed: int) -> str | None:
    """Return what is wrong with the place up to which WAL was replayed; None where it lies where it must."""
    before, behind = _neighbours(order, cut)
    if before is not None and replayed <= before.lsn:
        return f"replay ended at {format_lsn(replayed)}, before the {_kind(before)} at {format_lsn(before.lsn)}"
    if behind is not None and replayed > behind.lsn:
        return f"replay went on to {format_lsn(replayed)}, behind the {_kind(behind)} at {format_lsn(behind.lsn)}"
    return None


def _words(order: WalOrder, target: Target, cut: InWal) -> str:
    before, behind = _neighbours(order, cut)
    if target.by is By.NAME:
        return f'recovery stopping at restore point "{target.value}"'
    if target.by is By.IMMEDIATE:
        return "recovery stopping after reaching consistency"
    if target.by is By.DEFAULT:
        return "end of WAL"
    after = target.by is By.XID and not target.exclusive
    met = before if after else behind
    if met is None:
        raise ProofError(f"no transaction ends where {target.describe()} lies")
    return f"recovery stopping {'after' if after else 'before'} {_ends(met)}"


def _misplaced_location(order: WalOrder, target: Target, cut: InWal, reached: str) -> str | None:
    match = _LOCATION.match(reached)
    if match is None or match["side"] != ("before" if target.exclusive else "after"):
        return (
            f"PostgreSQL should have stopped {'before' if target.exclusive else 'after'} an LSN, and said “{reached}”"
        )
    stopped = parse_lsn(match["lsn"])
    before, behind = _neighbours(order, cut)
    if stopped < parse_lsn(target.value or ""):
        return f"PostgreSQL stopped at {match['lsn']}, before the target"
    if (behind is not None and stopped > behind.lsn) or (before is not None and stopped < before.lsn):
        return f"PostgreSQL stopped at {match['lsn']}, where the transactions there are others than expected"
    return None


def _neighbours(order: WalOrder, cut: InWal) -> tuple[Ending | None, Ending | None]:
    """Return the last transaction that ends before the cut, and the first behind it."""
    before = order.endings[cut.stop - 1] if cut.stop else None
    return before, order.endings[cut.stop] if cut.stop < len(order.endings) else None


def _ends(ending: Ending) -> str:
    return f"{_kind(ending)}, time "


def _kind(ending: Ending) -> str:
    return f"{'commit' if ending.committed else 'abort'} of transaction {ending.xid}"
