"""Which transactions of a ledger a recovery target leaves.

Where recovery stops follows from the WAL's own order and the rules of ``recoveryStopsBefore`` and
``recoveryStopsAfter`` in PostgreSQL's xlogrecovery.c: a time or an xid is compared with the ends of transactions only
(commits and aborts, prepared ones included), an LSN with the begin of every record. All that comes before the stop in
WAL is replayed, a commit with a later time too: under concurrency, times are not in WAL order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Protocol

from pytest_iopbackup.cluster.lsn import format_lsn, parse_lsn
from pytest_iopbackup.cluster.targets import By, Target, parse_time
from pytest_iopbackup.cluster.wal import Ending, WalOrder
from pytest_iopbackup.dataset.ledger import Entry, Outcome
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.record import BackupFacts


class Cut(Protocol):
    """Parts the transactions of a ledger into those that must be there, may be, and must not be."""

    def holds(self, entry: Entry) -> bool | None:
        """Whether a transaction must be there; None where only the database can tell."""

    def beyond(self, entry: Entry) -> str:
        """Say where an acknowledged transaction that must not be there was committed."""


@dataclass(frozen=True, slots=True)
class AtTime:
    """Acknowledged at or before a commit time: exact where no transaction was open then, as at a mark."""

    moment: datetime

    def holds(self, entry: Entry) -> bool | None:
        """See :class:`Cut`. Raises ProofError for an acknowledged transaction without a commit time."""
        if entry.outcome is Outcome.ACKNOWLEDGED:
            return _time(entry) <= self.moment
        return None if entry.outcome is Outcome.INDETERMINATE else False

    def beyond(self, entry: Entry) -> str:
        """See :class:`Cut`."""
        return f"{(_time(entry) - self.moment).total_seconds():.6f} s after the mark"


@dataclass(frozen=True, slots=True)
class Everything:
    """No cut: all that was acknowledged has to be there, as on a disk that is still there."""

    def holds(self, entry: Entry) -> bool | None:
        """See :class:`Cut`."""
        return None if entry.outcome is Outcome.INDETERMINATE else entry.outcome is Outcome.ACKNOWLEDGED

    def beyond(self, entry: Entry) -> str:
        """See :class:`Cut`: nothing is."""
        return f"and is in the ledger as {entry.outcome.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InWal:
    """The commits before a place in WAL, as ``pg_waldump`` reads it: also of those that no client saw the end of."""

    target: str
    """In words."""
    start: int
    """Where the WAL that was read begins: all before that is in the backup. Byte position."""
    kept: Mapping[int, Ending]
    """Commits before the place, by xid."""
    later: Mapping[int, Ending]
    """Commits behind it, by xid."""
    stop: int
    """How many transactions end before the place, in the WAL that was read."""
    owners: Mapping[int, int | None]
    """See :func:`owners`."""

    def holds(self, entry: Entry) -> bool | None:
        """See :class:`Cut`. A transaction that is nowhere in the WAL has not been archived, or was given up."""
        if entry.outcome is Outcome.ROLLED_BACK:
            return False
        if entry.outcome is Outcome.INDETERMINATE and not self._own(entry):
            return None if entry.xid is None or self.owners[entry.xid % 2**32] != entry.xid else False
        if _same(entry, self.kept):
            return True
        if entry.outcome is Outcome.INDETERMINATE:
            return False if _same(entry, self.later) else None
        if entry.lsn is None:
            raise ProofError(f"the ledger has no LSN for {entry.request_id}", hint="the file was changed: run again")
        return parse_lsn(entry.lsn) <= self.start  # read after its commit record was written

    def beyond(self, entry: Entry) -> str:
        """See :class:`Cut`."""
        if entry.outcome is Outcome.INDETERMINATE and not self._own(entry):
            return f"nowhere in the archived WAL, where its xid {entry.xid} is another transaction's"
        found = _same(entry, self.later)
        if found is None:
            return f"where the archived WAL does not reach ({entry.lsn})"
        return f"at {format_lsn(found.lsn)}, behind {self.target}"

    def _own(self, entry: Entry) -> bool:
        """Whether a commit with the xid of an entry of unknown outcome could be no other transaction's."""
        return entry.xid is not None and entry.xid % 2**32 not in self.owners


