"""What crashes of the primary cost, against what was promised, as data only; part of a run's record. Seconds, UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from pytest_iopbackup.proven import Differing, PhysicalFacts, RestoreFacts, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPlan:
    """How often to crash, and when."""

    times: int = 5
    clients: int = 4
    archive_timeout: int | None = None
    """Seconds, set in PostgreSQL meanwhile; None leaves it as it is."""
    moments: Sequence[float] = ()
    """Seconds of writing before each crash; none are drawn by the drill's seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """One crash: restored without the primary's disk, then started again with it."""

    moment: datetime
    """When every process of the primary was dead."""
    after: float
    """Since the first transaction of the writing had ended; all WAL before that was in the repository."""
    acknowledged: int
    """Transactions acknowledged in that time."""
    in_flight: int
    """Transactions that were under way."""
    indeterminate: int
    """Of those, the ones whose COMMIT had been sent."""
    recovered: int
    """Of those, the ones that crash recovery has found committed."""
    lost: Differing
    """Acknowledged transactions that a restore without the disk does not bring back, the oldest first."""
    oldest: float
    """From the commit of the oldest transaction lost to the crash; 0 if none is lost."""
    hole: str | None
    """The WAL segment at which that restore ended although the repository has later ones."""
    backup_age: float
    """From the end of the backup restored to the crash: the loss, had there been no archived WAL."""
    restore: RestoreFacts
    physical: PhysicalFacts | None = None
    """Of the cluster restored without the disk."""
    recovery_seconds: float
    """Of the server on its own disk: from its start until the first transaction could be committed."""
    recovered_to: str
    """PostgreSQL's words on where crash recovery ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashFacts:
    """All crashes of a step, as far as it got."""

    planned: int
    settings: Mapping[str, str]
    """PostgreSQL's settings that decide what an acknowledged commit is worth, as they were in force."""
    promised: float
    """The age of a commit from which on no crash may lose it, whatever becomes of the disk."""
    promise: str
    """Where that comes from, in words."""
    backup_every: float
    """How often the schedule takes a backup: what would be promised without archived WAL."""
    crashes: tuple[Crash, ...]
    verdict: Verdict
    trouble: str | None
    """Why the verdict is not ``passed``."""

    @property
    def ages(self) -> tuple[float, ...]:
        """The age of the oldest transaction lost with the disk, of each crash."""
        return tuple(crash.oldest for crash in self.crashes)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many transactions were lost with the disk, of each crash."""
        return tuple(crash.lost.total for crash in self.crashes)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least so great a share of them does not exceed (the nearest rank)."""
    return sorted(values)[max(ceil(share * len(values)), 1) - 1]
