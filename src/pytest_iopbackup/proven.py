"""A verdict, and what was restored and compared with what was expected: data of a run's record. Seconds, UTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

PORTABLE, FAST = "portable", "fast"
"""The tiers of a digest."""


class Verdict(str, Enum):
    """``unknown`` (the harness could not find out) never counts as passed."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @staticmethod
    def worst(verdicts: Iterable[Verdict]) -> Verdict:
        """Combine verdicts: failed over unknown over passed. Nothing judged is ``unknown``."""
        found = set(verdicts)
        if Verdict.FAILED in found:
            return Verdict.FAILED
        return Verdict.PASSED if found == {Verdict.PASSED} else Verdict.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreFacts:
    """A restore: what was asked for, what PostgreSQL says it reached, and how long each part took."""

    by: str
    target: str | None
    backup_set: str
    target_timeline: int | None
    reached: str
    """PostgreSQL's own words on where recovery ended."""
    last_transaction: datetime | None
    """Commit time of the last transaction replayed, from PostgreSQL's log."""
    timeline: int
    """The timeline the restored server writes on."""
    stop_seconds: float
    """Workers and server stopped, data directory emptied."""
    restore_seconds: float
    """``pgbackrest restore``: files copied back."""
    replay_seconds: float
    """Server started until recovery ended: WAL fetched and replayed."""
    ready_seconds: float
    """Recovery ended until the first transaction could be committed."""

    @property
    def outage_seconds(self) -> float:
        """From the order to stop until the first transaction could be committed."""
        return self.stop_seconds + self.restore_seconds + self.replay_seconds + self.ready_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """Rows that differ in one way: how many in all, and some of them by key."""

    total: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableComparison:
    """One table's row set against the expected one."""

    table: str
    expected_rows: int
    actual_rows: int
    expected_digest: str
    actual_digest: str
    missing: Differing = field(default_factory=Differing)
    unexpected: Differing = field(default_factory=Differing)
    changed: Differing = field(default_factory=Differing)
    more_than: int | None = None
    """Where the rows that differ are too many to be named: there are more than this."""
    tier: str = PORTABLE
    """The tier of the digest that gave the verdict; a difference is always the portable one's."""

    @property
    def equal(self) -> bool:
        """Whether both row sets are the same; counts alone prove nothing."""
        return self.expected_rows == self.actual_rows and self.expected_digest == self.actual_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Anything beside rows that is not as expected: a sequence, a constraint, a role."""

    kind: str
    name: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerJudgement:
    """What the workload committed against what is there, transaction by transaction.

    lost: acknowledged at or before the target, not there. unexpected: committed after the target, rolled back or
    never attempted, there. recovered: outcome unknown to the client, there.
    """

    acknowledged: int
    """Transactions that must be there."""
    rows: int
    """Rows whose last committed state was looked up."""
    lost: Differing = field(default_factory=Differing)
    unexpected: Differing = field(default_factory=Differing)
    recovered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalFacts:
    """How much of the restored cluster was looked over, beside the rows; what is wrong is among the proof's findings.

    Seconds are each task's own, added up over databases; the tasks run side by side.
    """

    databases: int
    """Those that accept connections; pages are read of all."""
    files: int
    pages: int
    """Whose checksum was verified."""
    tables: int
    """Heaps, TOAST tables and catalogs among them."""
    indexes: int
    constraints: int
    page_seconds: float
    structure_seconds: float
    """Tables and indexes."""
    constraint_seconds: float
    omissions: Mapping[str, str] = field(default_factory=dict)
    """What was not looked at, and why: constraints that are not valid, page checksums that are off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofFacts:
    """The whole comparison of a database against a mark."""

    mark: str
    algorithm: str
    tables: tuple[TableComparison, ...] = ()
    sequences: int = 0
    objects: int = 0
    findings: tuple[Finding, ...] = ()
    ledger: LedgerJudgement | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Tables whose rows were not compared, and why: unlogged ones, foreign ones."""
    physical: PhysicalFacts | None = None
    """None where only rows were asked for."""

    @property
    def rows(self) -> int:
        """Rows read on the restored side."""
        return sum(table.actual_rows for table in self.tables)