def owners(
    order: WalOrder, entries: Iterable[Entry], others: Iterable[tuple[int, datetime]] = ()
) -> Mapping[int, int | None]:
    """Return, by their lower 32 bits, the xids of commits that need not be those of the entry of unknown outcome.

    For xids are used again: after a crash, when the transaction that had one left no WAL, and on another timeline.
    Along one line each has one end; so one that is told by xid and time, of the ledger or of ``others``, has its xid,
    all 64 bits, for itself. None where several transactions of unknown outcome have had an xid.
    """
    commits = {(ending.xid, ending.time) for ending in order.endings if ending.committed}
    unsure: dict[int, int] = {}
    told = list(others)
    for entry in entries:
        if entry.xid is not None and entry.outcome is Outcome.INDETERMINATE:
            unsure[entry.xid % 2**32] = unsure.get(entry.xid % 2**32, 0) + 1
        elif entry.xid is not None and entry.time is not None:
            told.append((entry.xid, entry.time))
    return {
        **{xid: None for xid, count in unsure.items() if count > 1},
        **{xid % 2**32: xid for xid, time in told if (xid % 2**32, time) in commits},
    }


def cut_at(
    order: WalOrder, target: Target, base: BackupFacts, known: Mapping[int, int | None] | None = None
) -> InWal | None:
    """Return what a restore to a target leaves that begins with the backup ``base``; None if it is never reached.

    ``target.at_lsn`` has to say where a restore point is, for WAL's transactions do not name it. ``known`` are the
    :func:`owners` of its commits.
    """
    count = _stop(order, target, base)
    if count is None:
        return None
    kept, later = order.endings[:count], order.endings[count:]
    return InWal(
        target=target.describe(),
        start=order.start,
        kept=_commits(kept),
        later=_commits(later),
        stop=count,
        owners=known or {},
    )


def _stop(order: WalOrder, target: Target, base: BackupFacts) -> int | None:
    """Return how many endings recovery replays before it stops; None if the WAL ends first."""
    endings = order.endings
    if target.by is By.DEFAULT:
        return len(endings)
    if target.by is By.IMMEDIATE:
        return sum(ending.lsn < parse_lsn(base.stop_lsn) for ending in endings)
    # Before these the backup begins: it has them, whatever they say.
    replayed = sum(ending.lsn < parse_lsn(base.start_lsn) for ending in endings)
    if target.by is By.XID:
        xid = int(target.value or 0) % 2**32
        found = next((at for at, ending in enumerate(endings) if ending.xid == xid and at >= replayed), None)
        return None if found is None else found + (not target.exclusive)
    goes_on = _goes_on(target)
    count = replayed + sum(1 for _ in takewhile(goes_on, endings[replayed:]))
    if target.by is By.TIME:
        return count if count < len(endings) else None
    if target.by is By.LSN and order.last is not None:
        return count if _place(target) <= order.last else None
    return count if _place(target) < order.end else None


def _goes_on(target: Target) -> Callable[[Ending], bool]:
    """Return whether an ending is replayed."""
    if target.by is By.TIME:
        moment = parse_time(target.value or "")
        return lambda ending: ending.time < moment or (ending.time == moment and not target.exclusive)
    place = _place(target)
    if target.by is By.LSN and not target.exclusive:  # the first record at or behind the place is replayed
        return lambda ending: ending.previous < place
    return lambda ending: ending.lsn < place


def _place(target: Target) -> int:
    text = target.value if target.by is By.LSN else target.at_lsn
    if text is None:
        raise ProofError(f"it is not known where in WAL {target.describe()} lies", hint="restore to a mark, or by lsn")
    return parse_lsn(text)


def _commits(endings: tuple[Ending, ...]) -> Mapping[int, Ending]:
    return {ending.xid: ending for ending in endings if ending.committed}


def _same(entry: Entry, commits: Mapping[int, Ending]) -> Ending | None:
    """Return the entry's commit; after a restore, another timeline may use an xid again, at another time."""
    found = commits.get(entry.xid % 2**32) if entry.xid is not None else None
    return found if found is not None and entry.time in {None, found.time} else None


def _time(entry: Entry) -> datetime:
    if entry.time is None:
        raise ProofError(
            f"the ledger has no commit time for {entry.request_id}",
            hint="the source needs track_commit_timestamp = on while the workload runs",
        )
    return entry.time
